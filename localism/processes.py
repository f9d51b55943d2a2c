"""Processes of a session and of a run: which live, and how to end them now or at the next start."""

import json
import os
import pwd
import signal
import time
from pathlib import Path
from typing import NamedTuple

from localism.offline import run_of

KILL_SECONDS = 10.0
# Of a command line that is shown.
WORDS = 160
# What a process that uses a GPU has open; the second under Windows.
GPU_FILES = ("/dev/nvidia", "/dev/dxg")


class _Process(NamedTuple):
    """A line of /proc."""

    pid: int
    parent: int
    session: int
    started: int
    """Clock ticks since boot."""
    is_zombie: bool
    command: str


def _processes() -> list[_Process]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in brackets may hold spaces: the fields are counted behind it.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile, or is hidden from us
        found.append(
            _Process(
                int(entry.name),
                int(fields[1]),
                int(fields[3]),
                int(fields[19]),
                fields[0] == "Z",
                command.strip(),
            )
        )
    return found


def session_processes(session: int) -> list[int]:
    """Living processes of a session."""
    return [p.pid for p in _processes() if p.session == session and not p.is_zombie]


def kill_session(session: int) -> list[int]:
    """Kill every process of a session and wait until none is left; returns those that are."""
    deadline = time.monotonic() + KILL_SECONDS
    while (alive := session_processes(session)) and time.monotonic() < deadline:
        for pid in alive:
            kill(pid)
        time.sleep(0.02)
    return alive


def kill(pid: int) -> None:
    """With force; a process that is gone, or another user's, is no error."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


class Owner(NamedTuple):
    """A living process, for people."""

    pid: int
    """Its number."""
    user: str
    """Whose it is."""
    command: str
    """Its words."""
    run: Path | None
    """Folder of the run of localism that started it; None for another program's."""

    def said(self) -> str:
        """process 4711 of alice (run /runs/first): python -m vllm..."""
        run = f" (run {self.run})" if self.run else ""
        return f"process {self.pid} of {self.user}{run}: {self.command[:WORDS]}"


def owner_of(pid: int) -> Owner | None:
    """Who a process is; None when it is gone, or not to be seen from this container."""
    folder = Path(f"/proc/{pid}")
    try:
        uid = folder.stat().st_uid
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Owner(pid, user, command.strip(), _run(pid))


def _run(pid: int) -> Path | None:
    """Of which run a process is, by the environment that it was started with."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None  # it ended meanwhile, or is another user's
    words = content.decode(errors="replace").split("\0")
    return run_of(dict(word.partition("=")[::2] for word in words))


def uses_gpu(pid: int) -> bool | None:
    """Whether a process has a GPU open; None where that is not to be seen."""
    try:
        return any(_names_gpu(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return None


def _names_gpu(link: Path) -> bool:
    try:
        return os.readlink(link).startswith(GPU_FILES)
    except FileNotFoundError:
        return False  # closed meanwhile


def leftovers(folder: Path) -> list[Owner]:
    """Children of this run that have a GPU open, other than those of this process.

    An earlier call's that was killed: no other call works on the run, for it is locked.
    """
    every = {process.pid: process for process in _processes() if not process.is_zombie}
    folder = folder.resolve()
    return [
        owner
        for pid in every
        if _run(pid) == folder
        and uses_gpu(pid)
        and not _descends(every, pid)
        and (owner := owner_of(pid))
    ]


def _descends(every: dict[int, _Process], pid: int) -> bool:
    """Whether a process is this one, or one that it started, or that started it."""
    return os.getpid() in _line(every, pid) or pid in _line(every, os.getpid())


def _line(every: dict[int, _Process], pid: int) -> list[int]:
    """A process and its parents, to the first."""
    line = []
    while pid in every and pid not in line:
        line.append(pid)
        pid = every[pid].parent
    return line


def boot() -> str:
    """Of this kernel, since it was started: tells machines of one name apart."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


def write_record(record: Path, session: int) -> None:
    """Note which processes are ours, for the next start after a kill -9."""
    noted = {"session": session, "started": started(session), "boot": boot()}
    record.write_text(json.dumps(noted))


def end_leftover(record: Path) -> None:
    """Kill what an earlier run left behind, if it is really that.

    The number of a session can't be given anew while one of its processes lives; so processes of
    the recorded session that are no older than the record and speak of vLLM are ours.
    """
    try:
        noted = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return
    members = [
        p
        for p in _processes()
        if p.session == noted["session"] and p.started >= noted["started"] and not p.is_zombie
    ]
    if noted["boot"] == boot() and any("vllm" in p.command.lower() for p in members):
        kill_session(noted["session"])
    record.unlink(missing_ok=True)
