"""The training process of this machine: started and ended in the same way by whoever owns it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from localism.training.call import Place

STOP_SECONDS = 5.0


def start(
    file: Path, log: Path, environment: Mapping[str, str], place: Place | None = None
) -> subprocess.Popen[bytes]:
    """The child of a job file, which ends when this process does; its words go to the log.

    `place`: which of several machines this is.
    """
    words = [str(file)]
    if place:
        words += [str(place.machine), place.address, str(os.getpid())]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        # A session of its own: Ctrl-C reaches this process alone, which then ends the child.
        return subprocess.Popen(
            [sys.executable, "-m", "localism.training.sft", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def stop(child: subprocess.Popen[bytes]) -> None:
    """End the child and its workers, if it has not ended by itself."""
    if child.poll() is not None:
        return
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
