"""The batch script: what it asks Slurm for, and what it does when its time is over."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from localism.cli.main import cli

USUAL = ("--partition", "h100", "--gpus", "8", "--hours", "24")


def written(folder: Path, *arguments: str) -> Path:
    target = folder / "job.sh"
    done = CliRunner().invoke(cli, ["slurm", "--to", str(target), *arguments], obj={})
    assert done.exit_code == 0, done.output
    return target


def directives(script: Path) -> dict[str, str]:
    lines = script.read_text().splitlines()
    pairs = (line.removeprefix("#SBATCH --").partition("=") for line in lines if "#SBATCH" in line)
    return {name: value for name, _, value in pairs}


def test_it_asks_for_what_was_named_and_leaves_time_to_end_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = written(tmp_path, *USUAL, "--nodes", "2", "--run", "first")
    asked = directives(script)
    assert asked["partition"] == "h100" and asked["nodes"] == "2" and asked["time"] == "24:00:00"
    assert asked["gpus-per-node"] == "8" and asked["ntasks-per-node"] == "1"
    assert asked["signal"] == "B:TERM@300" and "requeue" in asked and "array" not in asked
    assert "--budget-hours 23.75" in script.read_text()


def spread_teacher(folder: Path) -> Path:
    """models.toml with a teacher over three machines."""
    models = folder / "models.toml"
    models.write_text(
        '[teacher]\npath = "embedded:teacher"\nnodes = 3\n[judge]\nsame_as = "teacher"\n'
        '[student]\npath = "embedded:student"\n'
    )
    return models


def test_it_asks_for_as_many_machines_as_the_largest_engine_or_training_needs(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    models = str(spread_teacher(tmp_path))
    script = written(tmp_path, *USUAL, "--models", models)
    assert directives(script)["nodes"] == "3" and directives(script)["mem"] == "0"
    script.unlink()
    assert directives(written(tmp_path, *USUAL, "--models", models, "--nodes", "5"))["nodes"] == "5"
    usual = ["slurm", "--to", str(tmp_path / "x"), *USUAL, "--models", models, "--nodes", "2"]
    refused = CliRunner().invoke(cli, usual, obj={})
    assert refused.exception and "[teacher].nodes is 3" in str(refused.exception)
    assert not (tmp_path / "x").exists()


def test_an_array_has_a_run_and_a_seed_for_each_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = written(tmp_path, *USUAL, "--run", "first", "--seeds", "0-3%2")
    assert directives(script)["array"] == "0-3%2"
    assert "run=first-$SLURM_ARRAY_TASK_ID" in script.read_text()


def test_it_is_a_script_that_bash_reads_whatever_the_names(tmp_path, monkeypatch):
    odd = tmp_path / "a b;$(touch hacked)'c"
    odd.mkdir()
    monkeypatch.chdir(odd)
    script = written(tmp_path, *USUAL, "--run", "ru n'x", "--", "--set", 'extract.domain="a b"')
    checked = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.fixture
def slurm(tmp_path) -> dict[str, str]:
    """An environment as a job has it, with an scontrol that writes down what it is asked."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    path = f"{scontrol.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SLURM_JOB_ID": "4711", "OMP_NUM_THREADS": "1"}


def test_a_job_whose_budget_is_used_up_is_queued_again(tmp_path, monkeypatch, slurm):
    monkeypatch.chdir(tmp_path)
    script = written(tmp_path, *USUAL, "--run", "r")
    text = script.read_text().replace("--budget-hours 23.75", "--budget-hours 0.0000001")
    script.write_text(text)
    done = subprocess.run(["bash", str(script)], env=slurm, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "exit code 6" in done.stdout
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"


def test_a_task_of_an_array_is_queued_again_by_its_own_name(tmp_path, monkeypatch, slurm):
    monkeypatch.chdir(tmp_path)
    script = written(tmp_path, *USUAL, "--run", "r", "--seeds", "0-3")
    text = script.read_text().replace("--budget-hours 23.75", "--budget-hours 0.0000001")
    script.write_text(text)
    array = {"SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "2"}
    done = subprocess.run(["bash", str(script)], env={**slurm, **array}, capture_output=True)
    assert done.returncode == 0
    assert (tmp_path / "asked").read_text() == "requeue 4700_2\n"
    assert (tmp_path / "runs" / "r-2" / "recipe.json").exists()


def test_slurms_warning_reaches_localism_and_the_job_is_queued_again(tmp_path, monkeypatch, slurm):
    monkeypatch.chdir(tmp_path)
    script = written(tmp_path, *USUAL, "--run", "r", "--", "--no-doctor")
    job = subprocess.Popen(["bash", str(script)], env=slurm, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "runs/r/corpus.duckdb").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)
    job.send_signal(signal.SIGTERM)  # to the shell alone, as --signal=B: does
    output, _ = job.communicate(timeout=90)
    assert job.returncode == 0 and "queued again" in output
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"


def test_a_mistake_ends_the_job_with_its_own_code_and_is_not_repeated(tmp_path, monkeypatch, slurm):
    monkeypatch.chdir(tmp_path)
    script = written(tmp_path, *USUAL, "--run", "r", "--", "--set", "train.epochz=3")
    done = subprocess.run(["bash", str(script)], env=slurm, capture_output=True, text=True)
    assert done.returncode == 3 and "train.epochz" in done.stderr
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    "arguments", [("--seeds", "one"), ("--hours", "0.4"), ("--nodes", "0"), ("--gpus", "-1")]
)
def test_what_cannot_be_is_refused(tmp_path, arguments):
    usual = ["slurm", "--partition", "p", "--to", str(tmp_path / "x"), *arguments]
    done = CliRunner().invoke(cli, usual, obj={})
    assert done.exit_code != 0
    assert not (tmp_path / "x").exists()


def test_a_file_that_is_there_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = written(tmp_path, *USUAL)
    before = script.read_text()
    done = CliRunner().invoke(cli, ["slurm", "--to", str(script), *USUAL], obj={})
    assert done.exit_code != 0 and script.read_text() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "3-0"], "no list of seeds"),
        (["--run", ""], "no name for a run"),
        (["--partition", "h1 00; rm"], "no name of a partition"),
        (["--", "--nonsense", "4"], "no such option"),
        (["--", "--until", "nosuch"], "is not one of"),
        (["--", "--run", "other"], "the script gives --run itself"),
        (["--", "--budget-hours=99"], "the script gives --budget-hours itself"),
    ],
)
def test_what_could_not_work_in_a_job_is_refused_now(tmp_path, words, said):
    target = tmp_path / "job.sh"
    asked = ["slurm", "--partition", "h100", "--to", str(target), *words]
    result = CliRunner().invoke(cli, asked)
    assert said in f"{result.output} {result.exception}".lower() and result.exit_code != 0
    assert not target.exists()


def test_names_with_spaces_and_arrays_of_seeds_are_told_as_they_have_to_be_typed(tmp_path):
    asked = ["slurm", "--partition", "h100", "--to", str(tmp_path / "a job.sh")]
    result = CliRunner().invoke(cli, [*asked, "--run", "my run", "--seeds", "4-6"])
    assert f"sbatch '{tmp_path}/a job.sh'" in result.output
    assert "status --run 'my run-4' --watch" in result.output
    assert "#SBATCH --job-name=localism-my-run\n" in (tmp_path / "a job.sh").read_text()
