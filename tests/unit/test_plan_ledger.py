"""Plans of runs whose ledger has calls already: forks, and stages that go on; no model is asked."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_planning import CPU, a_run, config_of, row

from localism import assets, forking, reader
from localism.cli.main import cli
from localism.errors import UsageError
from localism.planning import noted, predict, seen
from localism.recipe import asked_recipe
from localism.store import Store

SMALL = ("mix.train=36", "mix.dev=4", "mix.test=6")
PAID = 3 * 46  # three calls for each example


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run `first`, which has finished generate; one call is another stage's."""
    folder = a_run(tmp_path_factory.mktemp("runs") / "first", *SMALL)
    with Store(folder / reader.CORPUS) as store:
        assets.record(store, config_of(*SMALL))
        one = store.query("SELECT * FROM turn LIMIT 1")[0]
        store.add("turn", **one | {"turn_id": "of pick", "stage": "pick"})
    return folder


@pytest.fixture
def parent(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of its own for each test."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished, tmp_path / "runs/first"))


def planned(*overrides: str, like: seen.Seen | None = None, stage: str = "generate"):
    """The row of a stage of run `second`, a fork of `first` with another recipe."""
    folder = Path("runs/second")
    forking.fork("first", "second", None, overrides)
    config = asked_recipe(folder, None, ()).config
    return row(predict.rows(config, CPU, seen.look(folder), like), stage)


def test_a_fork_pays_for_no_call_of_a_stage_before_the_first_change(parent):
    found = planned("train.epochs=3")
    assert (found.calls, found.output_tokens, found.in_ledger) == (0, 0, PAID)
    assert found.hours * 3600 == pytest.approx(PAID * predict.LOOK_UP_SECONDS)
    assert found.basis == "the ledger"


def test_a_longer_plan_pays_for_what_it_has_more(parent):
    like = seen.look(parent)
    found = planned("mix.train=72", like=like)
    assert (found.calls, found.in_ledger) == (3 * 36, PAID)
    seconds = 100 * 36 / 46 + PAID * predict.LOOK_UP_SECONDS
    assert found.hours * 3600 == pytest.approx(seconds, rel=0.02)
    assert found.basis == "run first"


def test_a_run_that_is_made_longer_pays_for_what_it_has_more_and_is_not_done(parent):
    config = config_of("mix.train=72", "mix.dev=4", "mix.test=6")
    found = row(predict.rows(config, CPU, seen.look(parent), seen.look(parent)), "generate")
    assert (found.calls, found.in_ledger, found.basis) == (3 * 36, PAID, "run first")
    assert found.predicted_hours is None


def test_a_plan_of_a_run_refuses_what_the_run_would_and_says_how_to_fork(parent):
    refused = CliRunner().invoke(cli, ["plan", "--run", "first", "--set", "seed=1"]).exception
    assert isinstance(refused, UsageError)
    assert "seed (0 -> 1) would change" in refused.problem
    assert "against --set seed=1: seed" in str(refused.where)
    assert "`localism fork first NEW --set seed=1`" in refused.fix


def test_a_shorter_plan_asks_for_a_part_of_them(parent):
    found = planned("mix.train=13")
    assert (found.calls, found.in_ledger) == (0, PAID / 2)


@pytest.mark.parametrize(
    ("override", "unless"),
    [
        ("mix.k=3", "mix.k is not as in run first"),
        ("seed=1", "seed is not as in run first"),
        ("teacher.path=embedded:student", "[teacher] is not as in run first"),
        ("prompts.pack=lean", "prompts.pack, [prompts] are not as in run first"),
    ],
)
def test_calls_behind_a_change_are_named_and_not_counted_on(parent, override, unless):
    if override.startswith("prompts"):
        found = planned(override, "teacher.max_model_len=8192", "teacher.engine_arguments=['-x']")
        unless = "prompts.pack, teacher.engine_arguments, teacher.max_model_len, [prompts] are"
        assert found.unless.startswith(unless)
    else:
        found = planned(override)
        assert found.unless == unless
    assert (found.in_ledger, found.perhaps_in_ledger) == (0, PAID)
    assert found.basis == "assumed" and found.calls >= PAID


def test_calls_about_checkpoints_are_not_counted_on(parent):
    found = planned("evaluate.verdict_tokens=99", stage="pick")
    assert (found.in_ledger, found.perhaps_in_ledger) == (0, 1)
    assert "checkpoints" in found.unless and found.calls > 0


def test_a_stage_that_goes_on_asks_for_the_rest(parent):
    with Store(parent / reader.CORPUS) as store:
        store.execute("DELETE FROM event WHERE kind = 'stage_finished'")
        store.execute("DELETE FROM turn WHERE stage = 'generate' AND rowid % 2 = 0")
        left = store.value("SELECT count(*) FROM turn WHERE stage = 'generate'")
    found = row(predict.rows(config_of(*SMALL), CPU, seen.look(parent), None), "generate")
    assert (found.calls + left, found.in_ledger) == (pytest.approx(PAID), left)
    # What a fork of it brings is known to be a part, and the rest is counted.
    again = planned("train.epochs=3")
    assert (again.calls, again.in_ledger) == (pytest.approx(found.calls), left)


def test_a_stage_that_was_opened_again_is_not_done(parent):
    with Store(parent / reader.CORPUS) as store:
        store.event("stage_reopened", "generate")
    found = row(
        predict.rows(config_of("mix.train=72", *SMALL[1:]), CPU, seen.look(parent), None),
        "generate",
    )
    assert (found.calls, found.in_ledger) == (3 * 36, PAID)


def test_a_fork_that_found_its_answers_in_the_ledger_is_no_measure_for_others(parent):
    planned("train.epochs=3")
    forked = Path("runs/second")
    with Store(forked / reader.CORPUS) as store:
        store.event("stage_started", "generate")
        store.event("stage_finished", "generate", summary="")
    like = seen.look(forked)
    assert like.took["generate"].calls == 0
    found = row(predict.rows(config_of(*SMALL), CPU, None, like), "generate")
    assert found.basis == "assumed" and found.calls == PAID


def test_of_a_fork_that_notes_nothing_of_its_parent_none_is_counted_on(parent):
    forking.fork("first", "second", None, ())
    with Store(Path("runs/second") / reader.CORPUS) as store:
        detail = json.dumps({"parent": "first", "turns": PAID})
        store.execute("UPDATE event SET detail = ? WHERE kind = 'forked'", [detail])
    own = seen.look(Path("runs/second"))
    found = row(predict.rows(config_of(*SMALL), CPU, own, None), "generate")
    assert (found.in_ledger, found.perhaps_in_ledger) == (0, PAID)


def test_the_command_says_what_is_in_the_ledger(parent):
    forking.fork("first", "second", None, ("curate.skills=judge",))
    text = CliRunner().invoke(cli, ["plan", "--run", "second"], obj={}).output
    assert "in ledger" in text.splitlines()[0] and f" {PAID} " in text
    assert f"{PAID} calls are in the ledger already" in text
    said = "in the ledger and not counted on: 1 of pick; for checkpoints may come out otherwise"
    assert said in " ".join(text.split())
    facts = json.loads(
        CliRunner().invoke(cli, ["plan", "--run", "second", "--json"], obj={}).output
    )
    assert [one["in_ledger"] for one in facts["stages"]] == [0, PAID, 0, 0, 0, 0]
    # No word of it where there is nothing to say.
    assert "ledger" not in CliRunner().invoke(cli, ["plan", "--run", "third"], obj={}).output


def test_what_is_noted_for_a_stage_that_goes_on_is_the_whole_of_it(parent, new_context):
    context = new_context(config_of(*SMALL), "goes-on")
    with Store(parent / reader.CORPUS) as store:
        turns = store.query("SELECT * FROM turn WHERE stage = 'generate'")
    for turn in turns[:60]:
        context.store.add("turn", **turn)
    context.store.event("stage_started", "generate")
    noted.note(context)
    detail = context.store.value("SELECT detail FROM event WHERE kind = 'planned'")
    (generate,) = [one for one in json.loads(detail)["stages"] if one["stage"] == "generate"]
    assert generate["calls"] == PAID
