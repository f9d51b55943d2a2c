"""Plans: what is counted from a recipe, scaled from a run, and assumed; no model is asked."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from localism import reader
from localism.cli.main import cli
from localism.errors import UsageError
from localism.gpus import Gpus
from localism.models_toml import load
from localism.planning import predict, seen, work
from localism.planning.predict import Machine
from localism.prompting.packs import packaged
from localism.recipe import write_recipe
from localism.store import Store, now

CPU = Machine(Gpus(0, None), 2)
H100 = Machine(Gpus(8, 80 * 2**30), 64)


def config_of(*overrides: str):
    return load(packaged("models.toml"), overrides)


def a_run(folder: Path, *overrides: str, seconds: float = 100.0, idle: float = 0.0) -> Path:
    """A run whose generate took so long and wrote 50 tokens in each of 3 calls an example."""
    folder.mkdir(parents=True)
    config = config_of(*overrides)
    write_recipe(folder, packaged("models.toml"), overrides, config)
    calls = 3 * work.units(config)["generate"]
    began = now()
    with Store(folder / reader.CORPUS) as store:
        events = [("stage_started", 0.0), ("stage_finished", seconds + idle)]
        for kind, after in events:
            store.add(
                "event", event_id=kind, happened_at=began + timedelta(seconds=after),
                stage="generate", kind=kind, detail="{}",
            )  # fmt: skip
        for number in range(calls):
            share = seconds * (number + 1) / calls
            after = share if share < seconds / 2 else share + idle
            store.add(
                "turn", turn_id=str(number), parent_id=None, stage="generate", role="teacher",
                template="draft", prompt="p", prompt_hash="h", model_fingerprint="f", sampling="{}",
                sample=0, text="t", logprobs=None, finish_reason="stop", prompt_tokens=20,
                completion_tokens=50, seconds=1.0, finished_at=began + timedelta(seconds=after),
            )  # fmt: skip
    return folder


def row(rows, stage: str):
    return next(one for one in rows if one.stage == stage)


def test_work_is_counted_from_the_recipe():
    counted = work.units(config_of())
    assert counted == {
        "extract": 24 * 10 + 320,
        "generate": 360 + 40 + 60,
        "curate": 460,
        "train": 360 * 8,
        "pick": 40 * 8,
        "evaluate": 120,
    }


def test_a_run_ten_times_as_large_takes_ten_times_as_long(tmp_path):
    like = seen.look(a_run(tmp_path / "small", "mix.train=100", "mix.dev=2", "mix.test=2"))
    config = config_of("mix.train=1036", "mix.dev=2", "mix.test=2")
    found = row(predict.rows(config, CPU, None, like), "generate")
    assert found.units == 10 * 104
    assert found.hours == pytest.approx(1000 / 3600, rel=0.02)
    assert found.output_tokens == 50 * 3 * 1040
    assert found.basis == "run small"


def test_hours_in_which_nobody_worked_do_not_count(tmp_path):
    busy = seen.look(a_run(tmp_path / "busy", "mix.train=50")).took["generate"].seconds
    paused = seen.look(a_run(tmp_path / "paused", "mix.train=50", idle=7200)).took["generate"]
    assert paused.seconds == pytest.approx(busy, rel=0.05)


def test_what_came_after_the_end_of_a_stage_is_not_its_own(tmp_path):
    folder = a_run(tmp_path / "r")
    before = seen.look(folder).took["generate"]
    with Store(folder / reader.CORPUS) as store:
        store.add(
            "event", event_id="later", happened_at=now() + timedelta(seconds=400), stage="generate",
            kind="note", detail="{}",
        )  # fmt: skip
    assert seen.look(folder).took["generate"] == before


def test_a_larger_teacher_takes_longer_by_its_parameters(tmp_path):
    like = seen.look(a_run(tmp_path / "r"))
    same = row(predict.rows(config_of(), CPU, None, like), "generate")
    config = config_of()
    student = config.teacher.model_copy(update={"path": "embedded:student"})
    other = config.model_copy(update={"teacher": student})
    found = row(predict.rows(other, CPU, None, like), "generate")
    assert found.hours / same.hours == pytest.approx(2_230_464 / 3_115_968, rel=1e-6)
    assert "by parameters" in found.basis


def test_what_is_done_shows_what_it_took_and_what_would_have_been_predicted(tmp_path):
    own = seen.look(a_run(tmp_path / "own", seconds=360))
    found = row(predict.rows(config_of(), CPU, own, None), "generate")
    assert found.basis == "done" and found.hours == pytest.approx(0.1, rel=0.01)
    assert found.predicted_hours and found.predicted_hours > 0
    assert row(predict.rows(config_of(), CPU, own, None), "train").basis == "assumed"


def test_gpus_that_a_stage_keeps_busy_are_counted():
    config = config_of()
    teacher = config.teacher.model_copy(update={"tensor_parallel": 2, "data_parallel": 2})
    config = config.model_copy(update={"teacher": teacher})
    rows = list(predict.rows(config, H100, None, None))
    generate, train = row(rows, "generate"), row(rows, "train")
    assert generate.gpu_hours == pytest.approx(4 * generate.hours)
    # 40 dev prompts for each checkpoint fill no more than one copy of the student.
    pick = row(rows, "pick")
    assert pick.gpu_hours == pytest.approx(pick.hours)
    assert train.gpu_hours == pytest.approx(8 * train.hours)
    assert predict.watts(H100, None) == 8 * predict.GPU_WATTS
    assert predict.watts(CPU, None) is None and predict.watts(CPU, 90.0) == 90.0


def test_disk_grows_with_checkpoints_and_shrinks_with_keep():
    every = predict.disk_bytes(config_of("train.epochs=15"), 0, None)
    best = predict.disk_bytes(config_of("train.epochs=15", 'train.keep="best"'), 0, None)
    assert every > 2 * best > 0


def test_the_command_needs_no_run_and_begins_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["plan"], obj={})
    assert done.exit_code == 0, done.output
    assert "assumed" in done.output and "factor of three" in " ".join(done.output.split())
    facts = json.loads(CliRunner().invoke(cli, ["plan", "--watts", "100", "--json"], obj={}).output)
    assert facts["kwh"] == pytest.approx(facts["hours"] / 10)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_corpus_teaches_nothing(tmp_path):
    with pytest.raises(UsageError, match="nothing to learn from"):
        seen.look(tmp_path)
