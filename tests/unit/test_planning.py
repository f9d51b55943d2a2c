"""Plans: what is counted from a recipe, scaled from a run, and assumed; no model is asked."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from localism import reader, tables
from localism.cli.main import cli
from localism.errors import UsageError
from localism.gpus import Gpus
from localism.models_toml import load
from localism.planning import disk, hardware, noted, predict, seen, text, work
from localism.planning.hardware import Machine
from localism.power import Power
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


def test_an_engines_start_is_as_long_for_a_plan_ten_times_as_large(tmp_path):
    folder = a_run(tmp_path / "small", "mix.train=100", "mix.dev=2", "mix.test=2", seconds=100)
    with Store(folder / reader.CORPUS) as store:
        # It died once: both starts are in the 100 seconds, and a plan counts one.
        for number, seconds in enumerate((35.0, 25.0)):
            detail = json.dumps({"role": "teacher", "seconds": seconds})
            store.add(
                "event", event_id=f"start {number}", happened_at=now(), stage="generate",
                kind="engine_started", detail=detail,
            )  # fmt: skip
    like = seen.look(folder)
    config = config_of("mix.train=1036", "mix.dev=2", "mix.test=2")
    found = row(predict.rows(config, CPU, None, like), "generate")
    assert found.hours * 3600 == pytest.approx(10 * (100 - 60) + 30, rel=0.02)


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


def test_watts_are_given_or_measured_or_assumed_and_say_so():
    assert CPU.watts(90.0, None) == Power(90.0, "as given by --watts")
    assert H100.watts(None, None) == Power(8 * hardware.GPU_WATTS, "assumed, 700 W a GPU")
    measured = trial(power={"watts": 3100.0, "source": "all GPUs of this machine, by nvidia-smi"})
    assert H100.watts(None, measured).watts == 3100.0
    assert H100.watts(None, measured).source.startswith("in the trial: all GPUs")
    unread = trial(power={"watts": None, "source": "nothing could be read"})
    assert H100.watts(None, unread).source.startswith("assumed")


def trial(config=None, **changed) -> seen.Calibrated:
    """200 tokens and 3 calls an example, at 1,000 tokens a second."""
    facts = {
        "trial": {"engine_start_seconds": 30.0},
        "tokens_per_second": 1000.0,
        "each": {"completion_tokens": 200.0, "prompt_tokens": 400.0, "seconds": 8.0},
        "calls_each": 3.0,
        "left": {"seconds": [100.0, 90.0, 120.0]},
        "power": {"watts": None, "source": "nothing"},
    }
    found = seen.calibrated(config or config_of(), facts | changed)
    assert found is not None
    return found


def test_a_trial_predicts_generate_at_its_rate_with_its_interval():
    found = row(predict.rows(config_of(), CPU, None, None, trial()), "generate")
    assert found.hours == pytest.approx((460 * 200 / 1000 + 4 + 30) / 3600)
    assert found.low_hours == pytest.approx((96 * 0.9 + 30) / 3600)
    assert found.high_hours == pytest.approx((96 * 1.2 + 30) / 3600)
    assert (found.calls, found.output_tokens) == (1380, 92_000)
    assert found.basis == "calibrated"


def test_other_stages_go_at_the_pace_of_the_trial():
    once = trial()
    slower = trial(tokens_per_second=500.0)
    for stage in ("extract", "curate", "pick", "evaluate"):
        quick, slow = (
            row(predict.rows(config_of(), CPU, None, None, one), stage) for one in (once, slower)
        )
        starts = 60 if stage in ("pick", "evaluate") else 30
        assert slow.hours * 3600 - starts == pytest.approx(2 * (quick.hours * 3600 - starts))
        assert quick.basis == "calibrated, by parameters"
    assert row(predict.rows(config_of(), CPU, None, None, once), "train").basis == "assumed"


def test_an_earlier_run_counts_before_its_own_trial_and_after_one_of_this_run(tmp_path):
    folder = a_run(tmp_path / "tried")
    with Store(folder / reader.CORPUS) as store:
        store.event(
            "calibrated", "generate", trial={"engine_start_seconds": 0.0}, tokens_per_second=10.0,
            each={"completion_tokens": 200.0, "prompt_tokens": 400.0, "seconds": 8.0},
            each_turn={"draft": 100.0, "critique": 20.0, "refine": 80.0},
            left={"seconds": [100.0, 90.0, 120.0]}, power={"watts": 70.0, "source": "RAPL"},
        )  # fmt: skip
    like = seen.look(folder)
    assert like.calibrated and like.calibrated.calls == 3
    assert row(predict.rows(config_of(), CPU, None, like), "generate").basis == "run tried"
    ours = row(predict.rows(config_of(), CPU, None, like, trial()), "generate")
    assert ours.basis == "calibrated"
    extract = row(predict.rows(config_of(), CPU, None, like), "extract")
    assert extract.basis == "calibrated, by parameters"  # never finished there


def test_a_model_behind_endpoints_has_no_size_and_so_no_assumed_time():
    endpoints = {"path": "", "endpoints": ("http://127.0.0.1:1/v1",)}
    config = config_of()
    config = config.model_copy(update={"teacher": config.teacher.model_copy(update=endpoints)})
    rows = list(predict.rows(config, CPU, None, None))
    found = text.facts(config, CPU, rows, None, Power(10.0, "given"), None)
    assert found["unknown"] == ["extract", "generate", "curate"]
    assert row(rows, "generate").hours is None and found["hours"] > 0
    assert "not counted" in text.render(found)
    # What one of its stages took says what the others take.
    tried = list(predict.rows(config, CPU, None, None, trial(config)))
    assert row(tried, "extract").hours > 0 and row(tried, "pick").hours is not None


def test_a_budget_says_how_far_it_goes():
    rows = list(predict.rows(config_of(), CPU, None, None))
    first, second = rows[0].hours, rows[1].hours
    found = text.facts(config_of(), CPU, rows, None, Power(None, ""), first + second / 4)["budget"]
    assert found["stage"] == "generate" and found["share"] == pytest.approx(0.25)
    assert found["hours_left"] == pytest.approx(sum(r.hours for r in rows[1:]) - second / 4)
    enough = text.facts(config_of(), CPU, rows, None, Power(None, ""), 1000.0)["budget"]
    assert enough["stage"] is None and enough["hours_left"] == 0


def test_energy_is_legible_whether_small_or_large():
    rows = list(predict.rows(config_of(), CPU, None, None))
    small = text.render(text.facts(config_of(), CPU, rows, None, Power(16.0, "given"), 1.0))
    large = text.render(text.facts(config_of(), CPU, rows, None, Power(9e6, "given"), None))
    assert " 0.0021 kWh at 16 W (given)" in " ".join(small.split())
    assert "1.0 h from here reach the end" in small
    assert re.search(r" 1,\d{3} kWh at 9,000,000 W \(given\)", " ".join(large.split()))


def test_a_plan_is_noted_before_the_run_and_compared_after_it(tmp_path, new_context):
    context = new_context(config_of(), "noted")
    noted.note(context)
    assert noted.check(context) == ""
    for stage in ("extract", "generate"):
        context.store.event("stage_started", stage)
        context.store.event("stage_finished", stage, summary="done")
    noted.note(context)  # a later call plans what is left, and changes nothing of what was said
    line = noted.check(context)
    assert "extract" in line and "generate" in line and "assumed" in line and "pick" not in line
    details = context.store.query(
        "SELECT detail FROM event WHERE kind = 'planned' ORDER BY happened_at"
    )
    planned = [[one["stage"] for one in json.loads(d["detail"])["stages"]] for d in details]
    assert planned == [list(work.UNITS), ["curate", "train", "pick", "evaluate"]]
    own = seen.gather(context.folder, context.config, context.store.query)
    shown = row(predict.rows(context.config, CPU, own, None), "generate")
    assert shown.basis == "done" and shown.predicted_basis == "assumed"
    seconds = json.loads(details[0]["detail"])["stages"][1]["seconds"]
    assert shown.predicted_hours == pytest.approx(seconds / 3600)


def test_a_stage_that_was_opened_again_is_compared_with_nothing(tmp_path, new_context):
    context = new_context(config_of(), "again")
    noted.note(context)
    context.store.event("stage_started", "generate")
    context.store.event("stage_finished", "generate", summary="done")
    context.store.event("stage_reopened", "generate")
    assert noted.check(context) == ""


def test_how_the_engines_lie_on_the_gpus_is_told():
    said = hardware.engines(config_of(), H100)
    assert list(said) == ["teacher", "student"], "the teacher judges"
    assert said["teacher"].startswith("tensor parallel 1, data parallel 8 (one GPU has room:")
    assert "60 conversations fill no more copies" in said["student"]
    assert "weights 12.5 MB of the 74.1 GB usable" in said["teacher"], "and not 0.0 GB"
    found = text.facts(config_of(), H100, [], None, Power(10.0, "given"), None)
    assert f"teacher: {said['teacher'][:40]}" in " ".join(text.render(found).split())
    assert hardware.engines(config_of(), CPU) == {}


def test_all_checkpoints_lie_on_the_disk_until_one_is_picked():
    every = disk.needed(config_of("train.epochs=15"), CPU.gpus)
    best = disk.needed(config_of("train.epochs=15", 'train.keep="best"'), CPU.gpus)
    one = 4 * 2_230_464  # float32, as the miniature's student is served
    assert every.checkpoints == best.checkpoints == 15 * one and best.most == every.most
    assert (every.kept, best.kept) == (15 * one, one)
    assert every.states == 2 * 8 * 2_230_464, "AdamW's two, of two checkpoints"
    assert disk.needed(config_of(), H100.gpus).states == 2 * 12 * 2_230_464, "sharded"
    assert disk.needed(config_of("train.epochs=1"), CPU.gpus).states == 8 * 2_230_464
    lora = disk.needed(config_of("train.method=lora"), CPU.gpus)
    assert lora.states == 0 and lora.exports > one


@pytest.mark.parametrize("overrides", [(), ("train.epochs=30", "mix.train=4000")])
def test_the_doctor_and_the_plan_say_the_same_of_the_disk(tmp_path, monkeypatch, overrides):
    monkeypatch.chdir(tmp_path)
    asked = [word for override in overrides for word in ("--set", override)]
    plan = json.loads(CliRunner().invoke(cli, ["plan", *asked, "--json"], obj={}).output)
    found = json.loads(CliRunner().invoke(cli, ["doctor", *asked, "--json"], obj={}).output)
    (said,) = [one["found"] for one in found["findings"] if one["check"] == "disk"]
    assert said.startswith(f"{tables.gigabytes(plan['disk_bytes'])} at most: ")
    for part in ("checkpoints", "states", "corpus", "exports"):
        assert f" {tables.gigabytes(plan['disk'][part])}" in said


def test_an_earlier_run_says_what_a_call_takes_in_the_corpus(tmp_path):
    like = seen.look(a_run(tmp_path / "r"))
    found = disk.needed(config_of(), CPU.gpus, 1000, like)
    assert found.corpus == 1000 * like.corpus_bytes / like.calls and like.calls == 3 * 460


def test_the_command_needs_no_run_and_begins_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["plan"], obj={})
    assert done.exit_code == 0, done.output
    assert "W a core" in done.output
    assert "assumed" in done.output and "factor of three" in " ".join(done.output.split())
    facts = json.loads(CliRunner().invoke(cli, ["plan", "--watts", "100", "--json"], obj={}).output)
    assert facts["kwh"] == pytest.approx(facts["hours"] / 10)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_corpus_teaches_nothing(tmp_path):
    with pytest.raises(UsageError, match="nothing to learn from"):
        seen.look(tmp_path)
