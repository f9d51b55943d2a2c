"""The processes of a session: which live, and how to end them all, now or at the next start."""

import json
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

KILL_SECONDS = 10.0


class _Process(NamedTuple):
    """A line of /proc."""

    pid: int
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
            _Process(int(entry.name), int(fields[3]), int(fields[19]), fields[0] == "Z", command)
        )
    return found


def session_processes(session: int) -> list[int]:
    """Living processes of a session."""
    return [p.pid for p in _processes() if p.session == session and not p.is_zombie]


def kill_session(session: int) -> None:
    """Kill every process of a session and wait until none is left."""
    deadline = time.monotonic() + KILL_SECONDS
    while (alive := session_processes(session)) and time.monotonic() < deadline:
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write_record(record: Path, session: int) -> None:
    """Note which processes are ours, for the next start after a kill -9."""
    started = next((p.started for p in _processes() if p.pid == session), 0)
    record.write_text(json.dumps({"session": session, "started": started, "boot": _boot()}))


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
    if noted["boot"] == _boot() and any("vllm" in p.command.lower() for p in members):
        kill_session(noted["session"])
    record.unlink(missing_ok=True)
