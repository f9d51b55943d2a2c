"""Runs programs that a model wrote, where they can do no harm; HumanEval needs it.

Each program is a process of its own in new namespaces (user, network, mounts, processes), shut in
by jail.py: no network, no socket, no process, nothing to write but an empty folder in memory, no
environment, bounds on memory and time. It protects the machine; a program that sets out to fake
its own verdict is not its concern.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

from localism.errors import MachineError

JAIL = Path(__file__).parent / "jail.py"
SECONDS = 3.0
"""For a program, as in the benchmark's own code."""
START_SECONDS = 20.0
"""For an interpreter on a busy machine, before the program begins."""
GRACE_SECONDS = 1.0
"""For a program that is told that its time is up, before it is ended."""
POLL_SECONDS = 0.2
REFUSED = "refused "
UNSHARE = ("-n", "-m", "-p", "-i", "-f", "--kill-child")
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    # NumPy would reserve memory for a thread on each core.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# Each of these would succeed outside.
PROBE = """
import os, socket, threading
def refused(attempt, *arguments):
    try:
        attempt(*arguments)
    except OSError:
        return
    raise AssertionError(f"{attempt.__name__}{arguments} was let through")
refused(os.fork)
refused(socket.socket)
refused(open, os.path.join(os.path.dirname(os.getcwd()), "probe"), "w")
refused(os.listdir, "/proc/1")
assert os.getpid() < 10, "other processes are in sight"
with open("here", "w") as file:
    file.write("a folder to work in")
thread = threading.Thread(target=len, args=("threads are allowed",))
thread.start()
thread.join()
"""

Kind = Literal["passed", "failed", "timed out", "killed"]


@dataclass(frozen=True)
class Outcome:
    """How a program ended."""

    kind: Kind
    """killed: by a bound of the sandbox, or by itself."""
    said: str
    """What it raised, or the signal."""
    refused: tuple[dict[str, Any], ...] = ()
    """Attempts to reach a network, the first ones: event, target and stack of each."""


class SandboxBroken(MachineError):
    """No sandbox could be set up, so that the program did not run."""


@dataclass(frozen=True)
class Sandbox:
    """A way to run programs."""

    entrance: tuple[str, ...] | None
    """Command in front of the interpreter; None runs programs without namespaces."""

    @property
    def is_shut(self) -> bool:
        """Whether it keeps programs from doing harm."""
        return self.entrance is not None

    def run(self, program: str, seconds: float = SECONDS) -> Outcome:
        """Run one program to its end, at most `seconds`. SandboxBroken where it can't begin."""
        with (
            tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder,
            tempfile.TemporaryFile() as request,
            tempfile.TemporaryFile() as verdicts,
            tempfile.TemporaryFile() as complaints,
        ):
            token = secrets.token_hex(16)
            asked = {"program": program, "token": token, "seconds": seconds, "shut": self.is_shut}
            request.write(json.dumps(asked).encode())
            request.seek(0)
            code = self._run(folder, (request, verdicts, complaints), seconds)
            return _outcome(token, code, _text(verdicts), _text(complaints))

    def _run(self, folder: str, files: tuple[IO[bytes], ...], seconds: float) -> int | None:
        """Exit code; None when it had to be ended."""
        process = subprocess.Popen(
            [*(self.entrance or ()), sys.executable, "-I", str(JAIL)],
            stdin=files[0],
            stdout=files[1],
            stderr=files[2],
            cwd=folder,
            env={**ENVIRONMENT, "HOME": folder, "TMPDIR": folder},
            # A group to end by, in the caller's session: who ends that ends the program, too.
            process_group=0,
        )
        try:
            return _wait(process, files[1], seconds)
        finally:
            # Whatever it left behind. In namespaces all end with their first process anyway.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def _wait(process: subprocess.Popen[bytes], verdicts: IO[bytes], seconds: float) -> int | None:
    """Until it ends, or should have: its time counts from its first line."""
    has_begun, deadline = False, time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            return process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if not has_begun and os.fstat(verdicts.fileno()).st_size:
                has_begun, deadline = True, time.monotonic() + seconds + GRACE_SECONDS
    return None


def _outcome(token: str, code: int | None, verdicts: str, complaints: str) -> Outcome:
    lines = [line.removeprefix(token).strip() for line in verdicts.splitlines() if token in line]
    refused = tuple(_attempts(line[len(REFUSED) :] for line in lines if line.startswith(REFUSED)))
    said = [line for line in lines if not line.startswith(REFUSED)]
    if not said:
        raise SandboxBroken(
            "the sandbox could not be set up",
            where=(complaints.strip().splitlines() or ["no word from it"])[-1],
            fix="see docs/lm-eval.md for what it needs of the kernel",
        )
    if len(said) > 1:
        kind, _, detail = said[1].partition(" ")
        detail = "" if kind == "timed" else detail
        return Outcome("timed out" if kind == "timed" else _kind(kind), detail, refused)
    if code is None:
        return Outcome("timed out", "and would not stop", refused)
    return Outcome("killed", f"exit code {code}", refused)


def _attempts(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What the jail wrote; a program that is out to disturb it can write there, too."""
    for line in lines:
        try:
            told = json.loads(line)
            target, stack = map(str, told["target"]), map(str, told["stack"])
            yield {"event": str(told["event"]), "target": [*target], "stack": [*stack]}
        except (ValueError, KeyError, TypeError):
            continue


def _kind(word: str) -> Kind:
    return "passed" if word == "passed" else "failed"


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(2**18).decode(errors="replace")


@cache
def find() -> Sandbox:
    """The sandbox of this machine, tried out. SandboxBroken says why there is none."""
    program = shutil.which("unshare")
    reasons = [] if program else ["the program unshare (util-linux) is not installed"]
    # Root needs no user namespace; everybody else, and root in many containers, needs one.
    for user in (("-r",), ()) if program else ():
        sandbox = Sandbox((str(program), *user, *UNSHARE))
        try:
            outcome = sandbox.run(PROBE, START_SECONDS)
        except SandboxBroken as broken:
            reasons.append(broken.where)
            continue
        if outcome.kind == "passed":
            return sandbox
        reasons.append(f"{outcome.kind}: {outcome.said}")
    raise SandboxBroken(
        "this machine offers no sandbox for code that a model wrote",
        where="; ".join(reasons),
        fix="allow user namespaces (docs/lm-eval.md says how), or run it all in a container or "
        "virtual machine of no worth and give --allow-unsandboxed-code",
    )


OPEN = Sandbox(None)
"""No sandbox: a program may write and delete what this user may. Bounds and filter still hold."""
