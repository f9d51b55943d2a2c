"""A machine that helps a run which works on another.  Started by Slurm, or: localism worker --run R

It opens no corpus. It waits for a call in the run's folder and takes part in what is called for: a
training, or an engine that spans machines. All that is recorded is the business of the run's own
process, and when that has ended its part, so does this one.
"""

import math
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from localism import lock, machines, status
from localism.errors import LocalismError, MachineError, StageError
from localism.machines import POLL_SECONDS, SEEN_SECONDS
from localism.records import STAGES
from localism.serving import ray_call, ray_worker
from localism.serving.ray_call import RayCall
from localism.training import call as training_call
from localism.training import worker as training_worker
from localism.training.call import Call

Say = Callable[[str], None]
# How often the run is looked at while nothing is called for.
LOOK_SECONDS = 30.0


def serve(run_folder: Path, say: Say) -> None:
    """Take part in whatever a run calls for, until this process is ended.

    Raises MachineError when this machine can't answer a call.
    """
    check_writable(run_folder)
    served: set[str] = set()
    while True:
        say(f"waiting for a call of {run_folder}")
        call = _next_call(run_folder, served, say)
        served.add(call.nonce)
        _take_part(run_folder, call, say)


def _next_call(run_folder: Path, served: set[str], say: Say) -> Call | RayCall:
    """Wait for a call; meanwhile it is told where none is to be expected."""
    looked, told = -math.inf, ""
    while (call := _posted(run_folder, served)) is None:
        if time.monotonic() - looked > LOOK_SECONDS:
            looked = time.monotonic()
            if (now := outlook(run_folder)) != told:
                say(now or f"run {run_folder.name} is being worked on again")
                told = now
        time.sleep(POLL_SECONDS)
    return call


def outlook(run_folder: Path) -> str:
    """Why no call is to be expected, and what would make one; empty while the run is worked on."""
    if lock.is_held(run_folder):
        return ""
    try:
        states = {row["state"] for row in status.facts(run_folder, STAGES)["stages"]}
    except LocalismError:
        return ""  # begins at this moment, or cannot be read from here
    name = run_folder.name
    if states == {"done"}:
        return (
            f"run {name} is finished and calls nobody; this goes on waiting, for instance for "
            f"`localism train --run {run_folder} --on SET`, and Ctrl-C ends it"
        )
    return (
        f"nobody works on run {name} at this moment; `localism run-all --run {run_folder}` on its "
        "own machine goes on with it"
    )


def check_writable(run_folder: Path) -> None:
    """MachineError where this machine can't write what it answers."""
    try:
        with tempfile.TemporaryFile(dir=run_folder):
            pass
    except OSError as refused:
        reason = (refused.strerror or str(refused)).lower()
        raise MachineError(
            f"this machine can't answer the run's calls: {reason}",
            where=str(run_folder),
            fix="answers are files in this folder: mount it writable here, and be the user whose "
            "run it is",
        ) from None


def serve_once(run_folder: Path, nonce: str, say: Say) -> None:
    """Take part in one thing. Raises MachineError when its call is not to be seen from here, or
    can't be answered."""
    check_writable(run_folder)
    deadline = time.monotonic() + SEEN_SECONDS
    while (call := _posted(run_folder, set())) is None or call.nonce != nonce:
        if time.monotonic() > deadline:
            raise MachineError(
                f"machine {socket.gethostname()} does not see what the run's process writes",
                where=str(run_folder / machines.MACHINES / training_call.CALL),
                fix="put the run on a file system that all machines share: --run /shared/runs/NAME",
            )
        time.sleep(POLL_SECONDS)
    code = _take_part(run_folder, call, say)
    if code:
        raise StageError(
            f"this machine's share ended with exit code {code}",
            where=str(_log(run_folder, call)),
            fix="the run's own process says how to go on",
        )


def _posted(run_folder: Path, served: set[str]) -> Call | RayCall | None:
    """A call that stands and was not served yet; the engine's may stand beside a training's."""
    standing = (
        training_call.posted(run_folder / machines.MACHINES),
        ray_call.posted(run_folder),
    )
    return next((call for call in standing if call and call.nonce not in served), None)


def _take_part(run_folder: Path, call: Call | RayCall, say: Say) -> int:
    if isinstance(call, RayCall):
        return ray_worker.take_part(run_folder, call, say)
    return training_worker.take_part(run_folder, call, say)


def _log(run_folder: Path, call: Call | RayCall) -> Path:
    name = ray_call if isinstance(call, RayCall) else training_call
    return run_folder / "logs" / name.log_name(socket.gethostname())
