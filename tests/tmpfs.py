"""Small disks: a tmpfs that is mounted while a test needs it; where that may not be, a skip."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def refusal(folder: Path, size: str) -> str:
    """Mount a tmpfs; why that is not allowed here, or nothing."""
    done = _run("mount", "-t", "tmpfs", "-o", f"size={size}", "localism-test", str(folder))
    return done.stderr.strip() if done.returncode else ""


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A disk of so many bytes ("6m") while this is open."""
    if why := refusal(folder, size):
        pytest.skip(f"no small disk can be mounted: {why}")
    try:
        yield
    finally:
        _run("umount", "-l", str(folder))


def resize(folder: Path, size: str) -> None:
    """Room again, or none any more."""
    remount(folder, f"size={size}")


def remount(folder: Path, option: str) -> None:
    """With another option: ro, rw."""
    done = _run("mount", "-o", f"remount,{option}", str(folder))
    assert done.returncode == 0, done.stderr


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True)
