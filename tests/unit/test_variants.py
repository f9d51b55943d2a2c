"""Training sets beside the accepted examples: what is in them, their names, and what is refused."""

import json
from collections import Counter
from pathlib import Path
from random import Random

import click
import pytest
from click.testing import CliRunner
from engines import NewContext, embedded_config

from localism import run
from localism.cli.main import cli
from localism.context import Context
from localism.coverage import extended_sets
from localism.errors import ConfigError, UsageError
from localism.training.sets import Training, examples, training_of
from localism.variants import poor, regenerated, subsets
from localism.variants.sets import Asked, SetExample, make, source_examples

EXAMPLES = 20


@pytest.fixture
def context(new_context: NewContext) -> Context:
    """Twenty accepted training examples, the later the longer, and two held-out ones."""
    context = new_context()
    store = context.store
    for skill in ("a", "b"):
        store.add(
            "skill", skill_id=skill, name=skill, cluster_id="c", rare=False, count=1,
            hdbscan_label=0, strength=1.0,
        )  # fmt: skip
    for number in range(EXAMPLES + 2):
        split = "train" if number < EXAMPLES else "dev"
        mix_id = f"mix-{number:02}"
        store.add("mix", mix_id=mix_id, ordinal=number, k=2, query_type_id=None, split=split)
        for position, skill in enumerate("ab"):
            store.add("mix_skill", mix_id=mix_id, position=position, skill_id=skill)
        store.add(
            "candidate", mix_id=mix_id, instruction=f"What is {number}?", status="accepted",
            response="word " * (number + 1), reason=None, turn_id=None,
        )  # fmt: skip
    return context


def ids(context: Context, name: str) -> list[str]:
    return [row["mix_id"] for row in examples(context.store, name)]


def sets_of(*arguments: str, seed: int = 0) -> list[tuple[Asked, object]]:
    """What the command line makes of its options."""
    from localism.cli import ablations

    parsed = ablations.variant.make_context("variant", list(arguments))
    options = {k: v for k, v in parsed.params.items() if k not in ("name", "is_list", "plain")}
    return list(ablations._sets(embedded_config(seed=seed), **options))


# ---- subsets -------------------------------------------------------------------------------


def test_the_longest_answers_are_taken_by_the_students_tokens_in_the_sources_order(
    context: Context,
) -> None:
    make(context, Asked("longest-3", "longest", "accepted", {"n": 3}), subsets.longest)
    assert ids(context, "longest-3") == ["mix-17", "mix-18", "mix-19"]


def test_a_random_subset_depends_on_its_seed_alone(context: Context) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        make(context, Asked(name, "random", "accepted", {"n": 8, "seed": seed}), subsets.random)
    assert ids(context, "one") == ids(context, "again") == sorted(ids(context, "one"))
    assert len(set(ids(context, "one"))) == 8
    assert ids(context, "other") != ids(context, "one")


def test_splits_are_disjoint_and_equally_large(context: Context) -> None:
    for asked, maker in sets_of("--splits", "3"):
        make(context, asked, maker)
    parts = [set(ids(context, f"split-{number}-of-3")) for number in (1, 2, 3)]
    assert [len(part) for part in parts] == [6, 6, 6]
    assert len(set.union(*parts)) == 18
    assert all(mix_id.startswith("mix-") and mix_id < "mix-20" for mix_id in set.union(*parts))


def test_files_in_the_usual_shapes_are_sources_and_rows_without_a_response_are_not_examples(
    context: Context, tmp_path: Path
) -> None:
    file = tmp_path / "alpaca.json"
    rows = [{"instruction": f"Say {n}", "input": "", "output": "so " * n} for n in range(9)]
    file.write_text(json.dumps(rows))  # the first has an empty output
    make(context, Asked("alpaca-longest-2", "longest", str(file), {"n": 2}), subsets.longest)
    found = examples(context.store, "alpaca-longest-2")
    assert [row["instruction"] for row in found] == ["Say 7", "Say 8"]
    assert [row["mix_id"] for row in found] == [None, None]
    with pytest.raises(UsageError, match="has 8 examples with a response, not 9"):
        make(context, Asked("all", "random", str(file), {"n": 9, "seed": 0}), subsets.random)
    assert not context.store.query("FROM training_set WHERE set_name = 'all'")


# ---- poor answers --------------------------------------------------------------------------


def test_brevity_and_junk_spoil_the_same_examples_and_a_larger_share_more_of_them() -> None:
    fifth, half = poor._chosen(100, 0.2, 7), poor._chosen(100, 0.5, 7)
    assert len(fifth) == 20 and len(half) == 50
    assert set(fifth) < set(half)
    assert poor._chosen(100, 0.2, 8) != fifth
    with pytest.raises(UsageError, match="is none"):
        poor._chosen(4, 0.1, 0)


# ---- other numbers of skills ---------------------------------------------------------------


def test_tuples_grow_evenly_by_units_of_new_clusters_and_keep_what_they_had() -> None:
    clusters = [str(unit // 5) for unit in range(30)]
    random = Random(3)
    sets = [tuple(random.sample(range(30), 2)) for _ in range(60)]
    grown = list(extended_sets(sets, clusters, 4, Random(0)))
    assert [members[:2] for members in grown] == sets
    assert all(len(set(members)) == 4 for members in grown)
    added = Counter(unit for members in grown for unit in members[2:])
    assert max(added.values()) - min(added[unit] for unit in range(30)) <= 2
    own = [{clusters[unit] for unit in members} for members in sets]
    assert all(
        len({clusters[unit] for unit in members}) == len(before) + 2
        for members, before in zip(grown, own, strict=True)
    )
    assert grown == list(extended_sets(sets, clusters, 4, Random(0)))


def test_tuples_grow_within_a_cluster_where_there_is_no_other() -> None:
    assert [set(s) for s in extended_sets([(0,), (1,)], ["x"] * 3, 3, Random(0))] == [{0, 1, 2}] * 2


def test_fewer_skills_are_the_first_of_each_tuple(context: Context) -> None:
    context.store.add(
        "cluster", cluster_id="c", name="a", medoid="a", size=2, persistence=None, keywords=None
    )
    asked = Asked("k-1", "k", "accepted", {"k": 1, "seed": 0})
    assert {mix.skills for mix in regenerated._tuples(context, asked)} == {("a",)}
    with pytest.raises(UsageError, match="k = 2 already"):
        regenerated._tuples(context, Asked("k-2", "k", "accepted", {"k": 2, "seed": 0}))
    with pytest.raises(UsageError, match="only 2 skills"):
        regenerated._tuples(context, Asked("k-3", "k", "accepted", {"k": 3, "seed": 0}))


def test_another_teacher_must_be_servable_and_leaves_a_judge_of_its_own_alone(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        regenerated.check_teacher(str(tmp_path / "nothing"))
    config = embedded_config(judge={"same_as": "", "path": "embedded:student"})
    other = regenerated.with_teacher(config, "http://127.0.0.1:9/v1")
    assert (other.teacher.path, other.teacher.endpoints) == ("", ("http://127.0.0.1:9/v1",))
    assert other.judge == config.judge and other.teacher.dtype == config.teacher.dtype


# ---- sets in the corpus --------------------------------------------------------------------


def test_a_set_that_is_there_is_not_made_again_and_another_of_its_name_is_refused(
    context: Context,
) -> None:
    asked = Asked("mine", "longest", "accepted", {"n": 3})
    first = make(context, asked, subsets.longest)

    def never(*_: object) -> list[SetExample]:
        raise AssertionError("made twice")

    assert make(context, asked, never) == first == "mine: 3 examples"
    with pytest.raises(UsageError, match="made in another way"):
        make(context, Asked("mine", "longest", "accepted", {"n": 4}), subsets.longest)


@pytest.mark.parametrize("name", ["accepted", "main", "../up", "a/b", "", "-x", "base"])
def test_names_that_cannot_be_a_folder_or_mean_something_already_are_refused(
    context: Context, name: str
) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        make(context, Asked(name, "longest", "accepted", {"n": 3}), subsets.longest)


def test_a_set_can_be_made_from_a_set_and_its_failed_examples_stay_out(context: Context) -> None:
    make(context, Asked("long", "longest", "accepted", {"n": 5}), subsets.longest)
    context.store.execute("UPDATE set_example SET status = 'failed' WHERE mix_id = 'mix-16'")
    found = source_examples(context, "long")
    assert [one.mix_id for one in found] == ["mix-15", "mix-17", "mix-18", "mix-19"]
    assert found[0].skills == ("a", "b")
    books = context.store.query("FROM books WHERE stage = 'variant long'")[0]
    assert (books["planned"], books["accepted"], books["failed"], books["pending"]) == (5, 4, 1, 0)


def test_a_source_that_does_not_exist_names_those_that_do(context: Context) -> None:
    make(context, Asked("long", "longest", "accepted", {"n": 5}), subsets.longest)
    with pytest.raises(UsageError) as refused:
        make(context, Asked("x", "random", "lnog", {"n": 5, "seed": 0}), subsets.random)
    assert "accepted, long, or an instruction file" in refused.value.fix
    with pytest.raises(UsageError, match="no training set 'lnog'"):
        examples(context.store, "lnog")


# ---- the command line ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, name, kind, settings",
    [
        (["--kind", "brevity", "--share", "0.2"], "brevity-20", "brevity", {"share": 0.2}),
        (["--kind", "junk", "--share", "0.125"], "junk-12.5", "junk", {"share": 0.125}),
        (["--kind", "random", "50"], "random-50", "random", {"n": 50}),
        (["50", "--kind", "random", "--from", "x/a.jsonl"], "a-random-50", "random", {"n": 50}),
        (["--k", "1", "--seed", "5"], "k-1", "k", {"k": 1, "seed": 5}),
        (["--k", "1", "--name", "single"], "single", "k", {"k": 1}),
        (
            ["--teacher", "http://node1:8000/v1"],
            "teacher-node1-8000",
            "teacher",
            {"teacher": "http://node1:8000/v1"},
        ),
        (
            ["--teacher", "embedded:teacher", "--k", "1"],
            "teacher-embedded-teacher-k-1",
            "teacher",
            {"k": 1, "teacher": "embedded:teacher"},
        ),
    ],
)
def test_options_become_a_named_set(
    arguments: list[str], name: str, kind: str, settings: dict[str, object]
) -> None:
    ((asked, _),) = sets_of(*arguments, seed=3)
    assert (asked.name, asked.kind) == (name, kind)
    assert asked.settings == {"seed": 3, **settings}


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "say what the set is to be"),
        (["--kind", "junk", "--k", "1"], "different sets"),
        (["--kind", "junk"], "want --share"),
        (["--kind", "random"], "want N"),
        (["--kind", "junk", "--share", "0.2", "7"], "want N"),
        (["--k", "1", "--share", "0.2"], "want --share"),
    ],
)
def test_options_that_do_not_agree_are_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        sets_of(*arguments)


@pytest.mark.parametrize("arguments", [["--share", "0"], ["--k", "0"], ["--splits", "1"], ["0"]])
def test_values_out_of_range_are_usage_errors(arguments: list[str]) -> None:
    with pytest.raises(click.BadParameter):
        sets_of(*arguments)


def test_an_unknown_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(cli, ["variant", "--k", "1", "--run", "nothing"])
    assert isinstance(refused.exception, UsageError) and "no run named" in str(refused.exception)


# ---- trainings -----------------------------------------------------------------------------


def test_a_training_is_called_after_its_set_and_seed() -> None:
    config = embedded_config(seed=4)
    own = training_of(config, "accepted")
    assert own == training_of(config, "accepted", 4) == Training("main", "accepted", 4)
    assert (own.model_id("epoch-01"), own.home(Path("r")), own.option()) == (
        "epoch-01", Path("r"), "",
    )  # fmt: skip
    other = training_of(config, "junk-20", 9)
    assert other.model_id("epoch-01") == "junk-20.seed9/epoch-01"
    assert other.home(Path("r")) == Path("r/trainings/junk-20.seed9")
    assert other.option() == " --on junk-20 --seed 9"
    assert training_of(config, "junk-20").name == "junk-20"


def test_a_training_of_a_run_that_is_not_curated_says_what_comes_first(context: Context) -> None:
    from localism.errors import StageError

    with pytest.raises(StageError, match="stage train needs stage extract"):
        run.run_trainings(context, "train", [training_of(context.config, "junk-20")])
