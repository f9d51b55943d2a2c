"""Who holds a run, and what is said of a holder that is dead, silent, or on another machine.

Another machine is a lock file with another boot id; its process is a thread here that touches it.
"""

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import duckdb
import pytest

from localism import lock
from localism.errors import UsageError
from localism.processes import boot
from localism.store import Store

# Takes the lock, says so, and keeps it until stdin ends or it is killed.
HOLD = (
    "import sys; from pathlib import Path; from localism import lock\n"
    "with lock.held(Path(sys.argv[1]), print):\n print('in', flush=True); sys.stdin.read()"
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def said():
    return []


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The same rules in seconds."""
    monkeypatch.setattr(lock, "ALIVE_SECONDS", 1.5)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.1)


def holding(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLD, str(folder)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "in\n"
    return child


def elsewhere(folder: Path, **changes) -> lock.Holder:
    """A lock file as a process of another machine writes it."""
    there = lock.Holder("node7", "another boot", 4711, 99, "ada", "localism run-all --run first")
    there = replace(there, **changes)
    (folder / lock.LOCK).write_text(json.dumps(asdict(there)))
    return there


def old(folder: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(folder / lock.LOCK, (moment, moment))


def test_a_holder_is_named_with_its_command_and_its_last_sign_of_life(folder, said):
    child = holding(folder)
    try:
        assert lock.is_held(folder)
        with pytest.raises(UsageError, match=f"already being worked on, by process {child.pid} of"):
            with lock.held(folder, said.append):
                pass
        named = lock.holder(folder)
        assert named.pid == child.pid and named.boot == boot() and not named.is_gone
        assert named.host == os.uname().nodename and named.command.startswith("localism ")
    finally:
        child.communicate("")
    assert lock.holder(folder) is None and not lock.is_held(folder)


def test_a_killed_holder_leaves_no_lock(folder, said):
    child = holding(folder)
    child.kill()
    child.wait()
    assert lock.holder(folder).is_gone and not lock.is_held(folder)
    with lock.held(folder, said.append):
        assert lock.holder(folder).pid == os.getpid()
    assert said == []


def test_a_lock_that_outlives_its_process_says_what_holds_it(folder, said):
    """As a child that inherited the file."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True)  # fmt: skip
    elsewhere(folder, boot=boot(), pid=int(dead.stdout), started=7)
    with (folder / lock.LOCK).open() as inherited:
        fcntl.flock(inherited, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="which has ended") as refused:
            with lock.held(folder, said.append):
                pass
    assert "lsof" in refused.value.fix


def test_a_lock_kept_for_a_dead_machine_is_told_with_what_frees_the_run(folder, said):
    """What a file server does with the locks of a machine that died."""
    Store(folder / "corpus.duckdb").close()
    elsewhere(folder)
    old(folder, 600)
    script = "import sys, duckdb; duckdb.connect(sys.argv[1]); print('in', flush=True); input()"
    held_too = subprocess.Popen(
        [sys.executable, "-c", script, str(folder / "corpus.duckdb")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert held_too.stdout.readline() == "in\n"
    with (folder / lock.LOCK).open() as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="4711 of ada on node7, silent for 10m") as refused:
            with lock.held(folder, said.append):
                pass
        assert "make sure that node7" in refused.value.fix
        line = refused.value.fix[refused.value.fix.index("(cd ") :]
        subprocess.run(line, shell=True, check=True)
        with lock.held(folder, said.append), Store(folder / "corpus.duckdb") as store:
            assert store.value("SELECT 1") == 1
    held_too.communicate("\n")


def test_signs_of_life_of_another_machine_are_a_lock_where_locks_do_not_reach_it(folder, said):
    elsewhere(folder)
    ended = threading.Event()

    def beat():
        while not ended.wait(0.4):
            os.utime(folder / lock.LOCK)

    other = threading.Thread(target=beat)
    other.start()
    try:
        assert lock.is_held(folder)
        with pytest.raises(UsageError, match="4711 of ada on node7") as refused:
            with lock.held(folder, said.append):
                pass
    finally:
        ended.set()
        other.join()
    assert "localism run-all --run first" in refused.value.where
    assert len(said) == 1 and "signs of life" in said[0]
    assert lock.holder(folder).host == "node7"  # its file is as it was


def test_another_machine_that_falls_silent_is_waited_for_and_then_followed(folder, said):
    elsewhere(folder)
    began = time.monotonic()
    with lock.held(folder, said.append):
        assert lock.holder(folder).pid == os.getpid()
    assert time.monotonic() - began >= 1.0 and len(said) == 1


def test_one_that_was_silent_for_long_is_followed_at_once(folder, said):
    elsewhere(folder)
    old(folder, 600)
    assert not lock.is_held(folder)
    with lock.held(folder, said.append):
        pass
    assert said == []


def test_the_holder_gives_signs_of_life(folder, said, monkeypatch):
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    with lock.held(folder, said.append):
        old(folder, 600)
        deadline = time.monotonic() + 10
        while lock.silence(folder) > 60 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert lock.silence(folder) < 60


def test_a_look_at_the_lock_keeps_nobody_from_starting(folder, said):
    with (folder / lock.LOCK).open("a+") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.3, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with lock.held(folder, said.append):
            pass


@pytest.mark.parametrize("content", ["4711", "{}", "[1]", '{"pid": ', "nonsense"])
def test_a_file_of_another_version_is_no_obstacle(folder, said, content):
    (folder / lock.LOCK).write_text(content)
    with lock.held(folder, said.append):
        pass


def test_a_file_system_without_locks_is_left_to_signs_of_life(folder, said, monkeypatch):
    child = holding(folder)

    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    try:
        with pytest.raises(UsageError, match=f"by process {child.pid}"):
            with lock.held(folder, said.append):
                pass
    finally:
        child.communicate("")
    with lock.held(folder, said.append):
        pass


def test_the_corpus_itself_names_the_process_that_has_it_open(folder):
    with Store(folder / "corpus.duckdb"):
        script = "import sys, duckdb; duckdb.connect(sys.argv[1])"
        command = [sys.executable, "-c", script, str(folder / "corpus.duckdb")]
        done = subprocess.run(command, capture_output=True, text=True)
    assert f"PID {os.getpid()}" in done.stderr
    assert duckdb.IOException.__name__ in done.stderr
