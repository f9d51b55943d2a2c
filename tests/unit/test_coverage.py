"""The coverage views count what is in the tables, and their Gini and entropy are the textbook's."""

import itertools
import json
import time
from collections import Counter
from random import Random

import numpy as np
import pytest

from localism.records import stable_id
from localism.store import Store

STATUSES = ("accepted", "accepted", "accepted", "rejected", "failed", "written", None)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "corpus.duckdb") as store:
        yield store


def add_run(store: Store, skills: str = "judge") -> None:
    store.add(
        "run", run_id="r", name="first", created_at="2026-01-01", version="0",
        recipe=json.dumps({"curate": {"skills": skills}}), recipe_hash="h", rehearsal=True,
    )  # fmt: skip


def add_skills(store: Store, clusters: dict[str, list[str]]) -> None:
    for medoid, names in clusters.items():
        store.add("cluster", cluster_id=f"c-{medoid}", name=medoid, medoid=medoid, size=len(names))
        store.add_rows(
            "skill",
            [
                {"skill_id": f"s-{name}", "name": name, "cluster_id": f"c-{medoid}",
                 "rare": len(names) == 1, "count": 1, "hdbscan_label": 0, "strength": 1.0}
                for name in names
            ],
        )  # fmt: skip


def add_mix(
    store: Store, number: int, skills: tuple[str, ...], status: str | None, **more: object
) -> None:
    """A mix with its candidate: 10 tokens times its number, a judge's score of number / 100."""
    mix_id = f"m{number}"
    query_type = more.get("query_type", "q0")
    store.add(
        "mix", mix_id=mix_id, ordinal=number, k=len(skills), query_type_id=query_type,
        split="train" if number % 5 else "test",
    )  # fmt: skip
    for position, name in enumerate(skills):
        store.add("mix_skill", mix_id=mix_id, position=position, skill_id=f"s-{name}")
    if status is None:
        return
    reason = {"rejected": "nearly the same instruction: m1", "failed": "timed out: 60 s"}
    store.add(
        "candidate", mix_id=mix_id, instruction="i", response="r", status=status,
        reason=reason.get(status), completion_tokens=10 * number,
    )  # fmt: skip
    if status in ("accepted", "rejected"):
        store.add(
            "verdict", mix_id=mix_id, gate="skills", passed=True, value=number / 100, reason=None
        )
        store.add(
            "verdict", mix_id=mix_id, gate="duplicate", passed=status == "accepted", value=None,
            reason=reason.get(status),
        )  # fmt: skip


CLUSTERS = {"a0": ["a0", "a1", "a2"], "b0": ["b0", "b1"], "lone": ["lone"], "idle": ["idle"]}
NAMES = [name for names in CLUSTERS.values() for name in names if name != "idle"]
HOME = {name: cluster for cluster, names in CLUSTERS.items() for name in names}


@pytest.fixture
def mixes(store) -> list[tuple[int, tuple[str, ...], str | None, str]]:
    """A random plan of pairs and triples with every outcome."""
    random = Random(3)
    add_run(store)
    add_skills(store, CLUSTERS)
    for number in range(3):
        store.add("query_type", query_type_id=f"q{number}", name=f"type {number}", ordinal=number)
    made = []
    for number in range(1, 61):
        skills = tuple(random.sample(NAMES, random.choice((2, 3))))
        status, kind = random.choice(STATUSES), random.choice(("q0", "q1"))
        add_mix(store, number, skills, status, query_type=kind)
        made.append((number, skills, status, kind))
    return made


def tally(chosen: list[tuple[int, str | None]]) -> dict[str, int]:
    """planned, generated, accepted, rejected and tokens of (number, status) of some mixes."""
    counts = Counter(status for _, status in chosen)
    return {
        "planned": len(chosen),
        "generated": counts["accepted"] + counts["rejected"] + counts["written"],
        "accepted": counts["accepted"],
        "rejected": counts["rejected"],
        "tokens": sum(10 * number for number, status in chosen if status),
    }


def test_skills_are_counted_once_for_each_mix_with_its_tokens_and_judge_scores(store, mixes):
    found = {row["skill"]: row for row in store.query("FROM skill_coverage")}
    assert found.keys() == set(HOME)
    for name, row in found.items():
        mine = [(number, status) for number, skills, status, _ in mixes if name in skills]
        assert {key: row[key] for key in tally(mine)} == tally(mine)
        scores = [n / 100 for n, status in mine if status in ("accepted", "rejected")]
        expected = pytest.approx(np.mean(scores), abs=1e-4) if scores else None
        assert row["mean_judge_score"] == expected
        assert row["cluster"] == HOME[name]
    assert found["idle"]["planned"] == 0 and found["idle"]["mean_judge_score"] is None


def test_a_value_that_no_judge_gave_is_no_judge_score(store):
    add_run(store, skills="words")
    add_skills(store, {"a": ["a", "b"]})
    add_mix(store, 1, ("a", "b"), "accepted")
    assert store.query("SELECT DISTINCT mean_judge_score FROM skill_coverage") == [
        {"mean_judge_score": None}
    ]


def test_scripts_find_the_columns_that_they_rely_on(store):
    columns = [row["column_name"] for row in store.query("DESCRIBE skill_coverage")]
    assert {"skill", "planned", "generated", "accepted", "rejected"} <= set(columns)


def test_rejections_of_a_skill_add_up_to_its_rejected_and_failed(store, mixes):
    found = store.query("FROM skill_rejections")
    assert {(row["gate"], row["reason"]) for row in found} == {
        ("duplicate", "nearly the same instruction"), ("call", "timed out"),
    }  # fmt: skip
    for gate, status in (("duplicate", "rejected"), ("call", "failed")):
        counts = Counter(name for _, skills, s, _ in mixes if s == status for name in skills)
        assert {row["skill"]: row["n"] for row in found if row["gate"] == gate} == counts


def test_pairs_used_and_unused_are_together_all_pairs(store, mixes):
    planned: dict[tuple[str, ...], list[tuple[int, str | None]]] = {}
    for number, skills, status, _ in mixes:
        for pair in itertools.combinations(sorted(skills), 2):
            planned.setdefault(pair, []).append((number, status))
    rows = store.query("FROM pair_coverage")
    used = {(row.pop("skill_a"), row.pop("skill_b")): row for row in rows}
    assert used == {
        pair: {key: n for key, n in tally(made).items() if key != "tokens"}
        for pair, made in planned.items()
    }
    unused = [(row["skill_a"], row["skill_b"]) for row in store.query("FROM unused_pairs")]
    assert len(unused) == len(set(unused))
    assert set(unused) == set(itertools.combinations(sorted(HOME), 2)) - set(used)
    assert all(
        row["cluster_a"] == HOME[row["skill_a"]] and row["cluster_b"] == HOME[row["skill_b"]]
        for row in store.query("FROM unused_pairs")
    )


def test_a_mix_counts_once_for_a_cluster_that_holds_two_of_its_skills(store, mixes):
    for row in store.query("FROM cluster_coverage"):
        mine = [
            (number, status)
            for number, skills, status, _ in mixes
            if row["cluster"] in {HOME[name] for name in skills}
        ]
        assert {key: row[key] for key in tally(mine)} == tally(mine)
        assert row["skills"] == len(CLUSTERS[row["cluster"]])


def test_query_types_are_counted_by_split(store, mixes):
    found = {
        (row["query_type"], row["split"]): row for row in store.query("FROM query_type_coverage")
    }
    assert len(found) == 4
    for (name, split), row in found.items():
        mine = [
            (number, status)
            for number, _, status, kind in mixes
            if kind == f"q{name[-1]}" and (split == "train") == bool(number % 5)
        ]
        assert {key: row[key] for key in tally(mine)} == tally(mine)


# ---- balance ---------------------------------------------------------------------------------


def gini(uses: np.ndarray) -> float:
    """Half the mean absolute difference over the mean, from its definition."""
    return float(np.abs(uses[:, None] - uses[None]).mean() / (2 * uses.mean()))


def entropy(uses: np.ndarray) -> float:
    """Shannon's, in bits."""
    shares = uses[uses > 0] / uses.sum()
    return float(-(shares * np.log2(shares)).sum())


def expected_uses(mixes, accepted_only: bool) -> dict[str, np.ndarray]:
    kept = [mix for mix in mixes if not accepted_only or mix[2] == "accepted"]
    counts = {
        "skill": Counter(name for _, skills, _, _ in kept for name in skills),
        "cluster": Counter(home for _, s, _, _ in kept for home in {HOME[name] for name in s}),
        "pair": Counter(
            pair for _, skills, _, _ in kept for pair in itertools.combinations(sorted(skills), 2)
        ),
        "query_type": Counter(kind for *_, kind in kept),
    }
    every = {
        "skill": list(HOME), "cluster": list(CLUSTERS), "query_type": ["q0", "q1", "q2"],
        "pair": list(itertools.combinations(sorted(HOME), 2)),
    }  # fmt: skip
    return {
        level: np.array([counts[level][unit] for unit in units]) for level, units in every.items()
    }


def check_balance(row: dict, uses: np.ndarray) -> None:
    assert row["units"] == len(uses)
    assert (row["used"], row["unused"]) == ((uses > 0).sum(), (uses == 0).sum())
    assert (row["minimum"], row["maximum"]) == (uses.min(), uses.max())
    assert row["mean"] == pytest.approx(uses.mean(), abs=1e-4)
    assert row["gini"] == pytest.approx(gini(uses), abs=1e-6)
    assert row["entropy"] == pytest.approx(entropy(uses), abs=1e-6)
    assert row["normalised_entropy"] == pytest.approx(entropy(uses) / np.log2(len(uses)), abs=1e-6)


@pytest.mark.parametrize("what", ["planned", "accepted"])
def test_balance_of_every_level_agrees_with_its_definition(store, mixes, what):
    found = {
        row["level"]: row for row in store.query("FROM coverage_balance WHERE what = ?", [what])
    }
    expected = expected_uses(mixes, what == "accepted")
    assert found.keys() == expected.keys()
    for level, uses in expected.items():
        check_balance(found[level], uses)


@pytest.mark.parametrize("seed", range(4))
def test_gini_and_entropy_agree_with_numpy_on_skewed_uses(store, seed):
    generator = np.random.default_rng(seed)
    uses = np.floor(generator.pareto(1.0, 12) * 3).astype(int).clip(0, 40)
    uses[0] += 1
    names = [f"s{number:02}" for number in range(len(uses))]
    add_run(store)
    add_skills(store, {name: [name] for name in names})
    numbers = itertools.count(1)
    for name, times in zip(names, uses, strict=True):
        for _ in range(times):
            add_mix(store, next(numbers), (name,), "accepted")
    rows = store.query("FROM coverage_balance WHERE level = 'skill'")
    assert len(rows) == 2
    for row in rows:
        check_balance(row, uses)


def test_even_use_has_gini_0_and_entropy_1_and_no_use_has_neither(store):
    add_run(store)
    add_skills(store, {name: [name] for name in "abcd"})
    where = "SELECT used, gini, normalised_entropy FROM coverage_balance WHERE level = 'skill'"
    nothing = {"used": 0, "gini": None, "normalised_entropy": None}
    assert store.query(where) == [nothing, nothing]
    for number, name in enumerate("abcd", 1):
        add_mix(store, number, (name,), None)
    assert store.query(where) == [{"used": 4, "gini": 0.0, "normalised_entropy": 1.0}, nothing]


def test_an_empty_corpus_has_empty_views(store):
    for view in ("skill_coverage", "unused_pairs", "coverage_balance", "seed_coverage"):
        assert store.query(f"FROM {view}") == []


# ---- seed data -------------------------------------------------------------------------------


def test_seed_coverage_compares_what_seeds_exhibit_with_what_was_accepted(store, mixes):
    seeds = {"a0": 6, "b0": 2, "idle": 2}
    for cluster, n in seeds.items():
        store.add_rows(
            "seed_example",
            [
                {"seed_id": f"{cluster}{i}", "source": "s", "ordinal": i, "instruction": "i",
                 "cluster_id": f"c-{cluster}"}
                for i in range(n)
            ],
        )  # fmt: skip
    found = {row["cluster"]: row for row in store.query("FROM seed_coverage")}
    kept = [{HOME[name] for name in skills} for _, skills, s, _ in mixes if s == "accepted"]
    accepted = {cluster: sum(cluster in homes for homes in kept) for cluster in CLUSTERS}
    for cluster, row in found.items():
        assert row["seed_examples"] == seeds.get(cluster, 0)
        assert row["seed_share"] == seeds.get(cluster, 0) / 10
        assert row["accepted_examples"] == accepted[cluster]
        share = accepted[cluster] / sum(accepted.values())
        assert row["accepted_share"] == pytest.approx(share, abs=1e-4)
        assert row["difference"] == pytest.approx(share - seeds.get(cluster, 0) / 10, abs=2e-4)
    assert found["idle"]["difference"] == -0.2


def test_exemplars_are_seed_examples_whose_labels_became_the_skill(store):
    add_skills(store, {"a": ["a", "b"]})
    labels = [("a", "x"), ("a", "x"), ("a", "y"), ("a", None), ("b", None)]
    for number, (name, seed_id) in enumerate(labels):
        store.add(
            "skill_label", label_id=str(number), raw=name, name=name, skill_id=f"s-{name}",
            source="sdd", seed_id=seed_id,
        )  # fmt: skip
    found = {row["skill"]: row["exemplars"] for row in store.query("FROM skill_coverage")}
    assert found == {"a": 2, "b": 0}


# ---- speed -----------------------------------------------------------------------------------


def test_twenty_unused_pairs_of_1143_skills_come_in_two_seconds(store):
    names = [f"skill_{number}" for number in range(1143)]
    add_skills(store, {name: [name] for name in names})
    random = Random(0)
    for number in range(4000):
        one, other = random.sample(range(1143), 2)
        mix_id = stable_id(number)
        store.add("mix", mix_id=mix_id, ordinal=number, k=2, query_type_id=None, split="train")
        for position, skill in enumerate((one, other)):
            store.add("mix_skill", mix_id=mix_id, position=position, skill_id=f"s-{names[skill]}")
    store.flush()
    started = time.process_time()
    assert len(store.query("FROM unused_pairs LIMIT 20")) == 20
    assert time.process_time() - started < 2
