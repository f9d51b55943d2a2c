"""Signs of life: who is noticed to have fallen silent, and who is left in peace."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localism.training import beats

BEATING = """
import sys, time
from pathlib import Path
from localism.training import beats
beats.BEAT_SECONDS = 0.1
beats.begin(Path(sys.argv[1]), 1)
while True:  # as busy as a long step
    sum(range(100_000))
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    """A busy process that gives signs of life as machine 1."""
    monkeypatch.setattr(beats, "BEAT_SECONDS", 0.1)
    process = subprocess.Popen([sys.executable, "-c", BEATING, str(tmp_path)])
    deadline = time.monotonic() + 30
    while not (tmp_path / "machine-1.beat").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


def silence_within(watch: beats.Watch, seconds: float) -> beats.Silence | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := watch.silent():
            return found
        time.sleep(0.05)
    return None


def test_a_stopped_process_is_noticed_and_a_busy_one_is_not(tmp_path: Path, machine):
    watch = beats.Watch(tmp_path, [0, 1], limit=3)
    assert silence_within(watch, 4) is None
    machine.send_signal(signal.SIGSTOP)
    found = silence_within(watch, 60)
    assert found and (found.machine, found.file) == (1, tmp_path / "machine-1.beat")
    assert found.host == os.uname().nodename and found.seconds > 3


def test_who_has_not_begun_is_waited_for_and_old_signs_are_forgotten(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(beats, "BEAT_SECONDS", 0.0)
    (tmp_path / "machine-0.beat").write_text("7 1 node1\n")
    watch = beats.Watch(tmp_path, [0], limit=0.2)
    assert watch.silent() is None
    beats.clear(tmp_path)
    assert silence_within(watch, 0.5) is None, "its file is gone: a new training begins"


def test_after_a_rest_of_ones_own_the_others_get_as_long_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(beats, "BEAT_SECONDS", 0.0)
    (tmp_path / "machine-0.beat").write_text("7 1 node1\n")
    watch = beats.Watch(tmp_path, [0], limit=1.0)
    assert watch.silent() is None
    time.sleep(1.5)  # as after Ctrl-Z and fg
    assert watch.silent() is None
