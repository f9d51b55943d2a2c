"""Stage cluster on real MiniLM and real HDBSCAN: blobs, duplicates, loners, next to nothing."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from engines import embedded_config

from localism.clustering import quality
from localism.clustering.duplicates import content_words, merge_duplicates
from localism.clustering.embed import encode
from localism.clustering.skills import Clustering, cluster_names
from localism.config import Cluster, Embedder
from localism.context import Context
from localism.errors import StageError
from localism.skill_names import normalise
from localism.stages.cluster import run

pytestmark = pytest.mark.component

BLOBS = {
    "programming": ["python_programming", "java_programming", "javascript_coding", "cpp_coding"],
    "music": ["piano_playing", "guitar_playing", "violin_playing", "playing_the_cello"],
    "gardens": ["rose_gardening", "vegetable_gardening", "herb_gardening", "garden_weeding"],
}
LONERS = ["tax_law", "scuba_diving", "origami"]


@pytest.fixture(scope="module")
def real_vectors():
    """Real vectors, each name embedded once for the whole module."""
    known: dict[str, np.ndarray] = {}

    def vectors(names: list[str]) -> np.ndarray:
        new = [name for name in names if name not in known]
        if new:
            known.update(zip(new, encode(new, Embedder()), strict=True))
        return np.array([known[name] for name in names])

    return vectors


def clustering(counts: dict[str, int], real_vectors, **config) -> Clustering:
    counts = dict(sorted(counts.items()))
    return cluster_names(counts, real_vectors(list(counts)), Cluster(**config))


def groups(found: Clustering) -> list[set[str]]:
    members = defaultdict(set)
    for skill in found.skills:
        members[skill.cluster].add(skill.name)
    return list(members.values())


def test_blobs_become_clusters_and_loners_stay_alone(real_vectors) -> None:
    names = [name for blob in BLOBS.values() for name in blob] + LONERS
    found = clustering(dict.fromkeys(names, 1), real_vectors)
    home = {name: blob for blob, members in BLOBS.items() for name in members}
    for group in groups(found):
        assert len({home.get(name, name) for name in group}) == 1, group
    rare = {skill.name for skill in found.skills if skill.is_rare}
    assert set(LONERS) <= rare
    assert len(found.persistence) >= 3
    assert all((s.cluster == s.name and s.strength == 0) for s in found.skills if s.is_rare)
    assert all(0 < s.strength <= 1 for s in found.skills if not s.is_rare)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("budget_management", "management_of_budgets"),
        ("time_management", "time_management_skills"),
        ("data_analysis", "data_analysis_techniques"),
        ("negotiation", "negotiation_ability"),
    ],
)
def test_the_same_words_are_the_same_skill(first: str, second: str, real_vectors) -> None:
    found = clustering({first: 1, second: 3}, real_vectors)
    assert [(s.name, s.count) for s in found.skills] == [(second, 4)]
    assert found.skill_of == {first: second, second: second}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("reading_comprehension", "listening_comprehension"),
        ("wood_carving", "music_theory"),
        ("skill_assessment", "knowledge_management"),
    ],
)
def test_different_skills_are_not_merged(first: str, second: str, real_vectors) -> None:
    assert len(clustering({first: 1, second: 1}, real_vectors).skills) == 2


def test_a_merged_skill_has_its_most_frequent_then_shortest_then_first_name(real_vectors) -> None:
    tie = {"budgets_management": 1, "budget_management": 1, "management_budget": 1}
    assert clustering(tie, real_vectors).skills[0].name == "budget_management"
    many = {**tie, "budgets_management": 2}
    assert clustering(many, real_vectors).skills[0].name == "budgets_management"


def test_complete_linkage_does_not_join_the_ends_of_a_chain() -> None:
    # Neighbours in the chain are alike (cosine .95), its ends are not (cosine .59).
    angles = np.arange(6) * np.arccos(0.95) * 0.9999
    chain = np.column_stack([np.cos(angles), np.sin(angles)])
    merged = merge_duplicates([f"word{chr(97 + i)}" for i in range(6)], chain, 0.95)
    assert max(map(len, merged)) == 2 and sum(map(len, merged)) == 6


def test_only_close_pairs_are_linked_but_the_outcome_is_that_of_all_pairs(real_vectors) -> None:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    names = sorted(name for blob in BLOBS.values() for name in blob) + LONERS
    vectors = real_vectors(names)
    for cosine in (0.5, 0.6, 0.7, 0.8):
        distances = (1 - vectors @ vectors.T).clip(0)
        for i, first in enumerate(names):
            for j, second in enumerate(names):
                if content_words(first) == content_words(second):
                    distances[i, j] = 0
        tree = linkage(squareform(distances, checks=False), "complete")
        labels = fcluster(tree, 1 - cosine, "distance")
        whole = {frozenset(np.flatnonzero(labels == label)) for label in labels}
        assert {frozenset(group) for group in merge_duplicates(names, vectors, cosine)} == whole


def test_a_cluster_is_named_by_its_count_weighted_medoid(real_vectors) -> None:
    names = [name for blob in BLOBS.values() for name in blob]
    heavy = clustering(
        {name: 100 if name == "java_programming" else 1 for name in names}, real_vectors
    )
    home = {skill.name: skill.cluster for skill in heavy.skills}
    assert home["java_programming"] == "java_programming"
    assert "programming" in heavy.keywords["java_programming"]


@pytest.mark.parametrize(
    "names", [["cooking"], ["cooking", "sailing"], ["cooking", "sailing", "law"]]
)
@pytest.mark.parametrize("min_samples", [1, 5])
def test_one_two_or_three_skills_are_each_alone(
    names: list[str], min_samples: int, real_vectors
) -> None:
    found = clustering(
        dict.fromkeys(names, 2), real_vectors, min_samples=min_samples, min_cluster_size=5
    )
    assert [(s.name, s.count, s.is_rare) for s in found.skills] == [
        (n, 2, True) for n in sorted(names)
    ]
    few = next(m for m in quality.measures(found, Cluster(min_cluster_size=5), 0) if m.warning)
    assert "only 0 clusters" in few.warning and "[cluster].min_cluster_size = 2" in few.warning


def test_equal_vectors_of_different_words_are_not_merged_but_accents_are(real_vectors) -> None:
    # Every one of these is the same unknown token to MiniLM.
    thai = ["การเขียน", "การทำอาหาร", "ภาษีอากร", "ดนตรี"]
    vectors = real_vectors(thai)
    assert np.allclose(vectors, vectors[0])
    names = [*thai, "café_planning", "cafe_planning"]
    for method in ("hdbscan", "fast"):
        found = clustering(dict.fromkeys(names, 1), real_vectors, method=method)
        assert [s.name for s in found.skills] == sorted([*thai, "cafe_planning"])
        assert all(0 <= s.strength <= 1 for s in found.skills)
    measures = {m.metric: m for m in quality.measures(found, Cluster(), 0)}
    assert measures["indistinct_share"].value == 0.8
    assert "[embedder].path" in measures["indistinct_share"].warning


def test_strange_names_are_clustered_like_any_other(real_vectors) -> None:
    names = ["x", "名前", "drop_table_skill", "3d_printing", "é", "_".join(["word"] * 8), "skill"]
    found = clustering(dict.fromkeys(names, 1), real_vectors)
    assert set(found.skill_of) == set(names)


# ---- the stage -------------------------------------------------------------------------------


def add_labels(context: Context, labels: list[tuple[str, str | None]]) -> None:
    context.store.add_rows(
        "skill_label",
        [
            {"label_id": f"label{i}", "raw": raw, "name": name, "source": "sda"}
            for i, (raw, name) in enumerate(labels)
        ],
    )


LABELS: list[tuple[str, str | None]] = [
    (name.replace("_", " ").title(), name) for blob in BLOBS.values() for name in blob
] + [
    ("Programming in Python", "programming_in_python"),
    ("Tax Law", "tax_law"),
    ("tax law", "tax_law"),
    ("!!!", None),
]


def rows(context: Context) -> list[list[dict]]:
    tables = ("skill", "cluster", "skill_label", "cluster_quality")
    return [context.store.query(f"FROM {table} ORDER BY ALL") for table in tables]


def add_raw(context: Context, raws: list[str]) -> None:
    """Labels as extract adds them: normalised, or with the reason why they are unusable."""
    names = [normalise(raw) for raw in raws]
    context.store.add_rows(
        "skill_label",
        [
            {"label_id": f"l{i}", "raw": raw, "name": name, "unusable": why, "source": "sda"}
            for i, (raw, (name, why)) in enumerate(zip(raws, names, strict=True))
        ],
    )


def test_every_named_label_gets_a_skill_and_every_skill_a_cluster(new_context) -> None:
    context = new_context()
    add_labels(context, LABELS)
    summary = run(context)
    labels = context.store.query("FROM skill_label")
    assert {row["raw"] for row in labels if row["skill_id"] is None} == {"!!!"}
    joined = context.store.query(
        "SELECT s.name, s.count, s.rare, c.name AS cluster, c.size, c.persistence, c.keywords"
        " FROM skill_label l JOIN skill s USING (skill_id) JOIN cluster c USING (cluster_id)"
    )
    assert len(joined) == len(LABELS) - 1
    assert {row["count"] for row in joined if row["name"] == "tax_law"} == {2}
    python = {row["name"] for row in joined if "python" in row["name"]}
    assert len(python) == 1  # 'programming in python' is python_programming
    sizes = Counter(row["cluster"] for row in context.store.query(
        "SELECT c.name AS cluster FROM skill JOIN cluster c USING (cluster_id)"
    ))  # fmt: skip
    assert all(sizes[row["cluster"]] == row["size"] for row in joined)
    assert all((row["persistence"] is None) == row["rare"] for row in joined)
    assert "1 label unusable" in summary
    assert context.store.query(
        "SELECT accepted, rejected, pending FROM books WHERE stage = 'cluster'"
    )


def test_the_same_labels_give_the_same_rows_again(new_context) -> None:
    context = new_context()
    add_labels(context, LABELS)
    run(context)
    before = rows(context)
    run(context)
    assert rows(context) == before


def test_new_labels_leave_no_old_cluster_behind(new_context) -> None:
    context, fresh = new_context(), new_context(name="fresh")
    add_labels(context, LABELS[:6])
    run(context)
    add_labels(context, LABELS)
    run(context)
    add_labels(fresh, LABELS)
    run(fresh)
    assert rows(context) == rows(fresh)


def test_a_failure_while_writing_leaves_the_old_clusters_whole(new_context) -> None:
    context = new_context()
    add_labels(context, LABELS)
    run(context)
    before = rows(context)
    with pytest.raises(ZeroDivisionError), context.store.transaction():
        context.store.execute("DELETE FROM skill")
        context.store.add("cluster", cluster_id="x", name="x", medoid="x", size=1)
        context.store.flush()
        1 / 0  # noqa: B018
    assert rows(context) == before


def test_labels_without_a_name_end_the_stage_with_the_way_out(new_context) -> None:
    context = new_context()
    add_labels(context, [("!!!", None)])
    with pytest.raises(StageError) as caught:
        run(context)
    assert "run extract first" in caught.value.fix


@pytest.mark.parametrize(
    ("raws", "skills", "unusable"),
    [
        (["Origami"], {"origami": 1}, 0),
        (["Origami"] * 30 + ["origami!"], {"origami": 31}, 0),
        (["", "   ", "🎨🖌️", "Origami"], {"origami": 1}, 3),
        (["a" * 10_000, "skill " * 2_000, "Origami"], {"origami": 1}, 2),
        (["'; DROP TABLE skill; --", "x\x00y"], {"drop_table_skill": 1, "x_y": 1}, 0),
        (["🎨 Painting", "数据分析", "Tax law"], {"painting": 1, "数据分析": 1, "tax_law": 1}, 0),
    ],
)
def test_odd_labels_become_skills_or_keep_a_reason(
    raws: list[str], skills: dict[str, int], unusable: int, new_context
) -> None:
    context = new_context()
    add_raw(context, raws)
    run(context)
    found = {row["name"]: row["count"] for row in context.store.query("FROM skill")}
    assert found == skills
    labels = context.store.query("FROM skill_label")
    assert [row["raw"] for row in sorted(labels, key=lambda r: int(r["label_id"][1:]))] == raws
    assert all((row["skill_id"] is None) == (row["unusable"] is not None) for row in labels)
    books = context.store.query("FROM books WHERE stage = 'cluster'")[0]
    assert (books["accepted"], books["rejected"], books["pending"]) == (
        len(raws) - unusable, unusable, 0,
    )  # fmt: skip


def test_three_labels_for_clusters_of_five_stay_alone_and_the_warning_says_what_to_do(
    new_context,
) -> None:
    context = new_context(embedded_config(cluster={"min_cluster_size": 5}))
    add_raw(context, ["Origami", "Tax law", "Scuba diving"])
    summary = run(context)
    assert "0 clusters, 3 skills on their own" in summary
    warned = context.store.query("FROM cluster_quality WHERE warning IS NOT NULL")
    assert any("[cluster].min_cluster_size = 2" in row["warning"] for row in warned)
    kept = context.store.value("SELECT count(*) FROM event WHERE kind = 'warning'")
    assert kept == len(warned) and f"{kept} warnings" in summary


def test_a_label_that_someone_dropped_has_no_skill_any_more(new_context) -> None:
    context = new_context()
    add_raw(context, ["Origami", "Tax law"])
    run(context)
    context.store.execute("UPDATE skill_label SET unusable = 'dropped' WHERE name = 'origami'")
    run(context)
    assert [row["name"] for row in context.store.query("FROM skill")] == ["tax_law"]
    ids = {row["name"]: row["skill_id"] for row in context.store.query("FROM skill_label")}
    assert ids["origami"] is None and ids["tax_law"] is not None


def test_a_run_has_its_quality_and_a_place_on_the_map_for_every_skill(new_context) -> None:
    context = new_context()
    add_labels(context, LABELS)
    run(context)
    figures = {r["metric"]: r["value"] for r in context.store.query("FROM cluster_quality")}
    assert set(figures) == {
        "skills", "clusters", "noise_share", "rare_skills", "largest_share", "relative_validity",
        "silhouette", "stability", "near_duplicate_rate", "indistinct_share",
    }  # fmt: skip
    skills = context.store.query("FROM skill")
    assert figures["skills"] == len(skills)
    assert figures["rare_skills"] == sum(row["rare"] for row in skills)
    assert 0 < figures["silhouette"] < 1 and 0 < figures["stability"] <= 1
    assert len({(row["map_x"], row["map_y"]) for row in skills}) == len(skills)


def test_a_second_call_embeds_nothing_anew(new_context) -> None:
    context = new_context()
    add_labels(context, LABELS)
    run(context)
    before = context.store.query("FROM embedding ORDER BY ALL")
    assert len(before) == len({name for _, name in LABELS if name})
    context.store.execute("UPDATE embedding SET vector = list_reverse(vector)")
    run(context)  # the same names: the vectors in the corpus are taken as they are
    after = context.store.query("FROM embedding ORDER BY ALL")
    assert [row["vector"][::-1] for row in after] == [row["vector"] for row in before]
