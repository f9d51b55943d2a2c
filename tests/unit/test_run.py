"""A run: frozen recipe, one worker at a time, stages in order, fork, status."""

import importlib.metadata
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from localism import forking, reader, recipe, run, status
from localism.cli.main import cli
from localism.doctor import machine
from localism.doctor.findings import Finding
from localism.errors import ConfigError, MachineError, StageError, UsageError
from localism.progress import Progress
from localism.prompting.packs import packaged
from localism.records import STAGES

TEXT = packaged("models.toml").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.toml").write_text(TEXT)
    return tmp_path / "runs" / "first"


def work(folder, models=None, overrides=()):
    """What a call asks for, if it may."""
    return recipe.settle_recipe(folder, models, overrides)


def begun(folder, models=None, overrides=()):
    """The same, by a call that then did nothing."""
    asked = work(folder, models, overrides)
    with run.opened(folder, asked, Progress(plain=True)):
        return asked.config


def add_turn(store, turn_id="t1"):
    store.add(
        "turn",
        turn_id=turn_id,
        parent_id=None,
        stage="extract",
        role="teacher",
        template="topics",
        prompt="p",
        prompt_hash="h",
        model_fingerprint="f",
        sampling="{}",
        sample=0,
        text="x",
        logprobs=None,
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=1,
        seconds=0.1,
        finished_at=run.now(),
    )


def test_a_run_without_models_toml_takes_the_embedded_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert work(tmp_path / "runs" / "x").config.is_rehearsal()


def test_the_same_call_again_is_the_same_recipe(folder):
    first = begun(folder, None, ["train.epochs=3"])
    assert begun(folder) == begun(folder, None, ["train.epochs=3"]) == first


def went_through(folder, *stages):
    """The run with these stages done, as far as its events say."""
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        for stage in stages:
            context.store.event("stage_started", stage)
            context.store.event("stage_finished", stage, summary=f"{stage} done")


def test_a_changed_override_is_refused_with_the_way_out(folder):
    went_through(folder, "train")
    with pytest.raises(UsageError) as caught:
        work(folder, None, ["train.epochs=3"])
    assert "train.epochs (8 -> 3)" in caught.value.problem
    assert "localism fork first NEW" in caught.value.fix


def test_the_section_of_a_stage_may_change_until_that_stage_starts(folder):
    went_through(folder, "extract", "cluster")
    assert begun(folder, None, ["mix.k=3", "train.epochs=3"]).mix.k == 3
    for override in (
        "extract.topics=9",
        "cluster.min_cluster_size=3",
        "seed=4",
        "student.temperature=0.5",
    ):
        with pytest.raises(UsageError, match="another recipe"):
            work(folder, None, [override])
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        (row,) = context.store.query("FROM run")
        assert json.loads(row["recipe"])["mix"]["k"] == 3
        changed = context.store.value("SELECT detail FROM event WHERE kind = 'recipe_changed'")
        assert json.loads(changed)["keys"] == {"mix.k": [2, 3], "train.epochs": [8, 3]}
        assert run.finished_stages(context.store).keys() == {"extract", "cluster"}


def test_a_stage_that_stopped_at_its_own_section_leaves_it_free(folder):
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        context.store.event("stage_started", "extract")
    assert begun(folder, None, ["extract.topics=9"]).extract.topics == 9
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        context.store.add("topic", topic_id="t", name="t", ordinal=0)
    with pytest.raises(UsageError, match="extract.topics"):
        work(folder, None, ["extract.topics=8"])


def test_a_fork_of_edited_skills_says_that_the_file_has_to_come_again(folder):
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        context.store.event("skills_imported", "extract")
    assert "localism skills import" in forking.fork("first", "second", None, [])[1]


def test_asking_for_more_mixes_opens_the_stages_from_mix_on_again(folder):
    went_through(folder, *STAGES[:5])
    more = work(folder, None, ["mix.train=400"])
    with run.opened(folder, more, Progress(plain=True)) as context:
        assert run.finished_stages(context.store).keys() == {"extract", "cluster"}
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        events = context.store.query("FROM event WHERE kind = 'stage_reopened'")
        assert [row["stage"] for row in events] == ["mix", "generate", "curate"]
    states = {row["stage"]: row["state"] for row in status.facts(folder, STAGES)["stages"]}
    assert states["cluster"] == "done" and states["mix"] == "to do"


@pytest.mark.parametrize(("stages", "train"), [(5, 300), (6, 400)])
def test_mixes_are_neither_taken_back_nor_added_to_what_was_trained_on(folder, stages, train):
    went_through(folder, *STAGES[:stages])
    with pytest.raises(UsageError, match="mix.train"):
        work(folder, None, [f"mix.train={train}"])


def test_an_edited_models_toml_is_noticed(folder, tmp_path):
    went_through(folder, "extract")
    (tmp_path / "models.toml").write_text(TEXT.replace("seed = 0", "seed = 1"))
    with pytest.raises(UsageError, match="seed"):
        work(folder)


def test_speed_may_change_and_is_kept(folder):
    went_through(folder, "extract")
    assert begun(folder, None, ["teacher.max_num_seqs=32"]).teacher.max_num_seqs == 32
    assert begun(folder).teacher.max_num_seqs == 32


def test_a_run_goes_on_without_the_file_that_it_was_started_with(folder, tmp_path):
    first = begun(folder)
    (tmp_path / "models.toml").unlink()
    assert begun(folder) == first


def test_a_swapped_model_is_refused(folder, tmp_path):
    import shutil

    from localism.paths import embedded

    shutil.copytree(embedded("embedded:teacher"), tmp_path / "teacher")
    overrides = [f"teacher.path={tmp_path}/teacher"]
    asked = work(folder, None, overrides)
    with run.opened(folder, asked, Progress(plain=True)) as context:
        add_turn(context.store)
    tokenizer = tmp_path / "teacher" / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    with pytest.raises(ConfigError, match="not what this run"):
        with run.opened(folder, asked, Progress(plain=True)):
            pass


def test_a_second_worker_is_refused_with_the_first_one_s_process_id(folder):
    begun(folder)
    asked = work(folder)
    script = (
        "import sys; from pathlib import Path; from localism import lock\n"
        "with lock.held(Path(sys.argv[1]), print):\n print('in', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    try:
        with pytest.raises(UsageError, match=f"process {child.pid}"):
            with run.opened(folder, asked, Progress(plain=True)):
                pass
    finally:
        child.communicate()
    with run.opened(folder, asked, Progress(plain=True)):
        pass


def test_a_stage_whose_predecessor_is_missing_names_it(folder):
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        with pytest.raises(StageError, match="needs stage extract"):
            run.run_stages(context, ["mix"])


def test_a_batch_that_the_gpus_cannot_share_is_refused_before_the_first_stage(folder, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.13.0+cu130")  # torch for GPUs
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        with pytest.raises(ConfigError, match="over 3 devices x 16"):
            run.run_stages(context, STAGES)
        assert context.store.value("SELECT count(*) FROM event WHERE stage = 'extract'") == 0


def test_done_stages_are_skipped(folder):
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        for stage in run.STAGES:
            context.store.event("stage_finished", stage, summary=f"{stage} was done")
        (folder / "report.html").touch()
        outcome = run.run_stages(context, run.STAGES)
    assert outcome.worked == ()
    facts = status.facts(folder, run.STAGES)
    assert {row["state"] for row in facts["stages"]} == {"done"}
    assert "train was done" in status.render(facts)


def test_a_finished_run_whose_books_do_not_balance_is_refused(folder):
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        for stage in run.STAGES:
            context.store.event("stage_finished", stage, summary="done")
        (folder / "report.html").touch()
        run.run_stages(context, run.STAGES)
        context.store.add("mix", mix_id="m", ordinal=0, k=2, query_type_id=None, split="train")
        with pytest.raises(StageError, match="books of generate do not balance: 1 planned, 0 acc"):
            run.run_stages(context, run.STAGES)


def test_fork_carries_the_ledger_and_takes_the_new_recipe(folder):
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        add_turn(context.store)
    assert forking.fork("first", "second", None, ["train.epochs=3"])[0] == 1
    forked = folder.parent / "second"
    assert reader.read(forked, "SELECT turn_id FROM turn").rows == [["t1"]]
    assert json.loads((forked / run.RECIPE).read_text())["config"]["train"]["epochs"] == 3
    assert work(forked).config.train.epochs == 3
    with pytest.raises(UsageError, match="exists already"):
        forking.fork("first", "second", None, [])


def test_calls_of_the_parent_are_no_tokens_of_a_fork(folder):
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        add_turn(context.store)
    forking.fork("first", "second", None, [])
    forked = folder.parent / "second"
    facts = status.facts(forked, run.STAGES)
    assert facts["tokens"] == []
    assert facts["carried_over"] == [{"parent": "first", "calls": 1}]
    assert "1 model call carried over from run first" in status.render(facts)
    with run.opened(forked, work(forked), Progress(plain=True)) as context:
        add_turn(context.store, "t2")
        assert [row["calls"] for row in context.store.query("FROM tokens")] == [1]
        assert context.store.value("SELECT count(*) FROM turn") == 2
    facts = status.facts(folder, run.STAGES)
    assert [row["calls"] for row in facts["tokens"]] == [1] and not facts["carried_over"]
    assert "carried over" not in status.render(facts)


def test_a_fresh_fork_may_still_change_what_its_parent_had_made_something_by(folder):
    with run.opened(folder, work(folder), Progress(plain=True)) as context:
        add_turn(context.store)
    with pytest.raises(UsageError, match="another recipe"):
        work(folder, None, ["extract.topics=9"])
    forking.fork("first", "second", None, [])
    assert begun(folder.parent / "second", None, ["extract.topics=9"]).extract.topics == 9


@pytest.mark.parametrize("text", [
    "{", "[]", '{"models": "models.toml"}',
    '{"models": "x", "overrides": [], "config": []}',
    '{"models": 3, "overrides": [], "config": {}}',
])  # fmt: skip
def test_a_damaged_recipe_is_named(folder, text):
    begun(folder)
    (folder / run.RECIPE).write_text(text)
    with pytest.raises(ConfigError, match="recipe") as refused:
        work(folder)
    assert run.RECIPE in refused.value.where


def test_an_unknown_run_lists_the_known_ones(folder):
    begun(folder)
    with pytest.raises(UsageError) as caught:
        run.existing_folder("frist")
    assert "first" in caught.value.fix


def test_of_two_that_start_a_run_at_once_the_first_recipe_holds(folder):
    late = work(folder, None, ["seed=4"])
    went_through(folder, "extract")
    with pytest.raises(UsageError, match="seed"):
        with run.opened(folder, late, Progress(plain=True)):
            pass
    assert work(folder).config.seed == 0


# ---- settings that are refused -------------------------------------------------------------


def snapshot(folder):
    """All that a run keeps of its recipe."""
    events = "SELECT kind, stage FROM event WHERE kind IN ('recipe_changed', 'stage_reopened')"
    kept = reader.read(folder, "SELECT recipe, recipe_hash FROM run").rows
    return (folder / run.RECIPE).read_text(), kept, reader.read(folder, events).rows


def refused(folder, *overrides, meanwhile=lambda store: None):
    """A call with these settings that fails where an engine does not start; its error."""
    with pytest.raises(StageError) as caught:
        with run.opened(folder, work(folder, None, overrides), Progress(plain=True)) as context:
            context.store.event("engine_failed", "extract")
            meanwhile(context.store)
            raise StageError("no start", where="log", fix="lower it")
    return caught.value


@pytest.mark.parametrize("setting", ["mix.train=400", "teacher.max_num_seqs=32", "train.epochs=3"])
def test_what_a_call_set_is_forgotten_when_it_fails_before_it_made_anything(folder, setting):
    went_through(folder, *STAGES[:5])
    before = snapshot(folder)
    error = refused(folder, setting)
    assert snapshot(folder) == before
    assert f"nothing was made with --set {setting}" in error.fix


def test_a_new_run_that_fails_keeps_its_models_toml_and_forgets_what_was_set(folder):
    refused(folder, "seed=4", "teacher.max_model_len=700")
    kept = json.loads((folder / run.RECIPE).read_text())
    assert kept["overrides"] == [] and kept["config"]["seed"] == 0
    assert begun(folder, None, ["seed=5"]).seed == 5  # nothing was made, so nothing is frozen


def test_a_models_toml_that_cannot_be_used_alone_leaves_no_recipe(folder, tmp_path):
    path = 'path = "embedded:teacher"'
    assert path in TEXT
    (tmp_path / "models.toml").write_text(TEXT.replace(path, "", 1))
    refused(folder, "teacher.path=embedded:teacher", "teacher.max_model_len=700")
    assert not (folder / run.RECIPE).exists()
    assert not begun(folder, None, ["teacher.path=embedded:teacher"]).teacher.max_model_len == 700


def test_what_a_call_set_stays_when_it_made_something_before_it_failed(folder):
    error = refused(folder, "extract.topics=9", meanwhile=add_turn)
    assert "nothing was made" not in error.fix
    assert work(folder).config.extract.topics == 9


def test_a_failure_without_settings_says_nothing_of_them(folder):
    begun(folder, None, ["seed=4"])
    assert refused(folder).fix == "lower it"
    assert work(folder).config.seed == 4


@pytest.mark.parametrize("name", ["faulty", "new"])
def test_a_setting_that_the_doctor_refuses_leaves_no_trace(folder, name, monkeypatch):
    begun(folder.parent / "faulty")
    before = snapshot(folder.parent / "faulty")
    monkeypatch.setattr(machine, "check", lambda *_: [Finding("fail", "memory", "none", "buy")])
    words = ["run-all", "--run", name, "--plain", "--set", "teacher.max_num_seqs=32"]
    done = CliRunner().invoke(cli, words, obj={})
    assert isinstance(done.exception, MachineError)
    assert snapshot(folder.parent / "faulty") == before
    assert not (folder.parent / "new").exists()


def test_a_mended_input_is_welcome_before_anything_was_made_of_it(folder, tmp_path):
    (tmp_path / "seeds.jsonl").write_text('{"instruction": "one"}\n')
    asked = work(folder, None, [f'extract.seeds=["{tmp_path}/seeds.jsonl"]'])
    for text in ('{"instruction": "one"}\n', '{"instruction": "two"}\n'):
        (tmp_path / "seeds.jsonl").write_text(text)
        with run.opened(folder, asked, Progress(plain=True)):
            pass


@pytest.mark.parametrize("name", ["", ".", "..", " "])
def test_a_run_needs_a_name(name):
    with pytest.raises(UsageError, match="no name"):
        run.folder_of(name)
