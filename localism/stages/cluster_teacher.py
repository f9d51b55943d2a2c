"""The half of stage cluster that may ask the teacher, where models.toml says so.

Names: a larger cluster is named from its members instead of after its medoid ([cluster].names).
Relabelling: each seed example gets the one skill cluster that it exhibits most, so that clusters
have exemplars (Didolkar et al. 2024, section 3): the cluster of its own labels, or, with
[cluster].relabel = "teacher", the one that the teacher chooses among the nearest.
"""

import asyncio
import itertools
from dataclasses import dataclass

import numpy as np

from localism.clustering.embed import vectors_of
from localism.context import Context
from localism.parsing.structured import one_text, read_text
from localism.prompting.packs import Pack, load_pack
from localism.records import Sampling
from localism.serving.client import Client, RequestFailed
from localism.serving.server import serve
from localism.skill_names import normalise, readable
from localism.stages.extract_seeds import shortened
from localism.store import Row, Store
from localism.tables import number_of

# A pair is as well named by one of the two; from four members on a name can say what they share.
NAMED_FROM = 4
SHOWN_MEMBERS = 30
SHORTLIST = 12
SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=64)


@dataclass(frozen=True)
class Seed:
    """A seed example and the clusters that it may belong to."""

    seed_id: str
    """Its row in seed_example."""
    instruction: str
    """Its text."""
    choices: tuple[str, ...]
    """Names of clusters, the nearest first."""


def run(context: Context) -> str:
    """Name clusters and assign seed examples; returns what the stage's summary adds."""
    assign_by_labels(context.store)
    section = context.config.cluster
    wants_names = section.names == "teacher"
    wants_seeds = section.relabel == "teacher" and context.store.value(
        "SELECT count(*) FROM seed_example"
    )
    if not wants_names and not wants_seeds:
        return ""
    return asyncio.run(_ask(context, wants_names=wants_names, wants_seeds=bool(wants_seeds)))


async def _ask(context: Context, *, wants_names: bool, wants_seeds: bool) -> str:
    pack = load_pack(context.config.prompts.pack)
    done = []
    async with serve(context, role="teacher", stage="cluster") as client:
        if wants_names:
            named = await _name(context, client, pack)
            done.append(f"{number_of(named, 'cluster')} named by the teacher")
        if wants_seeds:
            labelled = await _relabel(context, client, pack)
            done.append(f"{number_of(labelled, 'seed example')} relabelled by it")
    return "".join(f"; {text}" for text in done)


# ---- names -----------------------------------------------------------------------------------


async def _name(context: Context, client: Client, pack: Pack) -> int:
    """Name every cluster of NAMED_FROM skills or more; returns how many got a name of their own."""
    clusters = context.store.query(
        "SELECT c.cluster_id, c.medoid, list(s.name ORDER BY s.count DESC, s.name) AS members"
        " FROM cluster c JOIN skill s USING (cluster_id)"
        " GROUP BY ALL HAVING count(*) >= ? ORDER BY c.medoid",
        [NAMED_FROM],
    )
    replies: dict[str, str] = {}

    async def ask(cluster: Row) -> None:
        members = cluster["members"][:SHOWN_MEMBERS]
        prompt = pack.render("cluster_name", members=members)
        text = await _say(client, pack, prompt, "cluster_name", one_text("name"))
        replies[cluster["cluster_id"]] = read_text(text, "name")
        context.progress.update(len(replies), len(clusters), unit="clusters", detail="naming")

    await client.for_each(clusters, ask)
    taken = {row["medoid"] for row in context.store.query("SELECT medoid FROM cluster")}
    named = 0
    for cluster in clusters:  # in one order, so that of two equal names the same one wins
        name = normalise(replies[cluster["cluster_id"]]).text
        if name is None or name in taken - {cluster["medoid"]}:
            name = cluster["medoid"]
        taken.add(name)
        named += name != cluster["medoid"]
        context.store.execute(
            "UPDATE cluster SET name = ? WHERE cluster_id = ?", [name, cluster["cluster_id"]]
        )
    return named


# ---- seed examples ---------------------------------------------------------------------------


def assign_by_labels(store: Store) -> None:
    """Every labelled seed example goes where most of its labels went; ties to the larger skill."""
    store.execute(
        """
        UPDATE seed_example SET cluster_id = best.cluster_id, assigned_by = 'label',
                                assigned_turn_id = NULL
        FROM (
            SELECT l.seed_id, s.cluster_id
            FROM skill_label l JOIN skill s USING (skill_id) WHERE l.seed_id IS NOT NULL
            GROUP BY l.seed_id, s.cluster_id
            QUALIFY row_number() OVER (
                PARTITION BY l.seed_id ORDER BY count(*) DESC, sum(s.count) DESC, min(s.name)
            ) = 1
        ) best
        WHERE seed_example.seed_id = best.seed_id
        """
    )


async def _relabel(context: Context, client: Client, pack: Pack) -> int:
    """Let the teacher choose the cluster of every seed example; returns for how many it did."""
    seeds = shortlists(context)
    cluster_ids = {row["name"]: row["cluster_id"] for row in context.store.query("FROM cluster")}
    chosen: list[Row] = []
    done = 0

    async def ask(seed: Seed) -> None:
        nonlocal done
        instruction = shortened(seed.instruction)
        prompt = pack.render("relabel", instruction=instruction, choices=seed.choices)
        text = await _say(client, pack, prompt, "relabel", one_text("skill", seed.choices))
        name = normalise(read_text(text, "skill")).text
        if name in seed.choices:
            chosen.append({"seed_id": seed.seed_id, "cluster_id": cluster_ids[name]})
        done += 1
        context.progress.update(done, len(seeds), unit="seed examples", detail="relabelling")

    await client.for_each(seeds, ask)
    context.store.execute(
        "UPDATE seed_example SET cluster_id = chosen.cluster_id, assigned_by = 'teacher'"
        " FROM (SELECT unnest(?) AS seed_id, unnest(?) AS cluster_id) chosen"
        " WHERE seed_example.seed_id = chosen.seed_id",
        [[row["seed_id"] for row in chosen], [row["cluster_id"] for row in chosen]],
    )
    if len(chosen) < len(seeds):
        context.warn(
            "cluster",
            f"the teacher chose no cluster for {len(seeds) - len(chosen)} of {len(seeds)} seed"
            " examples; those keep the one of their labels",
        )
    return len(chosen)


def shortlists(context: Context) -> list[Seed]:
    """For each seed example its own labels' clusters and the nearest others, SHORTLIST in all.

    Near by the cosine of the mean of its labels' names, or of its text when no label is usable,
    to the cluster's medoid.
    """
    store, embedder = context.store, context.config.embedder
    clusters = store.query("SELECT name, medoid FROM cluster ORDER BY name")
    seeds = store.query(
        """
        SELECT e.seed_id, any_value(e.instruction) AS instruction,
               list(l.name ORDER BY l.label_id) FILTER (l.name IS NOT NULL) AS labels,
               list(DISTINCT c.name) FILTER (c.name IS NOT NULL) AS own
        FROM seed_example e LEFT JOIN skill_label l USING (seed_id)
        LEFT JOIN skill s USING (skill_id) LEFT JOIN cluster c ON c.cluster_id = s.cluster_id
        GROUP BY e.seed_id ORDER BY e.seed_id
        """
    )
    medoids = vectors_of(store, [readable(row["medoid"]) for row in clusters], embedder)
    texts = [[*map(readable, row["labels"] or ())] or [row["instruction"]] for row in seeds]
    every = list(dict.fromkeys(itertools.chain(*texts)))
    vectors = dict(zip(every, vectors_of(store, every, embedder), strict=True))
    found = []
    for row, own in zip(seeds, texts, strict=True):
        centre = np.mean([vectors[text] for text in own], axis=0)
        order = np.argsort(-np.round(medoids @ centre, 9), kind="stable")
        nearest = [clusters[index]["name"] for index in order]
        choices = list(dict.fromkeys([*sorted(row["own"] or []), *nearest]))[:SHORTLIST]
        found.append(Seed(row["seed_id"], row["instruction"], tuple(choices)))
    return found


async def _say(
    client: Client, pack: Pack, prompt: str, template: str, form: dict[str, object]
) -> str:
    """The teacher's reply, or nothing when the call failed."""
    extra = form if pack.structured else {}
    try:
        reply = await client.conversation().say(
            prompt, template=template, sampling=SAMPLING, extra=extra
        )
    except RequestFailed:
        return ""
    return reply.text
