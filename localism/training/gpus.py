"""The GPUs that a training process will find, counted without importing torch."""

import importlib.metadata
import subprocess
from collections.abc import Mapping
from typing import NamedTuple


class Gpus(NamedTuple):
    """The GPUs that the training process can use."""

    number: int
    """0 where there is none, or torch is the CPU build."""
    memory: int | None
    """Bytes of the smallest; None where nvidia-smi doesn't say."""


def find_gpus(environment: Mapping[str, str]) -> Gpus:
    """GPUs that the child can use, without importing torch: none with the CPU build of torch."""
    if importlib.metadata.version("torch").endswith("+cpu"):
        return Gpus(0, None)
    listed = _gpu_lines()
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    number = len(listed)
    if visible is not None:
        number = sum(1 for device in visible.split(",") if device.strip() not in ("", "-1"))
    # Machines whose GPU shares the memory of the CPU say "[N/A]".
    known = [int(line) * 2**20 for line in listed if line.isdigit()]
    return Gpus(number, min(known, default=None) if number else None)


def _gpu_lines() -> list[str]:
    """A line for each GPU of this machine: its memory in MiB, where it has some of its own."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in listed.stdout.splitlines()] if not listed.returncode else []
