"""Does anything leave this machine, in whatever language it is written? A whole run under strace.

    python benchmarks/strace_run.py
    python benchmarks/strace_run.py --small          # with the recipe of the end-to-end tests

`run-all` of the miniature with every connect, sendto, sendmsg and sendmmsg of every process and
thread written down by the kernel's side, and read by tests/socket_calls.py. Fails on a destination
that is neither loopback nor a Unix or netlink socket, and on a line that can't be read. Rings of
io_uring would act unseen: they are refused to the run. The network is left as it is: what a
namespace would merely stop, shows here. Saves benchmarks/results/strace_run.json.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import pipeline  # noqa: E402  (tests/ is no package)
import socket_calls  # noqa: E402
from socket_calls import Call, Seen  # noqa: E402

from localism.prompting.packs import packaged  # noqa: E402

SHOWN = 20
KINDS = ("loopback", "unix", "netlink", "connected before", "dissolved", "leaves")


def main() -> None:
    """Run, read, print a table by program and one line of JSON; exit code 1 if anything left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a smaller recipe")
    asked = parser.parse_args()
    if reason := socket_calls.reason_not_here():
        sys.exit(f"no strace here: {reason}")
    with tempfile.TemporaryDirectory(prefix="strace-") as work:
        found, left = measure(Path(work), asked.small)
    print_table(found)
    for call in left[:SHOWN]:
        print(f"leaves: {call.program}: {call.line}")
    (ROOT / "benchmarks/results/strace_run.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    sys.exit(1 if left else 0)


def measure(work: Path, is_small: bool) -> tuple[dict[str, Any], list[Call]]:
    """The facts of one traced run, and the calls that would have left."""
    folder, file = work / "run", work / "trace"
    models = ["--models", str(packaged("models.toml")), "--plain"]
    run = pipeline.run_all(folder) if is_small else [*pipeline.command(folder, "run-all"), *models]
    started = time.monotonic()
    subprocess.run(socket_calls.traced(run, file), check=True)
    seconds = time.monotonic() - started
    status = subprocess.run(
        [*pipeline.command(folder, "status"), "--json"], check=True, capture_output=True, text=True
    )
    size = file.stat().st_size
    seen = socket_calls.read(file)
    left = [call for call in seen.calls if call.leaves]
    facts = json.loads(status.stdout)
    return {
        "benchmark": "strace_run",
        "command": "python benchmarks/strace_run.py" + " --small" * is_small,
        "date": date.today().isoformat(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "seconds": round(seconds),
        "trace_bytes": size,
        "stages_done": sum(stage["state"] == "done" for stage in facts["stages"]),
        "refused_by_the_guard": facts["refused_connections"],
        "processes": sum(seen.processes.values()),
        "threads": seen.threads,
        "calls": len(seen.calls),
        "left": len(left),
        "by_program": by_program(seen),
        "services": services(seen),
    }, left


def by_program(seen: Seen) -> dict[str, dict[str, int]]:
    """Processes and calls of each kind for every program, also for those without a call."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for call in seen.calls:
        counts[call.program][kind(call)] += 1
    names = sorted(seen.processes.keys() | counts.keys())
    return {
        name: {"processes": seen.processes.get(name, 0), **dict(sorted(counts[name].items()))}
        for name in names
    }


def kind(call: Call) -> str:
    """In words for the table."""
    if call.leaves:
        return "leaves"
    known = {"": "connected before", "AF_UNIX": "unix", "AF_NETLINK": "netlink"}
    return known.get(call.family, "dissolved" if call.family == "AF_UNSPEC" else "loopback")


def services(seen: Seen) -> dict[str, str]:
    """Sockets of services of this machine: what stands behind one could go out for its caller."""
    found: dict[str, str] = {}
    for call in seen.calls:
        if call.family == "AF_UNIX" and call.address.startswith(
            ("/run/", "/var/", "/dev/", "/etc/")
        ):
            is_there = call.line.endswith("= 0") or found.get(call.address) == "answered"
            found[call.address] = "answered" if is_there else "not there"
    return dict(sorted(found.items()))


def print_table(found: dict[str, Any]) -> None:
    """A row a program."""
    print(f"{'program':<44}{'processes':>10}" + "".join(f"{name:>18}" for name in KINDS))
    for name, row in found["by_program"].items():
        counts = "".join(f"{row.get(one, 0):>18,}" for one in KINDS)
        print(f"{name[:43]:<44}{row['processes']:>10,}{counts}")


if __name__ == "__main__":
    main()
