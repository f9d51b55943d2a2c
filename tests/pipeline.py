"""Commands and results of whole runs, for the end-to-end tests and benchmarks/kills.py."""

import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from localism.prompting.packs import packaged

# The embedded default made smaller: every stage on real parts, in a few minutes on two cores.
SMALL = (
    "extract.topics=6",
    "extract.skills_per_topic=6",
    "extract.seed_examples=8",
    "extract.max_rounds=3",
    "mix.train=24",
    "mix.dev=6",
    "mix.test=8",
    "train.epochs=2",
    "train.batch=8",
    "train.micro_batch=8",
    "pick.bootstrap=200",
)
LIMIT_SECONDS = 900


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "localism", *arguments, "--run", str(folder)]


def run_all(folder: Path, *more: str) -> list[str]:
    overrides = [part for value in SMALL for part in ("--set", value)]
    return [
        *command(folder, "run-all", "--plain", "--models", str(packaged("models.toml"))),
        *overrides,
        *more,
    ]


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    folder: Path
    output: str
    seconds: float


def kill_repeatedly(folder: Path, kills: int, span: float, rng: random.Random) -> list[float]:
    """Start the run again and again, each time ended by kill -9 within about `span` seconds.

    Returns the seconds that each start lived; fewer than `kills` when the run finished before.
    """
    lived: list[float] = []
    while len(lived) < kills:
        started = time.monotonic()
        child = subprocess.Popen(
            run_all(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            child.wait(timeout=rng.uniform(0.2, 1.2) * span)
            break
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
        lived.append(round(time.monotonic() - started, 1))
    return lived
