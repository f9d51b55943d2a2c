"""One process works on a run: its lock, who holds it, and whether that one is alive.

The kernel's lock (flock) ends with its process, however that ends, and is enough on one machine. On
a shared disk two things go wrong. Some file systems keep such locks to each machine (Lustre with
localflock); so the holder writes who it is into the file and touches it every BEAT_SECONDS, and a
file that another machine touches is a lock. And a file server may keep the lock of a machine that
died; it cannot be taken away safely, but what is known of the holder says what to do.
Times are the file system's own, since the clocks of two machines may differ.
"""

import errno
import fcntl
import getpass
import json
import os
import shlex
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from localism.errors import UsageError
from localism.processes import boot, started
from localism.progress import duration
from localism.records import LOCK

BEAT_SECONDS = 30.0
# Three beats, and what a network file system may remember of a file's time.
ALIVE_SECONDS = 150.0
LOOK_SECONDS = 5.0
# `localism status` holds the lock for a moment, to see whether it is free.
PATIENCE_SECONDS = 1.0
# File systems that know no flock at all.
UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
SHOWN_CHARACTERS = 120


@dataclass(frozen=True)
class Holder:
    """Who works on a run, as its lock file says."""

    host: str = "an unknown machine"
    """Name of the machine."""
    boot: str = ""
    """Of its kernel, since it was started: tells machines of one name apart."""
    pid: int = 0
    """Process there."""
    started: int = 0
    """When that process began, in clock ticks since boot: tells it from a later one of its id."""
    user: str = "?"
    """Whose it is."""
    command: str = ""
    """What was typed."""

    def __str__(self) -> str:
        known = f"process {self.pid} of {self.user} on {self.host}"
        return known if self.pid else "another process"

    @property
    def is_elsewhere(self) -> bool:
        """Whether it ran on another machine, or on this one before it was started anew."""
        return bool(self.boot) and self.boot != boot()

    @property
    def is_gone(self) -> bool:
        """Whether this machine, where it ran, has no such process any more."""
        return bool(self.boot) and not self.is_elsewhere and started(self.pid) != self.started


@contextmanager
def held(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the run's lock. UsageError when another process does, or seems to; it says who.

    say: told why it takes long, where another machine's last sign of life is recent.
    """
    with (folder / LOCK).open("a+") as lock:
        _take(lock, folder)
        earlier = holder(folder)
        if earlier and earlier.is_elsewhere:
            _wait_until_silent(folder, earlier, say)
        lock.truncate(0)
        lock.write(json.dumps(asdict(_ourselves())) + "\n")
        lock.flush()
        is_over = threading.Event()
        beating = threading.Thread(target=_beat, args=(lock.fileno(), is_over), daemon=True)
        beating.start()
        try:
            yield
        finally:
            is_over.set()
            beating.join()
            lock.truncate(0)


def is_held(folder: Path) -> bool:
    """Whether a process works on a run."""
    if not (folder / LOCK).exists():
        return False
    with (folder / LOCK).open() as lock:
        if not _flock(lock, fcntl.LOCK_SH):
            return True
    last = holder(folder)
    return bool(last and last.is_elsewhere and silence(folder) < ALIVE_SECONDS)


def holder(folder: Path) -> Holder | None:
    """Who works on a run, or was killed while it did; None after an orderly end."""
    text = (folder / LOCK).read_text()
    try:
        noted = json.loads(text)
        return Holder(**noted) if isinstance(noted, dict) else Holder(pid=int(noted))
    except (ValueError, TypeError):
        return Holder() if text.strip() else None


def _take(lock: IO[str], folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _flock(lock, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            raise _refusal(folder, holder(folder) or Holder())
        time.sleep(0.05)


def _flock(lock: IO[str], kind: int) -> bool:
    """Try to lock; True also where the file system knows no locks, and signs of life decide."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as refused:
        if refused.errno not in UNSUPPORTED:
            raise
        last = holder(Path(lock.name).parent)
        return last is None or not last.boot or last.is_elsewhere or last.is_gone
    return True


def _refusal(folder: Path, by: Holder) -> UsageError:
    """The error for a lock that cannot be had, by what is known of its holder."""
    silent = silence(folder)
    copy = f"give the run new files, for a lock stays with its file: {_new_files(folder)}"
    if by.is_gone:
        problem = f"this run is locked by {by}, which has ended"
        fix = f"end what it started and left behind (`lsof {folder / LOCK}` names it), unless it "
        fix += f"lives in another container; then, if it is still locked, {copy}"
    elif by.is_elsewhere and silent > ALIVE_SECONDS:
        problem = f"this run is locked by {by}, silent for {duration(silent)}"
        fix = f"make sure that {by.host} does not work on it any more, or is off; then {copy}"
    else:
        problem = f"this run is already being worked on, by {by}"
        fix = f"wait for it, or look: localism status --run {folder.name}"
    return UsageError(problem, where=_described(folder, by, silent), fix=fix)


def _new_files(folder: Path) -> str:
    """A line of shell; the corpus has a lock of DuckDB's own."""
    each = "cp -a $f $f.new && mv $f.new $f"
    return f"(cd {shlex.quote(str(folder))} && for f in {LOCK} corpus.duckdb*; do {each}; done)"


def _described(folder: Path, by: Holder, silent: float) -> str:
    return f"{folder / LOCK}: {by.command or 'no command'}, last alive {duration(silent)} ago"


def _wait_until_silent(folder: Path, earlier: Holder, say: Callable[[str], None]) -> None:
    """This machine's lock is free, which on some file systems says nothing of another machine's.

    UsageError when that one gives a sign of life; None when it has been silent for long enough.
    """
    silent = silence(folder)
    if silent < ALIVE_SECONDS:
        wait = duration(ALIVE_SECONDS - silent)
        say(f"{earlier} may still work on this run: looking for signs of life, for {wait}")
    while silent < ALIVE_SECONDS:
        time.sleep(LOOK_SECONDS)
        before, silent = silent, silence(folder)
        if silent < before:
            raise UsageError(
                f"this run is already being worked on, by {earlier}",
                where=_described(folder, earlier, silent),
                fix=f"wait for it, or end it there: kill {earlier.pid}",
            )


def silence(folder: Path) -> float:
    """Seconds since the run's process, on whichever machine, gave its last sign of life.

    By the clock of the lock file's file system.
    """
    # Opened first: a network file system then asks its server for the times.
    with (folder / LOCK).open() as lock:
        touched = os.fstat(lock.fileno()).st_mtime
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"x")
        probe.flush()
        return max(0.0, os.fstat(probe.fileno()).st_mtime - touched)


def _beat(lock: int, is_over: threading.Event) -> None:
    while not is_over.wait(BEAT_SECONDS):
        try:
            os.utime(lock)
        except OSError:
            pass  # a sign of life that is missed; the work itself will say what is wrong


def _ourselves() -> Holder:
    pid = os.getpid()
    command = shlex.join(["localism", *sys.argv[1:]])[:SHOWN_CHARACTERS]
    return Holder(socket.gethostname(), boot(), pid, started(pid), _user(), command)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in containers
        return str(os.getuid())
