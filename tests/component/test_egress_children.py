"""A library that phones home, in each kind of process that a run starts: refused and recorded.

Processes that load for long are ended as soon as they have tried. Trainings over several processes
and machines: test_train_machines. All other ways out, and what the guard itself does: test_offline.
"""

import asyncio
import itertools
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import planted
import pytest
from engines import NewContext, embedded_config
from planted import OUTSIDE
from trainings import planned, recipe

from localism import offline
from localism.config_checks import Origin
from localism.doctor import machine
from localism.gpus import Device, of_devices
from localism.lmeval import running, sandbox
from localism.lmeval.staging import SAMPLES, stage
from localism.models_toml import Look
from localism.paths import embedded
from localism.serving import engine
from localism.serving.engine import Engine
from localism.training import launch

pytestmark = pytest.mark.component
LIMIT_SECONDS = 240
GPU = of_devices([Device("0", "GPU-0", 80 * 2**30, 0)])


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The planted library, where children find it."""
    folder = planted.plant(tmp_path / "library")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def tried(run_folder: Path) -> set[int]:
    """Processes that have tried so far."""
    return {attempt["pid"] for attempt in offline.refused_connections(run_folder)}


def kinds(attempts: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """What was said of who tried: the child, and the name of a worker of multiprocessing."""
    return {(one["child"], one["program"].rpartition(" ")[2]) for one in attempts}


def test_the_server_its_engine_and_its_worker_are_guarded(
    new_context: NewContext, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command and environment for GPUs, where each is a process."""
    monkeypatch.setattr(engine, "engine_kind", lambda table: "gpu")
    arguments = ("--distributed-executor-backend", "mp")
    context = new_context(embedded_config(teacher={"engine_arguments": arguments}))
    vllm = Engine(context, "teacher", "generate", gpus=GPU)

    async def until_all_have_tried() -> None:
        start = asyncio.ensure_future(vllm.start())
        while not start.done() and len(tried(context.folder)) < 3:
            await asyncio.sleep(0.2)
        start.cancel()
        await asyncio.wait([start])
        await vllm.stop()

    asyncio.run(until_all_have_tried())
    attempts = planted.refused(library, context.folder)
    assert {child for child, _ in kinds(attempts)} == {"generate-teacher: engine"}
    assert {"(EngineCore)", "(VllmWorker-0)"} < {name for _, name in kinds(attempts)}
    assert len(tried(context.folder)) == 3, "and the server itself"


def test_the_trainer_is_guarded(library: Path, tmp_path: Path) -> None:
    planned(tmp_path, recipe())
    environment = offline.child_environment(tmp_path, "train: trainer")
    child = launch.start(tmp_path / "train/job.json", tmp_path / "train.log", environment)
    try:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not tried(tmp_path) and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        launch.stop(child)
    (attempt,) = planted.refused(library, tmp_path)
    assert attempt["child"] == "train: trainer"
    assert attempt["program"].endswith("train/job.json")


class Enough(Exception):
    """What the test stops the evaluation with."""


def test_lm_eval_is_guarded(library: Path, tmp_path: Path) -> None:
    stage(SAMPLES, tmp_path / "staged", ["piqa"])

    def watch(_: str) -> None:
        if tried(tmp_path):
            raise Enough

    where = (embedded("embedded:student"), tmp_path / "staged", ["piqa"], tmp_path / "evaluation")
    with pytest.raises(Enough):
        running.run(*where, tmp_path, running.Settings(limit=1), watch)
    assert {child for child, _ in kinds(planted.refused(library, tmp_path))} == {
        "evaluate: lm-eval"
    }


def in_child(run_folder: Path, child: str, code: str) -> None:
    """Run code as a child of the run does."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=offline.child_environment(run_folder, child) | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr


def test_workers_that_libraries_start_are_guarded(library: Path, tmp_path: Path) -> None:
    """Loaders of data, maps over data sets and joblib, which HDBSCAN and scikit-learn use."""
    in_child(
        tmp_path,
        "train: trainer",
        """
        import os
        os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"  # its own import of torch says nothing
        import datasets, joblib, torch
        from phones_home import phone_home

        class Calling(torch.utils.data.Dataset):
            def __len__(self):
                return 1
            def __getitem__(self, index):
                phone_home()
                return index

        list(torch.utils.data.DataLoader(Calling(), num_workers=1))
        datasets.Dataset.from_dict({"row": [1, 2]}).map(phone_home, num_proc=2)
        joblib.Parallel(2)(joblib.delayed(phone_home)() for _ in range(2))
        """,
    )
    names = {name.partition("-")[0] for _, name in kinds(planted.refused(library, tmp_path))}
    assert names == {"(Process", "(ForkPoolWorker", "(LokyProcess"}


def test_the_doctors_look_at_torch_is_guarded(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which it has on machines with GPUs."""
    monkeypatch.setattr(machine, "find_gpus", lambda _: GPU)
    findings = machine.check(Look(embedded_config(), Origin("models.toml")), tmp_path)
    assert any(finding.check == "CUDA" for finding in itertools.islice(findings, 3))
    (attempt,) = planted.refused(library, tmp_path)
    assert attempt["child"] == "doctor"


def test_the_embedders_process_on_a_gpu_is_guarded(library: Path, tmp_path: Path) -> None:
    in_child(
        tmp_path,
        "cluster",
        """
        from localism.clustering.own_process import in_own_process
        from phones_home import phone_home

        if __name__ == "__main__":
            in_own_process("more memory", phone_home)
        """,
    )
    (attempt,) = planted.refused(library, tmp_path)
    assert (attempt["child"], attempt["program"]) == ("cluster", "-c (SpawnProcess-1)")


def test_a_worker_closes_the_gap_before_it_waits_for_a_call(library: Path, tmp_path: Path) -> None:
    """Started by hand, with nothing of a run in its environment."""
    (tmp_path / "recipe.json").touch()
    code = """
        from phones_home import phone_home
        from localism import worker
        worker.serve = phone_home
        from localism.cli.main import cli
        cli(["worker", "--run", {!r}])
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code).format(str(tmp_path))], check=True, timeout=60
    )
    (attempt,) = planted.refused(library, tmp_path)
    assert attempt["child"] == "worker"


def test_what_a_program_in_the_sandbox_tries_is_recorded_too(tmp_path: Path) -> None:
    """No guard could write in there: the jail tells of it, and the harness's child records."""
    try:
        sandbox.find()
    except sandbox.SandboxBroken as broken:
        pytest.skip(f"no sandbox here: {broken.where}")
    in_child(
        tmp_path,
        "evaluate: lm-eval",
        f"""
        from localism.lmeval import sandbox
        from localism.lmeval.code_eval import CodeEval

        named = "import socket\\ndef phone_home(): socket.create_connection(('{OUTSIDE}', 80))"
        bare = "import socket\\ndef phone_home(): socket.socket()"
        caught = "try:\\n  phone_home()\\nexcept OSError: pass"
        metric = CodeEval(sandbox.find())
        scores, _ = metric.compute([caught], [[named, bare]], [1])
        assert scores == {{"pass@1": 1.0}}, (scores, metric.outcomes)
        """,
    )
    attempts = offline.refused_connections(tmp_path)
    found = {one["event"]: one for one in attempts}
    assert found["socket.getaddrinfo"]["target"] == [OUTSIDE, "80"]
    assert found["socket.__new__"]["target"] == ["a socket of family 2"]
    for attempt in attempts:
        assert "<string>:2 phone_home" in attempt["stack"]
        assert attempt["child"] == "evaluate: lm-eval"
        assert attempt["program"] == "a model's answer"
    assert len(attempts) == 2
