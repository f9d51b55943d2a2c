"""Variants of a curated run, written by the embedded teacher on a real engine."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from engines import ServedTeacher, _Run, embedded_config

from localism.context import Context
from localism.embedded.world import QUERY_TYPES, TOPICS
from localism.errors import OutOfTime
from localism.stages import curate, generate
from localism.training.sets import examples
from localism.variants.poor import poor
from localism.variants.regenerated import regenerated
from localism.variants.sets import Asked, make

pytestmark = pytest.mark.component

TRAIN = 10


@pytest.fixture(scope="module")
def context(teacher: ServedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """A small run, curated: two dev, two test and ten training mixes of two skills."""
    # A small sample of so small a model may be all shirkers to the gate: not what is tested here.
    gates = ("parsed", "complete", "length", "markers", "skills", "duplicate")
    config = embedded_config(
        **teacher.endpoints, curate={"skills": "words", "duplicates_by": "words", "gates": gates}
    )
    with _Run(tmp_path_factory.mktemp("variants") / "run", config) as run:
        plan(run.context)
        generate.run(run.context)
        curate.run(run.context)
        yield run.context


def plan(context: Context) -> None:
    names = sorted({skill for topic in TOPICS.values() for skill in topic.skills})
    for number, name in enumerate(names):
        context.store.add(
            "skill", skill_id=name, name=name, cluster_id=f"c{number % 9}", rare=False, count=1,
            hdbscan_label=0, strength=1.0,
        )  # fmt: skip
    for number in range(9):
        context.store.add(
            "cluster", cluster_id=f"c{number}", name=names[number], medoid=names[number], size=5,
            persistence=None, keywords=None,
        )  # fmt: skip
    kind, definition = min(QUERY_TYPES.items())
    context.store.add(
        "query_type", query_type_id=kind, name=kind, definition=definition, ordinal=0, turn_id=None
    )
    for ordinal, pair in zip(range(TRAIN + 4), pairwise(names[::3]), strict=False):
        split = "test" if ordinal < 2 else "dev" if ordinal < 4 else "train"
        mix_id = f"mix-{ordinal:02}"
        context.store.add(
            "mix", mix_id=mix_id, ordinal=ordinal, k=2, query_type_id=kind, split=split
        )
        for position, skill in enumerate(pair):
            context.store.add("mix_skill", mix_id=mix_id, position=position, skill_id=skill)


def calls(context: Context, stage: str = "variant") -> int:
    return int(context.store.value("SELECT count(*) FROM turn WHERE stage = ?", [stage]))


def rows(context: Context, name: str) -> dict[str, dict]:
    found = context.store.query("FROM set_example WHERE set_name = ? ORDER BY ordinal", [name])
    return {row["mix_id"]: row for row in found}


def test_brevity_replaces_a_share_by_shorter_answers_and_keeps_every_instruction(
    context: Context,
) -> None:
    own = {row["mix_id"]: row for row in examples(context.store, "accepted")}
    said = make(context, Asked("b", "brevity", "accepted", {"share": 0.5, "seed": 0}), poor)
    brief = rows(context, "b")
    half = round(0.5 * len(own))
    assert said == f"b: {len(own)} examples, {half} of them written for it"
    assert list(brief) == list(own)
    assert all(brief[mix]["instruction"] == own[mix]["instruction"] for mix in own)
    changed = [mix for mix in own if brief[mix]["changed"]]
    assert len(changed) == half == calls(context)
    assert all(brief[mix]["response"] == own[mix]["response"] for mix in own.keys() - set(changed))
    shorter = [mix for mix in changed if len(brief[mix]["response"]) < len(own[mix]["response"])]
    assert len(shorter) >= 0.8 * half


def test_the_ledger_pays_for_a_set_that_was_lost_before_it_was_stored(context: Context) -> None:
    asked = Asked("j", "junk", "accepted", {"share": 0.5, "seed": 0})
    make(context, asked, poor)
    before, paid = rows(context, "j"), calls(context)
    for table in ("training_set", "set_example"):
        context.store.execute(f"DELETE FROM {table} WHERE set_name = 'j'")
    make(context, asked, poor)
    assert rows(context, "j") == before
    assert calls(context) == paid


def test_a_set_is_not_begun_when_no_time_is_left(context: Context) -> None:
    late = replace(context, deadline=time.monotonic())
    with pytest.raises(OutOfTime):
        make(late, Asked("late", "junk", "accepted", {"share": 0.5, "seed": 9}), poor)
    assert not rows(context, "late")
    assert not context.store.query("FROM training_set WHERE set_name = 'late'")


@pytest.mark.parametrize("k", [1, 3])
def test_tuples_are_written_anew_with_another_number_of_skills(context: Context, k: int) -> None:
    own = [row["mix_id"] for row in examples(context.store, "accepted")]
    make(context, Asked(f"k-{k}", "k", "accepted", {"k": k, "seed": 0}), regenerated)
    found = rows(context, f"k-{k}")
    assert list(found) == own  # the same tuples, whatever became of them
    pairs = {
        row["mix_id"]: row["skills"]
        for row in context.store.query(
            "SELECT mix_id, list(skill_id ORDER BY position) AS skills FROM mix_skill GROUP BY 1"
        )
    }
    assert all(row["skills"][: min(k, 2)] == pairs[mix][:k] for mix, row in found.items())
    assert {len(row["skills"]) for row in found.values()} == {k}
    assert all(row["changed"] and row["turn_id"] for row in found.values())
    kept = [row for row in found.values() if row["status"] == "accepted"]
    assert len(kept) >= math.ceil(0.5 * len(own))
    assert all(row["reason"] for row in found.values() if row["status"] != "accepted")
    books = context.store.query("FROM books WHERE stage = ?", [f"variant k-{k}"])[0]
    assert books["planned"] == len(own) and books["pending"] == 0
    assert not context.store.query("FROM verdict WHERE contains(mix_id, ':')")


def test_another_teacher_behind_an_endpoint_is_noted_beside_the_run_s_own(
    context: Context, teacher: ServedTeacher
) -> None:
    asked = Asked("other", "teacher", "accepted", {"teacher": teacher.url, "seed": 0})
    make(context, asked, regenerated)
    assets = context.store.query("SELECT asset_id, path FROM asset WHERE role LIKE 'teacher%'")
    assert {row["asset_id"] for row in assets} == {"teacher", "teacher of other"}
    # The same model: every conversation was in the ledger, and the examples are the run's own.
    own = {row["mix_id"]: row["response"] for row in examples(context.store, "accepted")}
    assert {mix: row["response"] for mix, row in rows(context, "other").items()} == own


def test_an_instruction_of_the_held_out_examples_cannot_come_back_in_a_set(
    context: Context,
) -> None:
    make(context, Asked("one", "k", "accepted", {"k": 1, "seed": 1}), regenerated)
    stolen = next(row for row in rows(context, "one").values() if row["status"] == "accepted")
    context.store.execute(
        "UPDATE candidate SET instruction = ? WHERE mix_id = 'mix-00'", [stolen["instruction"]]
    )
    again = Asked("two", "k", "accepted", {"k": 1, "seed": 1})
    make(context, again, regenerated)
    row = rows(context, "two")[stolen["mix_id"]]
    assert (row["status"], row["reason"]) == ("rejected", "same instruction: mix-00")
