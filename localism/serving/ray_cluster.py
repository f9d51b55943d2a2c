"""Ray over the machines of one engine, for as long as the engine is needed.

The run's machine is its head. The others are Slurm's, where this is a job of several machines, or
those on which a person has started `localism worker`. It is this engine's alone, with a key of its
own, so that nothing of others can hold its GPUs, and the end of it leaves nothing on any machine.
"""

import asyncio
import json
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from localism import machines, offline, slurm, weights
from localism.context import Context
from localism.errors import ConfigError, LocalismError, MachineError, StageError
from localism.machines import LEAVE_SECONDS, POLL_SECONDS, SAME
from localism.serving import ray_call, ray_node
from localism.serving.placement import Placement
from localism.serving.ray_call import RayCall
from localism.tables import number_of

LOG = "ray.log"
STEP_LOG = "ray-slurm.log"
# A Unix socket's path holds 107 characters, of which Ray's own names take 65.
LONGEST_TEMPORARY = 40
LAST_LINES = 4
# A look gives up after five seconds or more of a head that is not up yet.
LOOKS = 20


class Cluster:
    """Ray on this machine and on others. Not for use after stop()."""

    def __init__(self, context: Context, table: str, gpus: int) -> None:
        """`gpus`: of each machine."""
        self._context, self._table, self._gpus = context, table, gpus
        self._section = getattr(context.config, table)
        self._folder = context.folder.resolve()
        self._call: RayCall | None = None
        self._head: subprocess.Popen[bytes] | None = None
        self._step: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """This machine's address."""
        assert self._call is not None, "not up yet"
        return self._call.address.rpartition(":")[0]

    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to use it."""
        assert self._call is not None, "not up yet"
        return ray_node.variables(self._call, self.host)

    def arguments(self, placement: Placement) -> list[object]:
        """What tells vLLM to use it."""
        words: list[object] = ["--distributed-executor-backend", "ray"]
        if placement.pipeline > 1:
            words += ["--pipeline-parallel-size", placement.pipeline]
        if placement.data > 1:
            words += ["--data-parallel-backend", "ray", "--data-parallel-address", self.host]
            words += ["--data-parallel-size-local", placement.data // placement.machines]
        return words

    async def ready(self, model: Path) -> None:
        """Have all machines in it; MachineError names what is missing when that takes too long.

        Machines that were lost since the last call are waited for.
        """
        if self._head is None or self._head.poll() is not None:
            self.stop()
            self._begin(model)
        began, limit = time.monotonic(), self._section.start_timeout_seconds
        look, tries = self._look(), 1
        try:
            while look.poll() != 0:
                self._check()
                if look.returncode:
                    if tries == LOOKS:
                        raise self._dead("Ray on this machine does not answer")
                    look, tries = self._look(), tries + 1
                waited = time.monotonic() - began
                if waited > limit:
                    raise self._missing(look, limit)
                self._context.progress.update(
                    0, detail=f"Ray waits for {self._section.nodes} machines, {waited:.0f}s"
                )
                await asyncio.sleep(POLL_SECONDS)
        finally:
            look.kill()
            look.wait()

    def _begin(self, model: Path) -> None:
        """Start the head here and, under Slurm, the others."""
        ray_node.check_installed(self._table, self._section.nodes)
        allocation = self._allocation()
        self._call = RayCall(
            nonce=secrets.token_hex(8),
            address=ray_node.head_address(self._section.rendezvous, self._table),
            key=secrets.token_hex(32),
            temporary=str(_temporary()),
            gpus=self._gpus,
            model=str(model),
            fingerprint=weights.fingerprint(model),
            versions=machines.versions(ray_call.LIBRARIES),
        )
        log = self._folder / "logs" / LOG
        self._head = ray_node.start(self._folder, log, self._call, self.host, is_head=True)
        ray_call.post(self._folder, self._call)
        if allocation:
            self._step = self._start_step(allocation)
        else:
            self._context.progress.say(
                f"the {self._table}'s engine is for {self._section.nodes} machines; on each of the "
                f"others, unless it runs there: {self._worker_command()}"
            )

    def _allocation(self) -> slurm.Allocation | None:
        allocation = slurm.allocation(offline.child_environment(self._folder))
        wanted = self._section.nodes
        if allocation and wanted > len(allocation.machines):
            given = len(allocation.machines)
            raise ConfigError(
                f"the engine is for {wanted} machines and Slurm gave {given}",
                where=f"models.toml [{self._table}].nodes = {wanted}, SLURM_JOB_NODELIST",
                fix=f"nodes = {given}, or sbatch --nodes={wanted}",
            )
        return allocation

    def _start_step(self, allocation: slurm.Allocation) -> "subprocess.Popen[bytes]":
        assert self._call is not None
        worker = [sys.executable, "-m", "localism", "worker", "--run", str(self._folder)]
        worker += ["--call", self._call.nonce]
        others = allocation.others(self._section.nodes - 1)
        with self._log(STEP_LOG).open("wb") as output:
            return subprocess.Popen(
                slurm.step(allocation, others, worker, "localism-ray"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=offline.child_environment(self._folder, "srun for Ray"),
                start_new_session=True,
            )

    def _look(self) -> "subprocess.Popen[bytes]":
        words = [str(self._section.nodes), str(self._gpus)]
        with self._log(LOG).open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "localism.serving.ray_look", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=offline.child_environment(self._folder, "Ray") | self.environment(),
            )

    # ---- what is missing -------------------------------------------------------------------

    def _check(self) -> None:
        """Raise what makes waiting pointless."""
        assert self._call is not None and self._head is not None
        for answer in machines.signed_in(ray_call.folder(self._folder), self._call.nonce):
            if answer.problem:
                raise MachineError(
                    f"machine {answer.name} can't take part in the engine: {answer.problem}",
                    where=f"models.toml [{self._table}].nodes",
                    fix=SAME,
                )
        if self._head.poll() is not None:
            raise self._dead(f"Ray did not start here (exit code {self._head.returncode})")
        if self._step and self._step.poll() is not None:
            raise self._dead(
                f"Slurm could not start Ray on the other machines: srun ended with code "
                f"{self._step.returncode}",
                STEP_LOG,
            )

    def _missing(self, look: "subprocess.Popen[bytes]", limit: float) -> LocalismError:
        assert self._call is not None and look.stdout is not None
        look.kill()
        nodes = _last(look.stdout)
        here = ", ".join(
            f"{node['address']} ({number_of(round(node['gpus']), 'GPU')})" for node in nodes
        )
        wanted = self._section.nodes
        return MachineError(
            f"{wanted} machines with {number_of(self._gpus, 'GPU')} each are to serve the "
            f"{self._table} and after {limit:g} s there were: {here or 'none'}",
            where=f"models.toml [{self._table}].nodes = {wanted}, Ray at {self._call.address}",
            fix=f"on each of the others: {self._worker_command()}   (the folder must be on a file "
            "system that all machines share, at the same path)",
        )

    def _dead(self, problem: str, log: str = LOG) -> StageError:
        text = self._log(log).read_text(errors="replace")
        last = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
        return StageError(
            problem,
            where="\n       ".join([str(self._log(log)), *last]),
            fix=f"mend it, or [{self._table}].nodes = 1 serves from this machine alone",
        )

    def _worker_command(self) -> str:
        return f"localism worker --run {self._folder}"

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / name

    # ---- the end ---------------------------------------------------------------------------

    def stop(self) -> None:
        """End Ray on all machines, and wait until it is gone from those that Slurm gave."""
        ray_call.withdraw(self._folder)
        if self._head and self._call:
            ray_node.stop(self._head, self._call)
        if self._step:
            try:
                self._step.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                self._step.terminate()
                self._step.wait()
        self._head = self._step = self._call = None


def _temporary() -> Path:
    """A new folder's name, in TMPDIR unless that is too long for the sockets in it."""
    parent = Path(tempfile.gettempdir())
    name = f"lm-ray-{secrets.token_hex(4)}"
    return (parent if len(str(parent / name)) <= LONGEST_TEMPORARY else Path("/tmp")) / name


def _last(lines: IO[bytes]) -> list[dict[str, Any]]:
    """What the cluster was at the last look."""
    found = lines.read().splitlines()
    nodes: list[dict[str, Any]] = json.loads(found[-1]) if found else []
    return nodes
