"""A machine's part in a training of a run that works on another (localism.worker).

It answers the call, and runs torch's launcher as the machine that it is told to be; what is
trained, and all that is recorded, is the business of the run's own process. It ends its part when
that one has ended its own.
"""

import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from localism import egress, machines
from localism.errors import MachineError
from localism.gpus import find_gpus
from localism.machines import LEAVE_SECONDS, POLL_SECONDS, SAME, SignIn
from localism.offline import child_environment
from localism.tables import number_of
from localism.training import beats, launch
from localism.training import call as calls
from localism.training.call import Call, Place
from localism.training.job import Job

Say = Callable[[str], None]


def take_part(run_folder: Path, call: Call, say: Say) -> int:
    """Answer a call, and train if this machine is given a place; the exit code of its share.

    Raises MachineError when it can't take part.
    """
    folder = run_folder / machines.MACHINES
    name = f"{socket.gethostname()}-{os.getpid()}"
    problem = stands_against(call)
    machines.sign_in(folder, SignIn(call.nonce, name, problem))
    if problem:
        raise MachineError(
            f"this machine can't take part: {problem}",
            where=f"{name}, for {call.job}",
            fix=SAME,
        )
    try:
        number = _wait_for_place(folder, call, name)
        if number:
            say(f"takes part as machine {number}: {call.job}")
            return _train(run_folder, call, Place(number, call.address), say)
        if number == 0:
            say("others were enough this time")
            _wait_until_over(folder, call)
        return 0
    finally:
        machines.sign_out(folder, name)


def stands_against(call: Call) -> str:
    """Why this machine can't take part in a training; empty when it can."""
    if not Path(call.job).exists():
        return f"there is no {call.job} here"
    compared = (call.versions, call.model, call.fingerprint, "student")
    if problem := machines.stands_against(*compared):
        return problem
    gpus = find_gpus(os.environ).number
    if call.device == "cuda" and gpus < call.processes:
        return f"it has {number_of(gpus, 'GPU')} and the run's machine {call.processes}"
    return ""


def _wait_for_place(folder: Path, call: Call, name: str) -> int | None:
    """Which machine to be; 0 when not needed, None when the call is over before that is known."""
    while (number := calls.place_of(folder, call.nonce, name)) is None:
        if not _stands(folder, call):
            return None
        time.sleep(POLL_SECONDS)
    return number


def _wait_until_over(folder: Path, call: Call) -> None:
    while _stands(folder, call):
        time.sleep(POLL_SECONDS)


def _stands(folder: Path, call: Call) -> bool:
    now = calls.posted(folder)
    return now is not None and now.nonce == call.nonce


def _train(run_folder: Path, call: Call, place: Place, say: Say) -> int:
    """This machine's share; ended when the call is, if it does not end by itself soon after."""
    file, folder = Path(call.job), run_folder / machines.MACHINES
    job = Job.read(file)
    log = run_folder / "logs" / calls.log_name(socket.gethostname())
    environment = child_environment(run_folder, "worker: trainer")
    environment["OMP_NUM_THREADS"] = str(job.threads)
    # The run's machine, by the name or address that its [train].rendezvous gives it.
    environment[egress.ALLOWED_VARIABLE] = place.address.rpartition(":")[0]
    child = launch.start(file, log, environment, place)
    leave_at = math.inf
    # The call still stands when the run's machine is gone.
    watch = beats.Watch(file.parent, [0], job.silence_seconds)
    try:
        while child.poll() is None and time.monotonic() < leave_at:
            if leave_at == math.inf and not _stands(folder, call):
                leave_at = time.monotonic() + LEAVE_SECONDS
            if silence := watch.silent():
                say(f"the run's machine {silence.host} fell silent for {silence.seconds:.0f} s")
                break
            time.sleep(POLL_SECONDS)
    finally:
        launch.stop(child)
    say("this training is over" if child.returncode == 0 else f"its share failed: see {log}")
    return child.returncode
