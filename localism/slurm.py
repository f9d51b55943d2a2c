"""What Slurm says about this job, and the command that starts a program on its other machines.

Nothing is asked of Slurm: the variables that it sets for every job are enough.
"""

import itertools
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from localism.errors import MachineError


class Allocation(NamedTuple):
    """The machines that Slurm gave to this job."""

    machines: tuple[str, ...]
    """Names, in Slurm's order."""
    here: str
    """Which of them this one is."""
    cpus: str
    """CPUs of the job on this machine; empty where Slurm doesn't say."""

    def others(self, number: int) -> tuple[str, ...]:
        """So many of the machines beside this one."""
        return tuple(name for name in self.machines if name != self.here)[:number]


def allocation(environment: Mapping[str, str]) -> Allocation | None:
    """This job's machines; None outside a job, without srun, and on a machine beside the job's.

    The last is a login node on which salloc has opened a shell. Raises MachineError for a list of
    names that can't be read.
    """
    listed = environment.get("SLURM_JOB_NODELIST")
    if not listed or not shutil.which("srun", path=environment.get("PATH")):
        return None
    machines = tuple(expanded(listed))
    here = environment.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]
    if here not in machines:
        return None
    return Allocation(machines, here, environment.get("SLURM_CPUS_ON_NODE", ""))


def expanded(listed: str) -> Iterator[str]:
    """The names in a host list: gpu[01-03,07],login is gpu01, gpu02, gpu03, gpu07, login."""
    if not re.fullmatch(r"(?!,)(?:[^\[\],\s]|\[[0-9,-]+\]|,(?!,|$))+", listed):
        raise MachineError(
            "Slurm's list of machines can't be read",
            where=f"SLURM_JOB_NODELIST = {listed!r}",
            fix="[train].nodes = 1 trains on this machine alone",
        )
    # Commas outside brackets part the names.
    for name in re.findall(r"(?:\[[^\]]*\]|[^,\[])+", listed):
        parts = re.split(r"\[([^\]]*)\]", name)
        choices = [_numbers(part) if at % 2 else [part] for at, part in enumerate(parts)]
        yield from map("".join, itertools.product(*choices))


def _numbers(ranges: str) -> list[str]:
    """01-03,07 is 01, 02, 03, 07: the first number's width is that of all."""
    found: list[str] = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers = range(int(first), int(last or first) + 1)
        found += [f"{number:0{len(first)}}" for number in numbers]
    return found


def step(
    allocation: Allocation, others: Sequence[str], command: Sequence[str], name: str
) -> list[str]:
    """srun with a command that is to run once on each of the other machines.

    By default a step has one CPU a task, and waits for what the others of the job hold.
    """
    number = len(others)
    words = ["srun", f"--nodes={number}", f"--ntasks={number}", "--ntasks-per-node=1"]
    words += [f"--nodelist={','.join(others)}", "--overlap", "--cpu-bind=none"]
    words += ["--kill-on-bad-exit=1", f"--job-name={name}"]
    words += [f"--cpus-per-task={allocation.cpus}"] if allocation.cpus else []
    return [*words, *command]
