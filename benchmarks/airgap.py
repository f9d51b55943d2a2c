"""From a pack alone: pack, carry as parts, unpack, install and run where there is no network.

    python benchmarks/airgap.py
    python benchmarks/airgap.py --torch-index URL       # where plain PyPI has torch for CUDA alone

The embedded set with every wheel is packed and split; then, in a network namespace whose only
interface is loopback and with none of this machine's pip settings: carry.py puts the parts together
with the bare Python, `make setup` installs from the wheels, `localism run-all` runs whole, and
`localism verify` finds the pack as it was. At last one byte of a weight file is flipped and has to
be named. Times are of one shared machine; saves benchmarks/results/airgap.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import netns  # noqa: E402  (tests/ is no package)

WEIGHTS = "localism/localism/embedded/teacher/model.safetensors"


def main() -> None:
    """Do it all in a temporary folder and print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-index", help="index with the CPU build of torch")
    parser.add_argument("--work", type=Path, help="a folder with 15 GB free, instead of /tmp")
    asked = parser.parse_args()
    if reason := netns.reason_not_permitted():
        sys.exit(f"no network namespace here: {reason}")
    with tempfile.TemporaryDirectory(prefix="airgap-", dir=asked.work) as work:
        found = measure(Path(work), asked.torch_index)
    (ROOT / "benchmarks/results/airgap.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


def measure(work: Path, torch_index: str | None) -> dict[str, Any]:
    """Seconds of each step, and what came out."""
    outside, inside = work / "outside", work / "inside"
    outside.mkdir()
    inside.mkdir()
    seconds: dict[str, float] = {}
    pack = [sys.executable, "-m", "localism", "pack", "--to", str(outside / "pack"), "--for", "cpu"]
    pack += ["--models", str(ROOT / "models.toml"), "--split", "1G", "--json"]
    pack += ["--torch-index", torch_index] if torch_index else []
    packed = json.loads(timed("pack", seconds, pack, cwd=ROOT))
    shutil.rmtree(outside / "pack")  # from here on there are the parts alone
    parts = len(list(outside.glob("pack.tar.*")))
    carry = ["python3", str(outside / "carry.py"), "unpack", str(outside / "pack.parts.json")]
    alone("unpack and verify", seconds, [*carry, str(inside)], inside)
    shutil.rmtree(outside)
    folder = inside / "pack"
    setup = ["make", "setup", "WHEELS=../wheels", "LOCK=requirements/cpu.txt"]
    alone("set up", seconds, setup, folder / "localism")
    localism = str(folder / "localism/.venv/bin/localism")
    run = [localism, "run-all", "--run", "first", "--models", "models.toml", "--plain"]
    alone("run-all", seconds, run, folder)
    alone("verify", seconds, [localism, "verify", "."], folder)
    facts = json.loads(
        alone("status", seconds, [localism, "status", "--run", "first", "--json"], folder)
    )
    with (folder / WEIGHTS).open("r+b") as weights:
        weights.seek(123_456)
        byte = weights.read(1)[0]
        weights.seek(123_456)
        weights.write(bytes([byte ^ 1]))
    flipped = subprocess.run([localism, "verify", "."], cwd=folder, capture_output=True, text=True)
    assert flipped.returncode == 3 and f"altered {WEIGHTS}" in flipped.stderr, flipped.stderr
    return {
        "benchmark": "airgap",
        "command": "python benchmarks/airgap.py",
        "date": date.today().isoformat(),
        "pack_bytes": packed["bytes"],
        "pack_files": packed["files"],
        "parts": parts,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "stages_done": sum(stage["state"] == "done" for stage in facts["stages"]),
        "egress_refused": facts["refused_connections"],
        "flipped_byte_named": True,
    }


def alone(name: str, seconds: dict[str, float], command: list[str], folder: Path) -> str:
    """Run where there is no network, with a bare environment."""
    with tempfile.TemporaryDirectory() as home:
        path = os.environ["PATH"]
        bare = {"HOME": home, "PATH": path, "LANG": "C.UTF-8", "PIP_CONFIG_FILE": os.devnull}
        return timed(name, seconds, netns.isolated(command), cwd=folder, env=bare)


def timed(name: str, seconds: dict[str, float], command: list[str], **how: Any) -> str:
    """Its standard output; a failure ends the benchmark with what it said."""
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, **how)
    seconds[name] = time.monotonic() - started
    print(f"{name:<20}{seconds[name]:>8.1f} s", file=sys.stderr, flush=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
