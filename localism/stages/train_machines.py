"""Several machines in one training, seen from the one that the run works on.

How many: [train].nodes, or all machines of a Slurm job. Slurm starts the others here; elsewhere
each of them runs `localism worker`, which this process waits for (training.call).
"""

import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from localism import machines, slurm, weights
from localism.config import Train
from localism.context import Context
from localism.errors import ConfigError, MachineError, StageError
from localism.machines import LEAVE_SECONDS, MACHINES, POLL_SECONDS, SAME
from localism.offline import child_environment
from localism.tables import number_of
from localism.training import call as calls
from localism.training import launch
from localism.training.call import Call, Place
from localism.training.job import Job

STEP_LOG = "train-slurm.log"


class Machines(NamedTuple):
    """The machines of a training."""

    number: int
    """With this one."""
    slurm: slurm.Allocation | None
    """Whose they are; None when a person starts the others."""


def find_machines(section: Train, environment: Mapping[str, str]) -> Machines:
    """How many machines train; ConfigError for more than Slurm gave."""
    allocation = slurm.allocation(environment)
    if allocation is None:
        return Machines(section.nodes or 1, None)
    given = len(allocation.machines)
    if section.nodes is not None and section.nodes > given:
        raise ConfigError(
            f"{section.nodes} machines are to train and Slurm gave {given}",
            where=f"[train].nodes = {section.nodes}, SLURM_JOB_NODELIST",
            fix=f"nodes = {given}, or sbatch --nodes={section.nodes}",
        )
    return Machines(section.nodes or given, allocation)


@contextmanager
def gathered(context: Context, job: Job, file: Path) -> Iterator[Place | None]:
    """Have the other machines of a job take part in it; yields this one's place among them.

    None for a job of one machine. Raises MachineError when a machine is missing at the deadline or
    can't take part, StageError when Slurm can't start the others.
    """
    if job.machines == 1:
        yield None
        return
    found = find_machines(context.config.train, child_environment(context.folder))
    folder = context.folder.resolve() / MACHINES
    call = _call(job, file, _address(context.config.train.rendezvous, found))
    calls.post(folder, call)
    step = _start_step(context, found, call) if found.slurm else None
    try:
        if not step:
            _ask_for_workers(context, job)
        names = _wait(context, job, folder, call, step)
        calls.give_places(folder, call.nonce, names)
        context.progress.say(f"trains with {', '.join(names)}")
        yield Place(0, call.address)
        calls.withdraw(folder)
        if step:
            _let_end(step)
    finally:
        calls.withdraw(folder)
        if step:
            launch.stop(step)


def _let_end(step: subprocess.Popen[bytes]) -> None:
    """Their launchers wait for each other and end, once the training has."""
    try:
        step.wait(LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        pass


def _call(job: Job, file: Path, address: str) -> Call:
    return Call(
        nonce=secrets.token_hex(8),
        job=str(file),
        address=address,
        processes=job.processes // job.machines,
        device=job.device,
        model=job.model,
        fingerprint=weights.fingerprint(Path(job.model)),
        versions=machines.versions(calls.LIBRARIES),
    )


def _address(rendezvous: str, found: Machines) -> str:
    """HOST:PORT of this machine as the others reach it."""
    host, _, port = rendezvous.partition(":")
    host = host or (found.slurm.here if found.slurm else socket.gethostname())
    return f"{host}:{port or _free_port()}"


def _free_port() -> int:
    """A port that nobody listens on, at any address of this machine."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


# ---- the others ----------------------------------------------------------------------------


def _start_step(context: Context, found: Machines, call: Call) -> subprocess.Popen[bytes]:
    """Slurm's step that runs a worker on each of the other machines."""
    assert found.slurm is not None
    run = str(context.folder.resolve())
    worker = [sys.executable, "-m", "localism", "worker", "--run", run, "--call", call.nonce]
    others = found.slurm.others(found.number - 1)
    _step_log(context).parent.mkdir(exist_ok=True)
    with _step_log(context).open("wb") as output:
        return subprocess.Popen(
            slurm.step(found.slurm, others, worker, "localism-train"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(context.folder, "train: srun"),
            start_new_session=True,
        )


def _step_log(context: Context) -> Path:
    return context.folder / "logs" / STEP_LOG


def _ask_for_workers(context: Context, job: Job) -> None:
    context.progress.say(
        f"training is for {job.machines} machines; on each of the others, unless it runs there: "
        f"{_worker_command(context)}"
    )


def _worker_command(context: Context) -> str:
    return f"localism worker --run {context.folder.resolve()}"


def _wait(
    context: Context,
    job: Job,
    folder: Path,
    call: Call,
    step: subprocess.Popen[bytes] | None,
) -> list[str]:
    """Names of as many machines as are wanted, once they have answered."""
    wanted, limit = job.machines - 1, context.config.train.join_timeout_seconds
    began = time.monotonic()
    while len(answers := machines.signed_in(folder, call.nonce)) < wanted:
        _check(answers)
        if step and step.poll() is not None:
            raise _step_ended(context, step.returncode)
        waited = time.monotonic() - began
        if waited > limit:
            raise _missing(context, wanted, [answer.name for answer in answers])
        detail = f"waits for {number_of(wanted - len(answers), 'other machine')}, {waited:.0f}s"
        context.progress.update(0, unit="steps", detail=detail)
        time.sleep(POLL_SECONDS)
    _check(answers)
    return [answer.name for answer in answers][:wanted]


def _check(answers: list[machines.SignIn]) -> None:
    for answer in answers:
        if answer.problem:
            raise MachineError(
                f"machine {answer.name} can't take part in the training: {answer.problem}",
                where="[train].nodes",
                fix=SAME,
            )


def _step_ended(context: Context, code: int) -> StageError:
    log = _step_log(context)
    last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-4:]
    return StageError(
        f"Slurm could not start the training on the other machines: srun ended with code {code}",
        where="\n       ".join([str(log), *last]),
        fix="mend it, or [train].nodes = 1 trains on this machine alone",
    )


def _missing(context: Context, wanted: int, here: list[str]) -> MachineError:
    came = f"only {', '.join(here)}" if here else "none"
    return MachineError(
        f"{number_of(wanted, 'other machine')} should take part, and after "
        f"{context.config.train.join_timeout_seconds} s {came} had come",
        where=f"[train].nodes, {context.folder.resolve() / MACHINES}",
        fix=f"on each: {_worker_command(context)}   (the folder must be on a file system that all "
        "machines share, at the same path)",
    )
