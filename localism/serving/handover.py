"""One phase owns the GPUs: proof that their memory is free before the next one takes it.

Before an engine or a trainer starts, and after one has ended, its GPUs are looked at until what is
held on them leaves the room that it needs. Memory comes back some seconds after a process is gone.
Leftovers of this run are ended; of others every process is named, and nothing is touched. Each
look that was waited for is an event of the corpus, gpu_memory_back. A GPU that nvidia-smi gives no
figures of is taken as free.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from localism.context import Context
from localism.errors import MachineError
from localism.gpus import MEBIBYTE, Device, Gpus, Holder, list_devices, list_holders
from localism.processes import kill, leftovers, owner_of, uses_gpu

LIMIT_SECONDS = 60.0
LOOK_SECONDS = 1.0
# Leftovers end by themselves when their keeper sees that localism is gone; then they are ended.
PATIENCE_SECONDS = 5.0
# A process of our own takes this before it asks for more, and drivers hold as much of idle GPUs.
CONTEXT_BYTES = 2**30


class Handover:
    """The GPUs of one phase, from before its start until after its end."""

    def __init__(self, context: Context, stage: str, phase: str, gpus: Gpus, share: float) -> None:
        """`phase`: what takes the GPUs, in words; `share`: of each GPU's memory that it needs."""
        self._context, self._stage, self._phase, self._share = context, stage, phase, share
        self._devices = {device.uuid: device for device in gpus.devices if device.used is not None}
        self._at_start: dict[str, int] = {}

    async def begin(self) -> None:
        """Wait until the GPUs are free. MachineError names who holds them after a minute."""
        wait = self._before()
        while not await asyncio.to_thread(wait.is_over):
            await asyncio.sleep(self._shown(wait))
        self._begun(wait)

    def begin_and_block(self) -> None:
        """As begin(), for code that is not asynchronous."""
        wait = self._before()
        while not wait.is_over():
            time.sleep(self._shown(wait))
        self._begun(wait)

    async def end(self) -> None:
        """Wait until what was taken is free again; a warning where it is not after a minute."""
        wait = self._after()
        while not await asyncio.to_thread(wait.is_over):
            await asyncio.sleep(self._shown(wait))
        self._record(wait, "after it ended")

    def end_and_block(self) -> None:
        """As end(), for code that is not asynchronous."""
        wait = self._after()
        while not wait.is_over():
            time.sleep(self._shown(wait))
        self._record(wait, "after it ended")

    def _before(self) -> "Wait":
        allowed = {
            uuid: max(CONTEXT_BYTES, int((1 - self._share) * (device.memory or 0)) - CONTEXT_BYTES)
            for uuid, device in self._devices.items()
        }
        return Wait(self._devices, allowed, self._context.folder)

    def _after(self) -> "Wait":
        allowed = {uuid: used + CONTEXT_BYTES for uuid, used in self._at_start.items()}
        devices = {uuid: self._devices[uuid] for uuid in allowed}
        self._at_start = {}
        return Wait(devices, allowed, self._context.folder)

    def _begun(self, wait: "Wait") -> None:
        self._record(wait, "before it started")
        if wait.full:
            raise self._held(wait)
        self._at_start = wait.used

    def _shown(self, wait: "Wait") -> float:
        held = f"{wait.total() / 2**30:,.1f} GiB held, {wait.seconds:.0f}s"
        self._context.progress.update(0, detail=f"GPU memory for {self._phase}: {held}")
        return LOOK_SECONDS

    def _record(self, wait: "Wait", moment: str) -> None:
        if not self._devices or wait.first is None:
            return
        self._context.store.event(
            "gpu_memory_back" if not wait.full else "gpu_memory_held",
            self._stage,
            phase=self._phase,
            moment=moment,
            gpus=[device.name for device in self._devices.values()],
            seconds=round(wait.seconds, 1),
            mib_before=wait.first // MEBIBYTE,
            mib_after=wait.total() // MEBIBYTE,
            ended=wait.ended,
        )
        if wait.ended:
            named = "; ".join(wait.ended)
            self._context.progress.say(f"ended what an earlier call of this run left: {named}")
        if wait.full and moment.startswith("after"):
            self._context.warn(
                self._stage,
                f"{self._phase} has ended and GPU memory is still held after "
                f"{LIMIT_SECONDS:.0f} s: {'; '.join(held_by(wait))}",
            )

    def _held(self, wait: "Wait") -> MachineError:
        names = [device.name for device in wait.full.values()]
        named = f"GPUs {', '.join(names)} are" if names[1:] else f"GPU {names[0]} is"
        pids = sorted({holder.pid for holder in wait.holders if is_seen(holder)})
        fix = (
            f"end what should not be there (kill {' '.join(map(str, pids))})"
            if pids
            else "`nvidia-smi` on the host itself, or as root `fuser -v /dev/nvidia*`, names it"
        )
        return MachineError(
            f"{named} still held after {LIMIT_SECONDS:.0f} s, and {self._phase} needs "
            f"{self._share:.0%} of each",
            where="\n       ".join(held_by(wait)),
            fix=f"{fix}; or choose other GPUs with CUDA_VISIBLE_DEVICES. The same command goes on",
        )


class Wait:
    """Looks at some GPUs, one after the other, until they are free or the limit is over."""

    def __init__(
        self, devices: Mapping[str, Device], allowed: Mapping[str, int], folder: Path
    ) -> None:
        self._devices, self._allowed, self._folder = devices, allowed, folder
        self._began = time.monotonic()
        self.seconds = 0.0
        """Until the last look."""
        self.first: int | None = None
        """Bytes held at the first look."""
        self.used: dict[str, int] = {}
        """Bytes held at the last look, by UUID."""
        self.full: dict[str, Device] = {}
        """GPUs on which more is held than may be, at the last look."""
        self.holders: list[Holder] = []
        """Who nvidia-smi names on those."""
        self.ended: list[str] = []
        """Leftovers of this run that were ended, in words."""

    def total(self) -> int:
        """Bytes held at the last look."""
        return sum(self.used.values())

    def is_over(self) -> bool:
        """Look once more; ends leftovers of this run on the way."""
        if not self._devices:
            return True
        self.seconds = time.monotonic() - self._began
        now = {one.uuid: one for one in list_devices() if one.uuid in self._devices}
        self.used = {uuid: one.used for uuid, one in now.items() if one.used is not None}
        self.first = self.total() if self.first is None else self.first
        self.full = {
            uuid: now[uuid]._replace(name=self._devices[uuid].name)
            for uuid, used in self.used.items()
            if used > self._allowed[uuid]
        }
        self.holders = [one for one in list_holders() if one.uuid in self.full] if self.full else []
        if self.full and self.seconds > PATIENCE_SECONDS:
            self._end_leftovers()
        return not self.full or self.seconds > LIMIT_SECONDS

    def _end_leftovers(self) -> None:
        for owner in leftovers(self._folder):
            kill(owner.pid)
            self.ended.append(owner.said())


def held_by(wait: Wait) -> list[str]:
    """A line for each process on a full GPU, or that none is named."""
    lines = []
    for uuid, device in wait.full.items():
        used, total = (device.used or 0) // MEBIBYTE, (device.memory or 0) // MEBIBYTE
        lines.append(f"GPU {device.name}: {used:,} of {total:,} MiB held")
        found = [holder for holder in wait.holders if holder.uuid == uuid]
        lines += [f"  {told(holder)}" for holder in found]
        if not found:
            lines.append("  nvidia-smi names no process: another container's, or another user's")
    return lines


def told(holder: Holder) -> str:
    """process 4711 of alice: python -m vllm..., 61,234 MiB."""
    size = f"{holder.memory // MEBIBYTE:,} MiB" if holder.memory is not None else "size unknown"
    owner = owner_of(holder.pid) if is_seen(holder) else None
    if owner is None:
        return f"process {holder.pid} outside this container ({holder.program}), {size}"
    return f"{owner.said()}, {size}"


def is_seen(holder: Holder) -> bool:
    """Whether the process of that number here is the one meant, and not another container's."""
    return owner_of(holder.pid) is not None and uses_gpu(holder.pid) is not False
