"""Slurm's variables, and machines that sign in for a training: who is missing, who does not fit."""

import os
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engines import NewContext, embedded_config

from localism import machines, slurm, weights
from localism import worker as helping
from localism.config import Config
from localism.context import Context
from localism.errors import ConfigError, MachineError, StageError
from localism.slurm import Allocation
from localism.stages import train, train_plan
from localism.stages.train_machines import find_machines, gathered
from localism.training import call as calls
from localism.training import worker
from localism.training.job import Job
from localism.training.sets import main_training


def config(**section: Any) -> Config:
    return embedded_config(train=section)


@pytest.fixture
def slurm_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Variables of a job of four machines, and an srun that ends with code 7."""
    program = tmp_path / "bin" / "srun"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\necho 'srun: error: node down'; echo $* > {tmp_path}/argv\nexit 7"
    )
    program.chmod(0o755)
    variables = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "gpu[01-03,07]",
        "SLURM_JOB_NUM_NODES": "4",
        "SLURMD_NODENAME": "gpu02",
        "SLURM_CPUS_ON_NODE": "64",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


# ---- Slurm ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ("gpu7", "gpu7"),
        ("gpu[01-04,07]", "gpu01 gpu02 gpu03 gpu04 gpu07"),
        ("login,gpu[9-11],big", "login gpu9 gpu10 gpu11 big"),
        ("r[1-2]n[08-09]-ib", "r1n08-ib r1n09-ib r2n08-ib r2n09-ib"),
        ("a[007],b-1,c.example.org", "a007 b-1 c.example.org"),
    ],
)  # fmt: skip
def test_a_host_list_is_expanded_as_slurm_means_it(listed: str, names: str) -> None:
    assert " ".join(slurm.expanded(listed)) == names


@pytest.mark.parametrize("listed", ["gpu[01-04", "gpu[a-b]", "gpu[1-2],,x", "a b", ",a", "a,"])
def test_a_host_list_of_another_form_is_refused(listed: str) -> None:
    with pytest.raises(MachineError, match="can't be read"):
        list(slurm.expanded(listed))


def test_all_machines_of_a_slurm_job_train_unless_fewer_are_asked_for(
    slurm_job: dict[str, str],
) -> None:
    found = find_machines(config().train, slurm_job)
    assert found.number == 4
    assert found.slurm == Allocation(("gpu01", "gpu02", "gpu03", "gpu07"), "gpu02", "64")
    assert found.slurm.others(2) == ("gpu01", "gpu03"), "not this one"
    assert find_machines(config(nodes=2).train, slurm_job).number == 2
    with pytest.raises(ConfigError, match="5 machines are to train and Slurm gave 4"):
        find_machines(config(nodes=5).train, slurm_job)


def test_outside_a_job_without_srun_and_on_a_login_node_one_machine_trains(
    slurm_job: dict[str, str],
) -> None:
    for change in ({"SLURM_JOB_NODELIST": ""}, {"PATH": "/"}, {"SLURMD_NODENAME": "login1"}):
        assert find_machines(config().train, slurm_job | change) == (1, None)
        assert find_machines(config(nodes=3).train, slurm_job | change) == (3, None)


def test_a_step_runs_one_worker_with_all_cores_on_each_other_machine() -> None:
    given = Allocation(("a", "b", "c"), "a", "64")
    words = slurm.step(given, ("b", "c"), ["worker", "--run", "r"], "localism-ray")
    assert words[0] == "srun" and words[-3:] == ["worker", "--run", "r"]
    wanted = {"--nodes=2", "--ntasks=2", "--nodelist=b,c", "--cpus-per-task=64", "--overlap"}
    wanted |= {"--job-name=localism-ray"}
    assert wanted < set(words)


# ---- the plan ------------------------------------------------------------------------------


def planned(context: Context) -> tuple[Job, str]:
    training = main_training(context.config)
    work = train.work_folder(context, training)
    for split in ("train", "dev"):
        (work / f"{split}.jsonl").write_text("{}\n")
    job, derived = train_plan.plan(context, training, work, 1)
    job.write(work / "job.json")
    return job, derived


def test_the_batch_is_shared_by_the_gpus_of_all_machines(
    new_context: NewContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_plan, "find_gpus", lambda _: train_plan.Gpus(8, 80 * 10**9))
    job, derived = planned(new_context(config(nodes=2, batch=64)))
    assert (job.machines, job.processes, job.sharded) == (2, 16, True)
    assert job.processes * job.micro_batch * job.accumulation == 64
    assert "batch 64 = 2 machines x 8 GPUs x 4 (of 80.0 GB" in derived


# ---- who takes part ------------------------------------------------------------------------


def call_of(context: Context, **changes: Any) -> calls.Call:
    job, _ = planned(context)
    file = context.folder.resolve() / "train/job.json"
    call = calls.Call(
        "n", str(file), "here:1", 1, "cpu", job.model,
        weights.fingerprint(Path(job.model)), machines.versions(calls.LIBRARIES),
    )  # fmt: skip
    return replace(call, **changes)


def test_a_machine_that_does_not_fit_says_what_is_different(
    new_context: NewContext, tmp_path: Path
) -> None:
    context = new_context(config())
    assert worker.stands_against(call_of(context)) == ""
    other = machines.versions(calls.LIBRARIES) | {"trl": "0.1"}
    own = machines.versions(calls.LIBRARIES)["trl"]
    found = worker.stands_against(call_of(context, versions=other))
    assert found == f"it has trl {own} and the run's machine trl 0.1"
    assert "no /elsewhere" in worker.stands_against(call_of(context, job="/elsewhere/job.json"))
    assert "another model" in worker.stands_against(call_of(context, fingerprint="0"))
    assert "another model, or none" in worker.stands_against(call_of(context, model=str(tmp_path)))
    gpus = worker.stands_against(call_of(context, device="cuda", processes=999))
    assert gpus.endswith("and the run's machine 999")


def test_a_machine_that_is_missing_at_the_deadline_is_an_error_with_the_command(
    new_context: NewContext,
) -> None:
    context = new_context(config(nodes=3, batch=6, join_timeout_seconds=1))
    job, _ = planned(context)
    answer_with(context, "", "host1-1")
    with pytest.raises(
        MachineError, match=r"2 other machines .* after 1 s only host1-1"
    ) as missing:
        with gathered(context, job, context.folder / "train/job.json"):
            pass
    assert f"localism worker --run {context.folder.resolve()}" in missing.value.fix
    assert calls.posted(context.folder / "machines") is None, "the call is withdrawn"


def test_the_problem_of_another_machine_is_told_where_the_run_is(new_context: NewContext) -> None:
    context = new_context(config(nodes=2, join_timeout_seconds=60))
    job, _ = planned(context)
    answer_with(context, "there is no /data here", "host1-1")
    with pytest.raises(MachineError, match="host1-1 can't take part in the training: there is no"):
        with gathered(context, job, context.folder / "train/job.json"):
            pass


def answer_with(context: Context, problem: str, name: str) -> None:
    """Sign in once the call is there, as another machine would."""
    folder = context.folder.resolve() / "machines"

    def answer() -> None:
        while (call := calls.posted(folder)) is None:
            pass
        machines.sign_in(folder, machines.SignIn(call.nonce, name, problem))

    threading.Thread(target=answer, daemon=True).start()


def test_a_step_that_slurm_cannot_start_is_an_error_with_its_words(
    new_context: NewContext, slurm_job: dict[str, str], tmp_path: Path
) -> None:
    context = new_context(config(batch=64, micro_batch=1))
    job, _ = planned(context)
    assert job.machines == 4
    with pytest.raises(StageError, match="srun ended with code 7") as ended:
        with gathered(context, job, context.folder / "train/job.json"):
            pass
    assert "node down" in ended.value.where
    run = context.folder.resolve()
    words = (tmp_path / "argv").read_text()
    assert "--nodelist=gpu01,gpu03,gpu07" in words
    assert f"{sys.executable} -m localism worker --run {run} --call " in words


def test_a_worker_that_does_not_see_the_call_says_that_the_files_are_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helping, "SEEN_SECONDS", 0.1)
    (tmp_path / "machines").mkdir()
    with pytest.raises(MachineError, match=f"{socket.gethostname()} does not see") as unseen:
        helping.serve_once(tmp_path, "nonce", print)
    assert "file system that all machines share" in unseen.value.fix


def test_places_are_given_by_name_and_only_for_their_call(tmp_path: Path) -> None:
    folder = tmp_path / "machines"
    folder.mkdir()
    for name in ("b-2", "a-1", "c-3"):
        machines.sign_in(folder, machines.SignIn("new", name, ""))
    machines.sign_in(folder, machines.SignIn("old", "d-4", ""))
    names = [answer.name for answer in machines.signed_in(folder, "new")]
    assert names == ["a-1", "b-2", "c-3"]
    calls.give_places(folder, "new", names[:2])
    assert [calls.place_of(folder, "new", name) for name in names] == [1, 2, 0]
    assert calls.place_of(folder, "other", "a-1") is None


@pytest.mark.parametrize("wrong", ["node1:", "node1:0", "http://node1:29400", "a b", "n:99999"])
def test_a_meeting_point_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="rendezvous"):
        config(rendezvous=wrong)
