"""Two machines in one training: as network namespaces with a cable, and through an srun of ours."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import netns
import planted
import pytest
import trainings
from trainings import STEPS_AN_EPOCH, recipe, rows, train_in

from localism.recipe import RECIPE
from localism.training.job import Job, whole_checkpoints

pytestmark = pytest.mark.component


@pytest.mark.skipif(
    netns.reason_not_joined() is not None,
    reason=f"no joined network namespaces here: {netns.reason_not_joined()}",
)
def test_a_silent_machine_ends_the_training_which_then_goes_on_and_equals_that_of_one(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    """The other machine's processes are stopped in the second epoch; its worker stays and helps.

    Stopped ones keep their connections, so that torch sees nothing break for half an hour.
    """
    (tmp_path / RECIPE).touch()
    with netns.joined() as (own, other), worker(tmp_path, other) as helping:
        first = train_on(own, tmp_path)
        log = tmp_path / "train/log.jsonl"
        wait_for(lambda: log.exists() and log.read_text().count("\n") > STEPS_AN_EPOCH + 2)
        stopped = [pid for one in children(helping.pid) for pid in (one, *children(one))]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        said = first.communicate(timeout=120)[0]
        for pid in stopped:  # they find their connections gone, and end
            os.kill(pid, signal.SIGCONT)
        assert first.returncode == 1
        assert f"machine {socket.gethostname()} fell silent: no sign of life for 1" in said
        assert len(whole_checkpoints(tmp_path / "checkpoints")) == 1

        second = train_on(own, tmp_path)
        assert second.wait(240) == 0, second.communicate()[0]
    assert Job.read(tmp_path / "train/job.json").resume_from, "it did not start over"
    assert_like(tmp_path, finished[0])
    assert not (tmp_path / "egress.jsonl").exists(), "nothing else was spoken to"
    derived = sorted(
        json.loads(row["detail"])["derived"]
        for row in rows(tmp_path, "FROM event WHERE kind = 'recipe'")
    )
    assert derived[0].endswith("batch 4 = 2 machines x 1 CPU process x 1 x 2")
    assert derived[1] == f"{derived[0]}; goes on after epoch 1 of 3"


def assert_like(folder: Path, one: Path) -> None:
    ours, theirs = (whole_checkpoints(f / "checkpoints") for f in (folder, one))
    assert len(ours) == len(theirs)
    for two_machines, one_process in zip(ours, theirs, strict=True):
        assert two_machines.train_loss == pytest.approx(one_process.train_loss, rel=1e-3)
        assert two_machines.dev_loss == pytest.approx(one_process.dev_loss, rel=1e-3)


def train_on(machine: netns.Machine, folder: Path) -> subprocess.Popen[str]:
    """The run's process, on a machine of its own."""
    changes = {"nodes": 2, "rendezvous": machine.address, "micro_batch": 1}
    changes |= {"join_timeout_seconds": 60, "silence_seconds": 12}
    program = [sys.executable, trainings.__file__, "train", str(folder), json.dumps(changes)]
    return subprocess.Popen(
        [*machine.entrance, *program],
        env=environment(machine),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def worker(folder: Path, machine: netns.Machine) -> Iterator[subprocess.Popen[bytes]]:
    """localism worker on another machine."""
    command = [sys.executable, "-m", "localism", "worker", "--run", str(folder)]
    process = subprocess.Popen([*machine.entrance, *command], env=environment(machine))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def environment(machine: netns.Machine) -> dict[str, str]:
    # gloo would take the address that this machine's name has outside.
    return {**os.environ, "GLOO_SOCKET_IFNAME": machine.interface, "OMP_NUM_THREADS": "1"}


def wait_for(condition: Callable[[], Any], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_slurm_starts_the_other_machine_and_it_ends_with_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An srun of ours, which drops Slurm's options and starts the command here.

    With a library that phones home in every process of both machines: that is refused and
    recorded in each, and nothing comes of it.
    """
    (tmp_path / RECIPE).touch()
    library = planted.plant(tmp_path / "library", at_start=True)
    monkeypatch.setenv("PYTHONPATH", str(library))
    srun = tmp_path / "bin/srun"
    srun.parent.mkdir()
    srun.write_text(
        "#!/bin/sh\nwhile case $1 in --*) true;; *) false;; esac; do shift; done\n"
        f'"$@"; code=$?; echo ended with $code > {tmp_path}/srun.said; exit $code\n'
    )
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NODELIST", f"{socket.gethostname()},other")
    monkeypatch.setenv("SLURMD_NODENAME", socket.gethostname())
    train_in(tmp_path, recipe(epochs=1, micro_batch=2))
    job = Job.read(tmp_path / "train/job.json")
    assert (job.machines, job.processes, job.accumulation) == (2, 2, 1)
    assert len(whole_checkpoints(tmp_path / "checkpoints")) == 1
    assert (tmp_path / "srun.said").read_text() == "ended with 0\n"
    words = (tmp_path / "logs/train-slurm.log").read_text()
    assert "takes part as machine 1" in words and "this training is over" in words
    assert sorted(p.name for p in (tmp_path / "machines").iterdir()) == ["places.json"]
    assert_guarded(planted.refused(library, tmp_path))


def assert_guarded(attempts: list[dict[str, Any]]) -> None:
    """On each machine its worker, torch's launcher and what that started have tried."""
    programs = {
        child: "\n".join(one["program"] for one in attempts if one["child"] == child)
        for child in ("train: srun", "train: trainer", "worker: trainer")
    }
    assert "worker" in programs["train: srun"]
    for child in ("train: trainer", "worker: trainer"):
        assert "--nproc_per_node" in programs[child] and "sft.py" in programs[child], programs
