"""How many watts this machine draws: its GPUs by nvidia-smi, else its CPU packages by RAPL."""

import asyncio
import math
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

POWERCAP = Path("/sys/class/powercap")
SAMPLE_SECONDS = 2.0
NVIDIA_SMI = ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]


class Power(NamedTuple):
    """Mean power over a stretch of time."""

    watts: float | None
    """None: unknown."""
    source: str
    """What was measured, or why nothing was."""


class Sample(NamedTuple):
    """One reading."""

    at: float
    """Moment of time.monotonic()."""
    gpu_watts: float | None
    """Sum over the GPUs; None where there is none."""
    packages: dict[str, tuple[int, int]]
    """RAPL's counter and its range by package, in microjoules; empty where it can't be read."""


class Meter:
    """Reads the power every few seconds while run() is awaited as a task."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._powercap = powercap
        self._samples: list[Sample] = []

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._samples.append(await asyncio.to_thread(self.read))
            await asyncio.sleep(SAMPLE_SECONDS)

    def read(self) -> Sample:
        """One reading."""
        watts = gpu_watts()
        packages = {} if watts is not None else package_energy(self._powercap)
        return Sample(time.monotonic(), watts, packages)

    def between(self, began: float, ended: float) -> Power:
        """Mean power between two moments of time.monotonic(), as far as it was read."""
        inside = [sample for sample in self._samples if began <= sample.at <= ended]
        watts = [sample.gpu_watts for sample in inside if sample.gpu_watts is not None]
        if watts:
            return Power(sum(watts) / len(watts), "all GPUs of this machine, by nvidia-smi")
        used = package_watts(inside)
        if used is not None:
            return Power(used, "CPU packages of this machine, by RAPL")
        return Power(None, "no GPU answers nvidia-smi, and RAPL's counters cannot be read")


def gpu_watts() -> float | None:
    """Sum over the GPUs that nvidia-smi lists; None when there is none, or one does not say."""
    try:
        listed = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if listed.returncode or not listed.stdout.strip():
        return None
    try:
        watts = [float(line) for line in listed.stdout.split("\n") if line.strip()]
    except ValueError:  # [N/A]
        return None
    return sum(watts) if all(map(math.isfinite, watts)) else None


def package_energy(powercap: Path) -> dict[str, tuple[int, int]]:
    """Energy counter and its range of each CPU package; mostly root's alone to read."""
    found = {}
    for zone in sorted(powercap.glob("*")):
        try:
            if (zone / "name").read_text().startswith("package"):
                counter = int((zone / "energy_uj").read_text())
                found[zone.name] = (counter, int((zone / "max_energy_range_uj").read_text()))
        except (OSError, ValueError):
            continue
    return found


def package_watts(samples: list[Sample]) -> float | None:
    """Mean power by the counters of successive samples, which start again at their range."""
    microjoules, seconds = 0, 0.0
    for before, after in zip(samples, samples[1:], strict=False):
        if not before.packages or before.packages.keys() != after.packages.keys():
            continue
        seconds += after.at - before.at
        for name, (counter, size) in after.packages.items():
            microjoules += (counter - before.packages[name][0]) % size
    return microjoules / 1e6 / seconds if seconds else None
