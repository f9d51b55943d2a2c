"""One whole run for all end-to-end tests, in a network namespace with loopback alone."""

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import netns
import pytest
from pipeline import LIMIT_SECONDS, Finished, run_all


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """run-all from nothing to report, inside the namespace where one is permitted.

    Workers of one session share it: the first that wants it makes it, others wait.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    note = shared / "e2e" / "finished.json"
    note.parent.mkdir(exist_ok=True)
    with _alone(note.parent):
        if not note.exists():
            made = asdict(_run(note.parent / "runs" / "small"))
            note.write_text(json.dumps({**made, "folder": str(made["folder"])}))
    told = json.loads(note.read_text())
    return Finished(**{**told, "folder": Path(told["folder"])})


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(folder: Path) -> Finished:
    wrapped = run_all(folder)
    if netns.reason_not_permitted() is None:
        wrapped = netns.isolated(wrapped)
    started = time.monotonic()
    done = subprocess.run(wrapped, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return Finished(folder, done.stdout + done.stderr, time.monotonic() - started)
