"""Trainings side by side: what is paired, what is not, and who is named when nothing is there."""

import json
from pathlib import Path

import pytest
from engines import embedded_config

from localism import compare
from localism.errors import UsageError
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
    with pytest.raises(UsageError, match="'main' of run second has not been measured"):
        compare.compare(("second",), own, folders(own, empty))
    with pytest.raises(UsageError, match="no training of this run has been measured"):
        compare.compare((), empty, folders())
    assert json.dumps(compare.compare((), own, folders()).as_dicts())
