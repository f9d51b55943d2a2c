"""Trainings side by side: what is paired, what is not, and who is named when nothing is there."""

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from engines import embedded_config

from localism import compare, reader
from localism.cli.main import cli
from localism.errors import StageError, UsageError
from localism.reader import CORPUS
from localism.store import Store, now

PROMPTS = 12


def make_run(folder: Path, trainings: dict[str, float], *, kind: str = "likelihood") -> Path:
    """A run whose trainings have these mean preferences on test; the even prompts a little more."""
    folder.mkdir()
    config = embedded_config(judge={"same_as": "teacher", "kind": kind})
    with Store(folder / CORPUS) as store:
        store.add(
            "run", run_id="r", name=folder.name, created_at=now(), version="0",
            recipe=config.model_dump_json(), recipe_hash="h", rehearsal=True,
        )  # fmt: skip
        for number in range(PROMPTS):
            store.add("mix", mix_id=f"m{number}", ordinal=number, k=2, split="test")
            store.add(
                "candidate", mix_id=f"m{number}", instruction=f"Ask {number}", response="because",
                status="accepted", reason=None, turn_id=None,
            )  # fmt: skip
        for name, level in trainings.items():
            add_training(store, name, level, orders=1 if kind == "likelihood" else 2)
    return folder


def add_training(store: Store, name: str, level: float, *, orders: int) -> None:
    model = "epoch-01" if name == "main" else f"{name}/epoch-01"
    store.add("training", name=name, set_name="accepted" if name == "main" else name, seed=0)
    store.add(
        "checkpoint", checkpoint_id=model, training=name, epoch=1, step=1, path="p",
        fingerprint=name, train_loss=1.0, dev_loss=1.0, picked=True, tied=False,
    )  # fmt: skip
    for metric, value in (("win_rate", 100 * level), ("mean_length", 7.0)):
        store.add(
            "score", model_id=model, split="test", metric=metric, value=value, low=None, high=None,
            n=PROMPTS, unscored=0,
        )  # fmt: skip
    for number in range(PROMPTS):
        store.add(
            "answer", answer_id=f"{model}-{number}", model_id=model, mix_id=f"m{number}",
            split="test", text="so it is", finish_reason="stop", reason=None, turn_id=None,
        )  # fmt: skip
        for order in range(orders):
            store.add(
                "judgment", judgment_id=f"{model}-{number}-{order}",
                answer_id=f"{model}-{number}", model_id=model, mix_id=f"m{number}", split="test",
                answer_first=bool(order), preference=level + 0.02 * (number % 2), mass=1.0,
                reason=None, turn_id=None,
            )  # fmt: skip


def folders(*known: Path):
    def find(name: str) -> Path:
        for folder in known:
            if folder.name == name:
                return folder
        raise UsageError("no run", where=name, fix="-")

    return find


def rows(table) -> dict[str, dict]:
    return {row["training"]: row for row in table.as_dicts()}


def test_all_trainings_are_compared_with_the_runs_own_prompt_by_prompt(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5, "junk-20": 0.3, "k-1": 0.5})
    found = rows(compare.compare((), own, folders()))
    assert list(found) == ["main", "junk-20", "k-1"]
    assert found["main"]["difference"] is None
    assert found["main"]["win_rate"] == 50.0 and found["main"]["characters"] == 7.0
    junk = found["junk-20"]
    # Prompts differ among themselves, the pairs do not: only a paired interval has no width.
    assert (junk["difference"], junk["difference_low"], junk["difference_high"]) == (
        pytest.approx(-20.0), pytest.approx(-20.0), pytest.approx(-20.0),
    )  # fmt: skip
    assert junk["prompts"] == PROMPTS and found["k-1"]["difference"] == 0.0


def test_runs_share_the_prompts_that_are_the_same(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5})
    other = make_run(tmp_path / "second", {"main": 0.6, "k-1": 0.4})
    with Store(other / CORPUS) as store:
        store.execute("UPDATE candidate SET response = 'another' WHERE mix_id IN ('m0', 'm1')")
    found = rows(compare.compare(("main", "second", "second:k-1"), own, folders(own, other)))
    assert found["second"]["difference"] == 10.0 and found["second"]["prompts"] == PROMPTS - 2
    assert found["second:k-1"]["difference"] == -10.0


def test_what_was_judged_in_another_way_is_not_paired(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5})
    other = make_run(tmp_path / "second", {"main": 0.6}, kind="letter")
    found = rows(compare.compare(("main", "second"), own, folders(own, other)))
    assert found["second"]["win_rate"] == 60.0
    assert (found["second"]["difference"], found["second"]["prompts"]) == (None, 0)


def test_half_a_pair_of_orders_is_no_preference(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5, "k-1": 0.6}, kind="letter")
    with Store(own / CORPUS) as store:
        store.execute("UPDATE judgment SET preference = NULL WHERE judgment_id = 'epoch-01-0-1'")
    assert rows(compare.compare((), own, folders()))["k-1"]["prompts"] == PROMPTS - 1


def test_unknown_and_unmeasured_names_are_refused_with_those_that_are_there(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5})
    empty = make_run(tmp_path / "second", {})
    with pytest.raises(UsageError, match="'k-1' is no measured training of run first") as refused:
        compare.compare(("main", "k-1"), own, folders(own))
    assert "name some of: main" in refused.value.fix
    with pytest.raises(UsageError, match="'main' of run second has not been measured") as refused:
        compare.compare(("second",), own, folders(own, empty))
    assert "localism evaluate --run second" in refused.value.fix
    with pytest.raises(UsageError, match="no training of this run has been measured"):
        compare.compare((), empty, folders())
    assert json.dumps(compare.compare((), own, folders()).as_dicts())


def test_runs_that_share_no_prompt_are_compared_with_a_wider_interval(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5, "k-1": 0.6})
    other = make_run(tmp_path / "second", {"main": 0.6})
    with Store(other / CORPUS) as store:
        store.execute("UPDATE candidate SET instruction = instruction || ' please'")
    found = rows(compare.compare(("main", "k-1", "second"), own, folders(own, other)))
    paired, strangers = found["k-1"], found["second"]
    assert paired["basis"] == "paired by prompt" and strangers["basis"] == "unpaired"
    assert paired["difference"] == strangers["difference"] == 10.0
    assert paired["difference_high"] - paired["difference_low"] == 0
    assert strangers["difference_high"] - strangers["difference_low"] > 0.5
    table, explanation = compare.narrow(
        compare.compare(("main", "k-1", "second"), own, folders(own, other))
    )
    assert table.as_dicts()[1]["difference"] == "+10.0 (10.0 to 10.0)"
    assert "k-1: paired by prompt, 12 prompts\nsecond: unpaired" in explanation


def test_the_legend_explains_every_short_column_that_is_shown_and_no_other(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5, "k-1": 0.6})
    for names in ((), ("main",)):
        table, explanation = compare.narrow(compare.compare(names, own, folders(own)))
        explained = {part.split(":")[0] for part in explanation.splitlines()[0].split("; ")}
        assert explained - {"effect"} == {*table.columns} & {*compare.MEANINGS}
        assert ("difference" in table.columns) == (names == ())
    (table,) = compare.paper_tables([("a", compare.reading(own))], ["14"])
    assert compare.legend(compare.condensed(table[1]).columns) == "data: training examples"


def test_runs_that_share_their_tuples_are_paired_by_them(tmp_path: Path) -> None:
    folders_of = []
    for name, level in (("first", 0.5), ("second", 0.6)):
        folders_of.append(make_run(tmp_path / name, {"main": level}))
        with Store(folders_of[-1] / CORPUS) as store:
            for number in range(PROMPTS):
                store.add(
                    "skill", skill_id=f"s{number}", name=f"skill_{number}", cluster_id="c",
                    rare=True, count=1, hdbscan_label=-1, strength=0.0,
                )  # fmt: skip
                store.add("mix_skill", mix_id=f"m{number}", position=0, skill_id=f"s{number}")
            store.execute(f"UPDATE candidate SET response = '{name}'")
    found = rows(compare.compare(("main", "second"), folders_of[0], folders(*folders_of)))
    assert (found["second"]["basis"], found["second"]["prompts"]) == ("paired by tuple", PROMPTS)


def test_the_papers_tables_are_filled_by_one_run_or_several(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5, "brevity-20": 0.4, "k-1": 0.3})
    with Store(own / CORPUS) as store:
        for name, kind, settings in (
            ("brevity-20", "brevity", {"share": 0.2, "seed": 0}),
            ("k-1", "k", {"k": 1, "seed": 0}),
        ):
            store.add(
                "training_set", set_name=name, kind=kind, source="accepted",
                settings=json.dumps(settings), planned=1,
            )  # fmt: skip
            store.add(
                "set_example", set_name=name, ordinal=0, skills=["a"], instruction="Ask",
                response="so", status="accepted", changed=True, instruction_tokens=1,
                response_tokens=3,
            )  # fmt: skip
    read = compare.reading(own)
    found = {table.number: rows.as_dicts() for table, rows in compare.paper_tables([("a", read)])}
    assert list(found) == ["2", "6", "14"]  # one k is no comparison
    (base, brief) = found["6"]
    assert base["training"] == "main" and "difference" in base
    assert (brief["share"], brief["difference"], brief["prompts"]) == (0.2, -10.0, PROMPTS)
    assert (brief["effect"] or 0) < -5  # preferences hardly vary within a side
    assert {row["training"]: row["k"] for row in found["2"]} == {"main": None, "k-1": 1.0}
    lengths = {row["set_name"]: row for row in found["14"]}
    assert (lengths["k-1"]["response_tokens"], lengths["k-1"]["response_characters"]) == (3.0, 2.0)
    (both,) = compare.paper_tables([("a", read), ("b", read)], ["6"])
    assert [row["run"] for row in both[1].as_dicts()] == ["a", "a", "b", "b"]
    assert compare.paper_tables([("a", read)], ["13"])[0][1].rows == []


def test_differences_in_sql_are_those_of_compare(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5, "accepted.seed1": 0.55, "k-1": 0.3})
    with Store(own / CORPUS) as store:
        store.execute("UPDATE training SET set_name = 'accepted', seed = 1 WHERE name LIKE 'acc%'")
        store.execute("UPDATE training SET seed = 1 WHERE name = 'k-1'")
        store.execute(
            "UPDATE judgment SET preference = preference + 0.03 * (hash(mix_id) % 5)"
            " WHERE model_id LIKE 'k-1%'"
        )
    (row,) = compare.reading(own)("FROM ablations WHERE training = 'k-1'")
    assert row["compared_with"] == "accepted.seed1"  # the same seed
    (other,) = (
        one
        for one in compare.compare(("accepted.seed1", "k-1"), own, folders()).as_dicts()
        if one["training"] == "k-1"
    )
    for name in ("difference", "difference_low", "difference_high"):
        assert row[name] == pytest.approx(other[name], abs=0.5)
    assert row["difference"] == pytest.approx(other["difference"], abs=0.051)
    assert row["effect"] == pytest.approx(other["effect"], abs=0.006)


def test_a_corpus_of_an_older_localism_says_what_to_do(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5})
    import duckdb

    with duckdb.connect(str(own / CORPUS)) as corpus:
        corpus.execute("DROP VIEW ablations")
    with pytest.raises(StageError, match="of an older localism") as refused:
        compare.compare((), own, folders())
    assert "localism report --run first" in refused.value.fix


@pytest.mark.parametrize("arguments", [[], ["--table", "all"], ["--table", "14"]])
def test_the_command_fits_80_columns_and_speaks_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    own = make_run(tmp_path / "first", {"main": 0.5, "brevity-20.seed1": 0.4})
    with Store(own / CORPUS) as store:
        store.execute("UPDATE training SET set_name = 'accepted'")
    (own / "recipe.json").touch()

    def said(*more: str) -> str:
        done = CliRunner().invoke(cli, ["compare", *arguments, "--run", str(own), *more])
        assert done.exception is None, done.exception
        return done.output

    assert max(map(len, said().splitlines())) <= 80
    assert json.loads(said("--json")) == json.loads(said("--format", "json"))
    if "all" in arguments:
        assert "localism variant" in said()
        refused = CliRunner().invoke(
            cli, ["compare", *arguments, "--run", str(own), "--format", "csv"]
        )
        assert isinstance(refused.exception, UsageError)
    else:
        assert "| --- |" in said("--format", "markdown")
        assert len(list(csv.DictReader(io.StringIO(said("--format", "csv"))))) > 0


def test_a_run_that_is_at_work_is_compared_through_its_socket(tmp_path: Path) -> None:
    own = make_run(tmp_path / "first", {"main": 0.5, "k-1": 0.6})
    alone = compare.compare((), own, folders())
    with Store(own / CORPUS) as store, reader.answering(store, own):
        assert compare.compare((), own, folders()) == alone
