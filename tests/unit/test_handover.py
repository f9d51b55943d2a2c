"""GPU memory between two phases, with a made nvidia-smi and real small processes."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engines import NewContext

from localism import gpus as gpus_module
from localism import processes
from localism.context import Context
from localism.errors import MachineError
from localism.gpus import Device, find_gpus, of_devices
from localism.offline import child_environment
from localism.serving import engine, handover
from localism.serving.handover import Handover
from localism.stages import train, train_child, train_plan
from localism.training.sets import main_training

GIB = 2**30
# Two GPUs of 80,000 MiB. `state` holds what is asked for: used MiB of each, and who holds it.
SMI = """#!/bin/sh
. {state}
case "$*" in
*query-gpu*) echo "0, GPU-a, 80000, $used0, Disabled"; echo "1, GPU-b, 80000, $used1, Disabled" ;;
*compute-apps*) printf "$holders" ;;
esac
"""


class Made:
    """A machine whose nvidia-smi says what a test wants."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state, self.program = folder / "state", folder / "nvidia-smi"
        self.files = str(folder / "dev/nvidia")
        (folder / "dev").mkdir()
        (folder / "dev/nvidia0").touch()
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setattr("importlib.metadata.version", lambda _: "2.13.0")
        monkeypatch.setattr(processes, "GPU_FILES", (self.files,))
        monkeypatch.setattr(handover, "LOOK_SECONDS", 0.05)
        monkeypatch.setattr(handover, "PATIENCE_SECONDS", 0.1)
        monkeypatch.setattr(handover, "LIMIT_SECONDS", 0.6)
        self.answers(SMI.format(state=self.state))
        self.says(4, 4)

    def answers(self, script: str) -> None:
        self.program.write_text(script)
        self.program.chmod(0o755)

    def says(self, used0: int | str, used1: int | str, holders: str = "") -> None:
        new = self.state.with_suffix(".new")
        new.write_text(f"used0={used0}\nused1={used1}\nholders='{holders}'\n")
        new.replace(self.state)

    def as_long_as(self, pid: int) -> None:
        """The first GPU is full for as long as a process lives."""
        line = f"GPU-a, {pid}, 61234, VLLM::EngineCore\\n"
        self.state.write_text(
            f"if grep -qs '^State:.[^Z]' /proc/{pid}/status; then\n"
            f"used0=70000; holders='{line}'\nelse used0=4; holders=; fi\nused1=4\n"
        )

    @contextmanager
    def holder(
        self, environment: dict[str, str] | None = None, seconds: float = 60
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A real process that has a GPU open."""
        code = f"import time; f = open('{self.files}0'); time.sleep({seconds})"
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", code, "vllm"], env=environment, start_new_session=True
        )
        wait_until(lambda: processes.uses_gpu(child.pid))
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def wait_until(claim: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    (tmp_path / "machine").mkdir()
    return Made(tmp_path / "machine", monkeypatch)


def over(context: Context, share: float = 0.9) -> Handover:
    return Handover(context, "pick", "the judge's engine", find_gpus({}), share)


def events(context: Context) -> list[dict[str, Any]]:
    rows = context.store.query(
        "SELECT kind, detail FROM event WHERE kind LIKE 'gpu_memory%' ORDER BY happened_at"
    )
    return [{"kind": row["kind"], **json.loads(row["detail"])} for row in rows]


def test_free_gpus_are_taken_at_once_and_it_is_on_record(made: Made, new_context: NewContext):
    context = new_context()
    over(context).begin_and_block()
    [event] = events(context)
    assert event["kind"] == "gpu_memory_back" and event["phase"] == "the judge's engine"
    assert (event["gpus"], event["mib_before"], event["mib_after"]) == (["0", "1"], 8, 8)
    assert event["ended"] == []


def test_memory_that_drains_is_waited_for(made: Made, new_context: NewContext):
    context = new_context()
    with made.holder(seconds=0.5) as child:
        made.as_long_as(child.pid)
        over(context).begin_and_block()
    [event] = events(context)
    assert (event["mib_before"], event["mib_after"]) == (70004, 8)
    assert event["seconds"] > 0 and event["ended"] == []


def test_who_holds_on_is_named_and_left_alone(made: Made, new_context: NewContext):
    context = new_context()
    with made.holder() as child, pytest.raises(MachineError) as held:
        made.as_long_as(child.pid)
        over(context).begin_and_block()
    assert child.returncode == -9, "by the test, not before"
    where = held.value.where
    assert "GPU 0: 70,000 of 80,000 MiB held" in where and "GPU 1" not in where
    assert f"process {child.pid} of " in where and ", 61,234 MiB" in where
    assert f"kill {child.pid}" in held.value.fix
    assert events(context)[0]["kind"] == "gpu_memory_held"


def orphan(made: Made, folder: Path) -> int:
    """A process of a run with a GPU open, whose parent is gone: left by a call that was killed."""
    script = f"import time; f = open('{made.files}0'); time.sleep(60)"
    words = ["setsid", "sh", "-c", '"$0" -S -c "$1" vllm </dev/null >/dev/null 2>&1 & echo $!']
    started = subprocess.run(
        [*words, sys.executable, script], capture_output=True, env=child_environment(folder)
    )
    pid = int(started.stdout)
    wait_until(lambda: processes.uses_gpu(pid))
    return pid


def is_alive(pid: int) -> bool:
    owner = processes.owner_of(pid)
    return owner is not None and bool(owner.command)  # a zombie has no words


def test_a_leftover_of_this_run_is_ended(made: Made, new_context: NewContext):
    context = new_context()
    pid = orphan(made, context.folder)
    made.as_long_as(pid)
    over(context).begin_and_block()
    assert not is_alive(pid)
    [event] = events(context)
    assert event["kind"] == "gpu_memory_back"
    assert len(event["ended"]) == 1 and event["ended"][0].startswith(f"process {pid} of ")
    assert f"(run {context.folder.resolve()})" in event["ended"][0]


def test_another_runs_process_is_named_as_that_and_left_alone(
    made: Made, new_context: NewContext, tmp_path: Path
):
    pid = orphan(made, tmp_path / "other")
    try:
        made.as_long_as(pid)
        with pytest.raises(MachineError) as held:
            over(new_context()).begin_and_block()
        assert is_alive(pid) and f"(run {tmp_path}/other)" in held.value.where
    finally:
        os.kill(pid, 9)


def test_children_of_this_process_are_no_leftovers(made: Made, new_context: NewContext):
    context = new_context()
    with made.holder(child_environment(context.folder)):
        assert processes.leftovers(context.folder) == []


@pytest.mark.parametrize(
    "holders", ["", "GPU-a, 4000001, [N/A], [Not Found]\\n", "GPU-a, [Not Found], [N/A], -\\n"]
)
def test_in_a_container_the_used_memory_is_told_and_where_to_look(
    made: Made, new_context: NewContext, holders: str
):
    made.says(79000, 4, holders)
    with pytest.raises(MachineError) as held:
        over(new_context()).begin_and_block()
    assert "79,000 of 80,000 MiB held" in held.value.where
    assert "container" in held.value.where and "fuser -v /dev/nvidia" in held.value.fix
    assert "kill" not in held.value.fix


def test_a_number_that_is_another_process_here_is_not_blamed(made: Made, new_context: NewContext):
    made.says(79000, 4, f"GPU-a, {os.getpid()}, 60000, python\\n")  # it has no GPU open
    with pytest.raises(MachineError) as held:
        over(new_context()).begin_and_block()
    assert "outside this container" in held.value.where and "kill" not in held.value.fix


def test_what_leaves_room_enough_is_no_matter(made: Made, new_context: NewContext):
    made.says(6000, 4)  # a display; an engine takes nine tenths of 80,000
    context = new_context()
    over(context).begin_and_block()
    assert events(context)[0]["mib_after"] == 6004
    with pytest.raises(MachineError):
        over(context, share=0.98).begin_and_block()


def test_after_its_end_a_phase_has_given_back_what_it_took(made: Made, new_context: NewContext):
    context = new_context()
    made.says(3000, 4)
    phase = over(context)
    phase.begin_and_block()
    with made.holder(seconds=0.4) as child:
        made.as_long_as(child.pid)
        phase.end_and_block()
    assert [event["moment"] for event in events(context)] == ["before it started", "after it ended"]
    phase.begin_and_block()
    made.says(60000, 4)
    phase.end_and_block()
    assert events(context)[-1]["kind"] == "gpu_memory_held"
    [row] = context.store.query("SELECT detail FROM event WHERE kind = 'warning'")
    assert "60,000 of 80,000 MiB held" in row["detail"]


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\nexit 9\n", "#!/bin/sh\necho garbage, , ,\n", "#!/bin/sh\n"]
)
def test_figures_that_fail_in_between_hold_nothing_up(
    made: Made, new_context: NewContext, script: str
):
    context = new_context()
    phase = over(context)
    made.answers(script)
    phase.begin_and_block()
    assert events(context)[0]["mib_after"] == 0


def test_a_driver_that_hangs_is_said(
    made: Made, new_context: NewContext, monkeypatch: pytest.MonkeyPatch
):
    phase = over(new_context())
    monkeypatch.setattr(gpus_module, "ANSWER_SECONDS", 0.3)
    made.answers("#!/bin/sh\nexec sleep 30\n")
    with pytest.raises(MachineError, match="has not answered"):
        phase.begin_and_block()


def test_gpus_without_figures_are_taken_as_free(new_context: NewContext):
    context = new_context()
    unknown = of_devices([Device("0", "MIG-1", 10 * GIB, None)])
    phase = Handover(context, "train", "training", unknown, 0.8)
    phase.begin_and_block()
    phase.end_and_block()
    assert events(context) == []


def test_an_engine_waits_in_the_same_way(made: Made, new_context: NewContext):
    context = new_context()

    async def phase() -> None:
        one = over(context)
        with made.holder(seconds=0.5) as child:
            made.as_long_as(child.pid)
            await one.begin()
        made.says(900, 4)
        await one.end()

    asyncio.run(phase())
    assert [event["mib_after"] for event in events(context)] == [8, 904]


# ---- who asks ------------------------------------------------------------------------------


def test_an_engine_is_not_started_on_gpus_that_are_held(
    made: Made, new_context: NewContext, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine, "engine_kind", lambda table: "gpu")
    context = new_context()
    server = engine.Engine(context, "student", "pick")
    made.says(79000, 79000)
    with pytest.raises(MachineError, match="GPUs 0, 1 are still held") as held:
        asyncio.run(server.ready())
    assert "the student's engine needs 90%" in held.value.problem
    began = time.monotonic()
    with pytest.raises(MachineError):  # the requests that come behind do not wait once more
        asyncio.run(server.ready())
    assert time.monotonic() - began < handover.LIMIT_SECONDS
    assert not (context.folder / "logs/pick-student.log").exists()


def test_neither_is_a_trainer(made: Made, new_context: NewContext):
    context = new_context()
    training = main_training(context.config)
    work = train.work_folder(context, training)
    for split in ("train", "dev"):
        (work / f"{split}.jsonl").write_text("{}\n")
    job = train_plan.plan(context, training, work, 100).job
    assert (job.device, job.processes) == ("cuda", 2)
    made.says(4, 79000)
    with pytest.raises(MachineError, match="training needs 80% of each"):
        train_child.supervise(context, training, job, work / "job.json")
    assert not (context.folder / "logs/train.log").exists()
