"""Signs of life of the machines of a training: a file of each, beside the job, that others watch.

torch hears at once of a machine whose connections break, and only after half an hour of one that
falls silent: without power or network, or stopped. A shorter limit of torch's own would also end a
training whose first process takes long to write a checkpoint; so a thread of each machine's first
process says that it lives, whatever its step is doing.
"""

import os
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

BEAT_SECONDS = 3.0
PATTERN = "machine-*.beat"


class Silence(NamedTuple):
    """A machine that gives no sign of life."""

    machine: int
    """Its number in the training."""
    host: str
    """Its name."""
    seconds: float
    """Since its last sign of life."""
    file: Path
    """Where that should be."""


def clear(folder: Path) -> None:
    """Forget the signs of life of earlier trainings."""
    for path in folder.glob(PATTERN):
        path.unlink(missing_ok=True)


def begin(folder: Path, machine: int) -> None:
    """Give signs of life from now on, until this process ends."""
    threading.Thread(target=_beat, args=(_file(folder, machine),), daemon=True).start()


def _file(folder: Path, machine: int) -> Path:
    return folder / f"machine-{machine}.beat"


def _beat(file: Path) -> None:
    number, host = 0, socket.gethostname()
    temporary = file.with_suffix(".new")
    while True:
        number += 1
        try:
            temporary.write_text(f"{number} {os.getpid()} {host}\n")
            os.replace(temporary, file)
        except OSError:
            pass  # a full disk is no death; it ends the training elsewhere, with its own words
        time.sleep(BEAT_SECONDS)


class Watch:
    """Notices machines that fall silent. A machine counts from its first sign of life on.

    What counts is when this process saw a change, by its own clock: those of machines differ.
    """

    def __init__(self, folder: Path, machines: Iterable[int], limit: float) -> None:
        self._limit = limit
        self._files = {machine: _file(folder, machine) for machine in machines}
        self._seen: dict[int, tuple[str, float]] = {}
        self._look_at = 0.0

    def silent(self) -> Silence | None:
        """A machine that gave no sign for longer than the limit; looks every few seconds."""
        now = time.monotonic()
        if now < self._look_at:
            return None
        # When this process itself was stopped, the others get as long again.
        if self._look_at and now - self._look_at > self._limit / 2:
            self._seen = {machine: (text, now) for machine, (text, _) in self._seen.items()}
        self._look_at = now + BEAT_SECONDS
        for machine, file in self._files.items():
            text = _read(file)
            known, since = self._seen.get(machine, ("", now))
            if not text:  # not begun yet; what was seen was left by an earlier training
                self._seen.pop(machine, None)
            elif text != known:
                self._seen[machine] = text, now
            elif now - since > self._limit:
                return Silence(machine, text.split()[-1], now - since, file)
        return None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
