"""A machine that helps with a run's trainings.  Started by Slurm, or: localism train-worker --run R

It opens no corpus. It waits for a call in the run's folder, answers it, and runs torch's launcher
as the machine that it is told to be; what is trained, and all that is recorded, is the business of
the run's own process. It ends its part when that one has ended its own.
"""

import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from localism import egress, weights
from localism.errors import LocalismError, MachineError, StageError
from localism.gpus import find_gpus
from localism.offline import child_environment
from localism.training import beats, launch, machines
from localism.training.job import Job
from localism.training.machines import POLL_SECONDS, Call, Place, SignIn

SEEN_SECONDS = 120.0  # network file systems remember for a minute that a file is not there
LEAVE_SECONDS = 30.0
SAME = "all machines need the same installation, and the same files at the same paths"
Say = Callable[[str], None]


def serve(run_folder: Path, say: Say) -> None:
    """Take part in every training of a run, until this process is ended."""
    folder = run_folder / machines.MACHINES
    served = ""
    while True:
        call = _next_call(folder, served, say)
        served = call.nonce
        take_part(run_folder, call, say)


def serve_once(run_folder: Path, nonce: str, say: Say) -> None:
    """Take part in one training. Raises MachineError when its call is not to be seen from here."""
    folder = run_folder / machines.MACHINES
    deadline = time.monotonic() + SEEN_SECONDS
    while (call := machines.posted(folder)) is None or call.nonce != nonce:
        if time.monotonic() > deadline:
            raise MachineError(
                f"machine {socket.gethostname()} does not see what the run's process writes",
                where=str(folder / machines.CALL),
                fix="put the run on a file system that all machines share: --run /shared/runs/NAME",
            )
        time.sleep(POLL_SECONDS)
    code = take_part(run_folder, call, say)
    if code:
        raise StageError(
            f"this machine's share of the training ended with exit code {code}",
            where=str(run_folder / "logs" / machines.log_name(socket.gethostname())),
            fix="the run's own process says how to go on",
        )


def _next_call(folder: Path, served: str, say: Say) -> Call:
    say(f"waiting for a training of {folder.parent}")
    while (call := machines.posted(folder)) is None or call.nonce == served:
        time.sleep(POLL_SECONDS)
    return call


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
    own = machines.versions()
    others = [
        f"{name} {version}" for name, version in call.versions.items() if own[name] != version
    ]
    if others:
        here = ", ".join(f"{text.split()[0]} {own[text.split()[0]]}" for text in others)
        return f"it has {here} and the run's machine {', '.join(others)}"
    try:
        if weights.fingerprint(Path(call.model)) != call.fingerprint:
            return f"another model, or none, lies in {call.model}"
    except (OSError, LocalismError) as error:
        return f"the student in {call.model} can't be read: {error}"
    gpus = find_gpus(os.environ).number
    if call.device == "cuda" and gpus < call.processes:
        return f"it has {gpus} GPUs and the run's machine {call.processes}"
    return ""


def _wait_for_place(folder: Path, call: Call, name: str) -> int | None:
    """Which machine to be; 0 when not needed, None when the call is over before that is known."""
    while (number := machines.place_of(folder, call.nonce, name)) is None:
        if not _stands(folder, call):
            return None
        time.sleep(POLL_SECONDS)
    return number


def _wait_until_over(folder: Path, call: Call) -> None:
    while _stands(folder, call):
        time.sleep(POLL_SECONDS)


def _stands(folder: Path, call: Call) -> bool:
    now = machines.posted(folder)
    return now is not None and now.nonce == call.nonce


def _train(run_folder: Path, call: Call, place: Place, say: Say) -> int:
    """This machine's share; ended when the call is, if it does not end by itself soon after."""
    file, folder = Path(call.job), run_folder / machines.MACHINES
    job = Job.read(file)
    log = run_folder / "logs" / machines.log_name(socket.gethostname())
    environment = child_environment(run_folder, "train-worker: trainer")
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
