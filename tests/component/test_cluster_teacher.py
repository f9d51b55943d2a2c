"""What the teacher adds to clusters: names, and one cluster for each seed example."""

import shutil
from pathlib import Path

import pytest
from engines import NewContext, embedded_config

from localism.context import Context
from localism.prompting.packs import load_pack
from localism.records import stable_id
from localism.stages import cluster_teacher

pytestmark = pytest.mark.component

CLUSTERS = {
    "planning_meals": ["planning_meals", "writing_menus", "buying_food", "cooking_dinner"],
    "saving_money": ["saving_money", "tracking_expenses"],
    "fixing_bikes": ["fixing_bikes"],
}
SEEDS = {
    "What shall I cook this week?": ["writing_menus", "cooking_dinner", "saving_money"],
    "How do I spend less?": ["tracking_expenses"],
    "Say something.": [],
}


def pack(folder: Path, structured: bool) -> str:
    shutil.copytree(load_pack("compact").folder, folder)
    (folder / "relabel.txt").write_text(
        "{{ instruction }}\nWhich skill: {{ choices | join(', ') }}\n"
    )
    (folder / "cluster_name.txt").write_text("A name for: {{ members | join(', ') }}\n")
    manifest = folder / "pack.toml"
    if structured:
        text = manifest.read_text().replace("[extract]", "[extract]\nstructured = true")
        manifest.write_text(text)
    return str(folder)


def fill(context: Context) -> None:
    store = context.store
    for cluster, members in CLUSTERS.items():
        cluster_id = stable_id("cluster", cluster)
        store.add("cluster", cluster_id=cluster_id, name=cluster, medoid=cluster, size=len(members))
        for name in members:
            store.add(
                "skill", skill_id=stable_id("skill", name), name=name, cluster_id=cluster_id,
                rare=len(members) == 1, count=2, hdbscan_label=0, strength=1.0,
            )  # fmt: skip
    for ordinal, (instruction, names) in enumerate(SEEDS.items()):
        seed_id = stable_id("seed", instruction)
        store.add(
            "seed_example", seed_id=seed_id, source="s", ordinal=ordinal, instruction=instruction
        )
        for name in names:
            store.add(
                "skill_label", label_id=f"{seed_id}{name}", raw=name, name=name, source="sdd",
                seed_id=seed_id, skill_id=stable_id("skill", name),
            )  # fmt: skip


def assigned(context: Context) -> list[tuple]:
    rows = context.store.query(
        "SELECT c.medoid, e.assigned_by FROM seed_example e LEFT JOIN cluster c USING (cluster_id)"
        " ORDER BY e.ordinal"
    )
    return [(row["medoid"], row["assigned_by"]) for row in rows]


def test_a_seed_example_goes_where_most_of_its_labels_went(new_context: NewContext) -> None:
    context = new_context(embedded_config())
    fill(context)
    assert cluster_teacher.run(context) == ""
    assert assigned(context) == [
        ("planning_meals", "label"), ("saving_money", "label"), (None, None),
    ]  # fmt: skip


@pytest.fixture
def asking(new_context: NewContext, teacher, tmp_path: Path):
    def make(structured: bool) -> Context:
        context = new_context(
            embedded_config(
                **teacher.endpoints,
                prompts={"pack": pack(tmp_path / "own", structured)},
                cluster={"names": "teacher", "relabel": "teacher"},
            )
        )
        fill(context)
        return context

    return make


def test_under_structured_output_every_seed_example_gets_a_cluster_that_was_offered(
    asking,
) -> None:
    context = asking(structured=True)
    summary = cluster_teacher.run(context)
    assert "3 seed examples relabelled" in summary
    rows = assigned(context)
    assert all(medoid in CLUSTERS and by == "teacher" for medoid, by in rows)
    before = context.store.value("SELECT count(*) FROM turn")
    assert cluster_teacher.run(context) == summary and assigned(context) == rows
    assert context.store.value("SELECT count(*) FROM turn") == before


def test_only_large_clusters_are_named_and_ids_and_medoids_stay(asking) -> None:
    context = asking(structured=True)
    cluster_teacher.run(context)
    rows = {row["medoid"]: row for row in context.store.query("FROM cluster")}
    assert rows.keys() == CLUSTERS.keys()
    assert all(row["cluster_id"] == stable_id("cluster", medoid) for medoid, row in rows.items())
    assert rows["saving_money"]["name"] == "saving_money"
    assert len({row["name"] for row in rows.values()}) == 3
    assert context.store.value("SELECT count(*) FROM turn WHERE template = 'cluster_name'") == 1


def test_what_the_teacher_says_beside_the_point_leaves_the_labels_cluster(asking) -> None:
    context = asking(structured=False)  # the miniature was never trained on these questions
    cluster_teacher.run(context)
    rows = assigned(context)
    assert rows[0][0] in CLUSTERS and rows[1][0] in CLUSTERS
    unusable = [by for _, by in rows if by != "teacher"]
    warned = context.store.value("SELECT count(*) FROM event WHERE kind = 'warning'")
    assert bool(unusable) == bool(warned)


def test_the_shortlist_begins_with_the_labels_own_clusters(asking) -> None:
    context = asking(structured=True)
    by_text = {seed.instruction: seed.choices for seed in cluster_teacher.shortlists(context)}
    assert set(by_text["What shall I cook this week?"][:2]) == {"planning_meals", "saving_money"}
    assert by_text["How do I spend less?"][0] == "saving_money"
    assert all(set(choices) == set(CLUSTERS) for choices in by_text.values())
