"""The GPUs of this machine, counted by nvidia-smi as CUDA would show them; without importing torch.

CUDA shows a process the GPUs that CUDA_VISIBLE_DEVICES names by number or UUID, in that order, up
to the first that is not there; of slices (MIG) it shows one, whatever is named.
"""

import importlib.metadata
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from localism.errors import MachineError

VISIBLE = "CUDA_VISIBLE_DEVICES"
# Eight GPUs without persistence mode take nvidia-smi some ten seconds.
ANSWER_SECONDS = 60
MEBIBYTE = 2**20
# What drivers keep of a slice: A100's 1g.5gb has 4,864 of 5,120 MiB, larger ones lose less.
SLICE_SHARE = 0.95
_SLICE = re.compile(r"MIG (?:\d+c\.)?\d+g\.(\d+)gb\S*\s+Device\s+\d+:\s+\(UUID: (MIG-[^)\s]+)\)")


class Device(NamedTuple):
    """One GPU, or a slice of one."""

    name: str
    """As CUDA_VISIBLE_DEVICES calls it: a number, or a UUID."""
    uuid: str
    """GPU-... or MIG-...; empty where nvidia-smi is not there."""
    memory: int | None
    """Bytes in all; None where nvidia-smi doesn't say."""
    used: int | None
    """Bytes that somebody holds; None where nvidia-smi doesn't say."""
    is_cut: bool = False
    """It is shared out in slices, so nobody gets it whole."""

    def is_called(self, name: str) -> bool:
        """Whether an entry of CUDA_VISIBLE_DEVICES means this one; UUIDs may be cut short."""
        return name == self.name or (len(name) > 4 and self.uuid.startswith(name))


class Holder(NamedTuple):
    """A process with memory on a GPU."""

    uuid: str
    """Of the GPU."""
    pid: int
    """Its number, perhaps outside this container."""
    memory: int | None
    """Bytes; None where nvidia-smi doesn't say."""
    program: str
    """As nvidia-smi calls it."""


class Gpus(NamedTuple):
    """The GPUs that a process can use."""

    number: int
    """0 where there is none, or torch is the CPU build."""
    memory: int | None
    """Bytes of the smallest; None where nvidia-smi doesn't say."""
    devices: tuple[Device, ...] = ()
    """One by one, in CUDA's order."""

    def part(self, first: int, number: int) -> "Gpus":
        """So many of them, from the first-th on."""
        return of_devices(self.devices[first : first + number])


def find_gpus(environment: Mapping[str, str]) -> Gpus:
    """GPUs that a child with this environment can use: none with the CPU build of torch.

    Raises MachineError when the driver hangs.
    """
    if importlib.metadata.version("torch").endswith("+cpu"):
        return Gpus(0, None)
    return of_devices(visible(list_devices(), environment.get(VISIBLE)))


def of_devices(devices: Sequence[Device]) -> Gpus:
    """Of unequal GPUs the smallest counts: work is shared out evenly."""
    known = [device.memory for device in devices if device.memory]
    return Gpus(len(devices), min(known, default=None), tuple(devices))


def visible(listed: Sequence[Device], variable: str | None) -> list[Device]:
    """What CUDA shows of the listed devices; `variable`: CUDA_VISIBLE_DEVICES, if it is set."""
    if variable is None:
        whole = [device for device in listed if not device.is_cut and device.name.isdigit()]
        return whole or [device for device in listed if not device.is_cut][:1]
    names = [name.strip() for name in variable.split(",")]
    if not listed:  # a container without nvidia-smi
        return [Device(name, "", None, None) for name in names if name not in ("", "-1")]
    found: list[Device] = []
    for name in names:
        device = next((one for one in listed if one.is_called(name)), None)
        if device is None or device.is_cut or device.uuid in {one.uuid for one in found}:
            break
        found.append(device._replace(name=name))
    slices = [device for device in found if device.uuid.startswith("MIG-")]
    return slices[:1] or found


def list_devices() -> list[Device]:
    """All GPUs of this machine and, behind them, their slices; empty where nvidia-smi fails."""
    asked = "index,uuid,memory.total,memory.used,mig.mode.current"
    rows = [[word.strip() for word in line.split(",")] for line in _lines(f"--query-gpu={asked}")]
    devices = [
        Device(index, uuid, _bytes(total), _bytes(used), mode == "Enabled")
        for index, uuid, total, used, mode in (row for row in rows if len(row) == 5)
        if index.isdigit()
    ]
    if any(device.is_cut for device in devices):
        devices += slices("\n".join(_lines("-L")))
    return devices


def list_holders() -> list[Holder]:
    """Who holds memory of which GPU; in containers often nobody, although memory is used."""
    asked = "gpu_uuid,pid,used_memory,process_name"
    rows = [
        [word.strip() for word in line.split(",", 3)]
        for line in _lines(f"--query-compute-apps={asked}")
    ]
    return [
        Holder(uuid, int(pid), _bytes(size), program)
        for uuid, pid, size, program in (row for row in rows if len(row) == 4)
        if pid.isdigit()
    ]


def slices(text: str) -> list[Device]:
    """The slices in the listing of `nvidia-smi -L`; how full they are is not said."""
    return [
        Device(uuid, uuid, int(int(gigabytes) * 2**30 * SLICE_SHARE), None)
        for gigabytes, uuid in _SLICE.findall(text)
    ]


def _bytes(mebibytes: str) -> int | None:
    # Machines whose GPU shares the memory of the CPU say "[N/A]".
    return int(mebibytes) * MEBIBYTE if mebibytes.isdigit() else None


def _lines(question: str) -> list[str]:
    """What nvidia-smi answers; nothing where it is absent or fails."""
    words = ["nvidia-smi", question]
    if question.startswith("--query"):
        words.append("--format=csv,noheader,nounits")
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=ANSWER_SECONDS
        )
    except OSError:
        return []
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"nvidia-smi has not answered for {ANSWER_SECONDS} s",
            where=" ".join(words),
            fix="the driver hangs: look for Xid in `dmesg`, reset the GPU or reboot",
        ) from None
    return done.stdout.splitlines() if not done.returncode else []
