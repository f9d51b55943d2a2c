"""Stage cluster: raw labels -> skills (near-duplicates merged) -> clusters of skills.

Names are embedded, merged where they are the same skill in other words, and clustered with HDBSCAN.
What HDBSCAN leaves alone is a cluster of one, flagged rare. No language model takes part.
Alone: localism cluster --run NAME
"""

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localism.config import Cluster as ClusterConfig
from localism.config import Embedder
from localism.context import Context
from localism.errors import StageError
from localism.paths import embedded
from localism.records import stable_id
from localism.skill_names import content_stems, readable, stem
from localism.store import Store

Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]

# Words that say "this is a skill" and not which one: present or absent, the skill is the same.
# Not here: advanced, basic, online and other words that narrow a skill.
GENERIC_WORDS = (
    "ability aptitude capability competence competency expertise fundamental knowledge"
    " mastery method practice principle proficiency skill strategy technique"
)
# HDBSCAN's time grows with the square of the skills, and with the dimension: above these numbers
# of skills the vectors are reduced first (PCA, which unlike UMAP needs no seed and no JIT).
REDUCE_ABOVE = ((20_000, 15), (5_000, 50))
ROWS_AT_ONCE = 1024
KEYWORDS = 5
# A clustering outside these bounds has usually collapsed: one blob, or hardly anything found.
LARGEST_SHARE, LARGEST_SHARE_FROM = 0.10, 50
NOISE_SHARE = 0.60
FEWEST_CLUSTERS = 3


@dataclass(frozen=True)
class Skill:
    """A merged group of label names and where clustering put it."""

    name: str
    """The most frequent of the merged names."""
    count: int
    """Labels that point to it."""
    hdbscan_label: int
    """HDBSCAN's cluster number; -1 is noise."""
    strength: float
    """HDBSCAN's membership strength, 0 to 1."""
    cluster: str
    """Name of its cluster: the medoid skill's name, its own for a rare skill."""

    @property
    def is_rare(self) -> bool:
        """HDBSCAN found it no company."""
        return self.hdbscan_label < 0


@dataclass(frozen=True)
class Clustering:
    """Everything the stage writes."""

    skills: list[Skill]
    """Ordered by name."""
    skill_of: dict[str, str]
    """Label name to skill name."""
    persistence: dict[str, float]
    """Cluster name to HDBSCAN's cluster persistence; rare skills have none."""
    keywords: dict[str, str]
    """Cluster name to its c-TF-IDF terms."""
    warnings: list[str]
    """What looks wrong with it, for people."""


def run(context: Context) -> str:
    """Cluster every label of the corpus anew; the same labels give the same rows."""
    store = context.store
    counts = {
        row["name"]: row["n"]
        for row in store.query(
            "SELECT name, count(*) AS n FROM skill_label WHERE name IS NOT NULL"
            " GROUP BY name ORDER BY name"
        )
    }
    if not counts:
        raise StageError(
            "no skill label has a usable name",
            where="table skill_label",
            fix='run extract first; `localism sql "SELECT raw FROM skill_label"` shows what it got',
        )
    context.progress.update(0, len(counts), unit="names", detail="embedding")
    vectors = embed(list(counts), context.config.embedder)
    context.progress.update(len(counts), len(counts), unit="names", detail="clustering")
    found = cluster_names(counts, vectors, context.config.cluster)
    _save(store, found)
    for warning in found.warnings:
        context.warn("cluster", warning)
    return _summary(store, found)


def embed(names: Sequence[str], embedder: Embedder) -> Vectors:
    """Unit vectors of skill names, float64, shape (len(names), dimension)."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # of reading the weights; ours is the one on the terminal
    model = SentenceTransformer(
        str(embedded(embedder.path)),
        device="cpu" if embedder.device == "auto" else embedder.device,
        local_files_only=True,
    )
    vectors = model.encode(
        [readable(name) for name in names],
        batch_size=embedder.batch_size or 256,
        show_progress_bar=False,
        convert_to_numpy=True,
    ).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cluster_names(counts: dict[str, int], vectors: Vectors, config: ClusterConfig) -> Clustering:
    """From distinct label names with counts, and their unit vectors, to skills and clusters."""
    names = list(counts)
    groups = merge_duplicates(names, vectors, config.merge_cosine)
    best: dict[int, list[int]] = {}
    for group in groups:
        best[min(group, key=lambda i: _name_order(names[i], counts[names[i]]))] = group
    order = sorted(best, key=lambda i: names[i])
    merged = {names[i]: sum(counts[names[j]] for j in best[i]) for i in order}
    skill_of = {names[j]: names[i] for i in order for j in best[i]}
    labels, strengths, persistence = _hdbscan(vectors[order], config)
    cluster_of = _cluster_names(merged, vectors[order], labels)
    skills = [
        Skill(name, count, int(label), float(strength), cluster)
        for (name, count), label, strength, cluster in zip(
            merged.items(), labels, strengths, cluster_of, strict=True
        )
    ]
    return Clustering(
        skills,
        skill_of,
        {s.cluster: float(persistence[s.hdbscan_label]) for s in skills if not s.is_rare},
        keywords(skills),
        warnings(labels),
    )


def _name_order(name: str, count: int) -> tuple[int, int, str]:
    """Which of several names stands for all: the most frequent, the shortest, by letter."""
    return -count, len(name), name


# ---- near-duplicates -------------------------------------------------------------------------


def merge_duplicates(names: Sequence[str], vectors: Vectors, cosine: float) -> list[list[int]]:
    """Groups of indices that are one skill: the same content words, or alike in every pair.

    Complete linkage, so that a chain of near neighbours does not join its two ends. A group lies
    within a connected component of the graph of close pairs, so only components are linked: the
    outcome is that of the whole distance matrix, without its memory.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import squareform

    numbers: dict[frozenset[str], int] = {}
    words = np.array([numbers.setdefault(content_words(name), len(numbers)) for name in names])
    rows, columns = _close_pairs(words, vectors, cosine)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    _, component_of = connected_components(graph, directed=False)
    groups = []
    for members in _by_label(component_of).values():
        if len(members) == 1:
            groups.append(members)
            continue
        distances = 1 - vectors[members] @ vectors[members].T
        distances[words[members, None] == words[members]] = 0
        tree = linkage(squareform(distances.clip(0), checks=False), "complete")
        cut = fcluster(tree, 1 - cosine + 1e-9, "distance")
        groups += [[members[i] for i in group] for group in _by_label(cut).values()]
    return groups


def content_words(name: str) -> frozenset[str]:
    """Stems of a name without generic words, or all its stems when nothing else is there."""
    words = content_stems(name)
    return words - _generic_stems() or words


@functools.cache
def _generic_stems() -> frozenset[str]:
    return frozenset(stem(word) for word in GENERIC_WORDS.split())


def _close_pairs(words: Labels, vectors: Vectors, cosine: float) -> tuple[Labels, Labels]:
    """Pairs (i, j) with the same content words or alike enough, each in one order or both."""
    pairs: list[tuple[Labels, Labels]] = []
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        i, j = np.nonzero(
            (vectors[block] @ vectors.T >= cosine) | (words[block, None] == words[None])
        )
        pairs.append((i + start, j))
    return np.concatenate([i for i, _ in pairs]), np.concatenate([j for _, j in pairs])


def _by_label(labels: Labels) -> dict[int, list[int]]:
    """Indices by label, in order of first appearance."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[int(label)].append(index)
    return members


# ---- clusters --------------------------------------------------------------------------------


def _hdbscan(vectors: Vectors, config: ClusterConfig) -> tuple[Labels, Vectors, Vectors]:
    """(label per skill, strength per skill, persistence per cluster); everything deterministic.

    'leaf' because 'eom' collapses into one giant cluster on names, and the Euclidean distance of
    unit vectors, which orders pairs as the cosine does.
    """
    import hdbscan

    if len(vectors) <= config.min_samples:  # too few neighbours to speak of density
        return np.full(len(vectors), -1), np.zeros(len(vectors)), np.zeros(0)
    model = hdbscan.HDBSCAN(
        min_cluster_size=config.min_cluster_size,
        min_samples=config.min_samples,
        cluster_selection_method="leaf",
        metric="euclidean",
        core_dist_n_jobs=1,
    ).fit(_reduced(vectors))
    return model.labels_, model.probabilities_, model.cluster_persistence_


def _reduced(vectors: Vectors) -> Vectors:
    for above, dimensions in REDUCE_ABOVE:
        if len(vectors) > above:
            from sklearn.decomposition import PCA

            reduced: Vectors = PCA(dimensions, svd_solver="full").fit_transform(vectors)
            return reduced
    return vectors


def _cluster_names(merged: dict[str, int], vectors: Vectors, labels: Labels) -> list[str]:
    """Each skill's cluster name: its count-weighted medoid's, or its own where it is rare."""
    names, weights = list(merged), np.array(list(merged.values()), dtype=np.float64)
    cluster_of = list(names)
    for label, members in _by_label(labels).items():
        if label < 0:
            continue
        centre = weights[members] @ vectors[members]
        # Rounded, so that a tie does not hang on the last bit of a sum.
        likeness = np.round(vectors[members] @ centre, 9)
        medoid = min(
            zip(members, likeness, strict=True),
            key=lambda pair: (-pair[1], len(names[pair[0]]), names[pair[0]]),
        )[0]
        for member in members:
            cluster_of[member] = names[medoid]
    return cluster_of


def keywords(skills: Sequence[Skill]) -> dict[str, str]:
    """Cluster name -> its most telling words by c-TF-IDF: frequent in it, rare in the others."""
    words: dict[str, Counter[str]] = defaultdict(Counter)
    for skill in skills:
        for word in skill.name.split("_"):
            words[skill.cluster][word] += skill.count
    everywhere = sum(words.values(), Counter[str]())
    average = everywhere.total() / len(words)
    return {
        cluster: ", ".join(
            sorted(inside, key=lambda w: (-inside[w] * math.log1p(average / everywhere[w]), w))[
                :KEYWORDS
            ]
        )
        for cluster, inside in words.items()
    }


def warnings(labels: Labels) -> list[str]:
    """What in a clustering suggests that it collapsed or found little."""
    sizes, n = Counter(int(label) for label in labels), len(labels)
    noise = sizes.pop(-1, 0)
    largest = max(sizes.values(), default=0)
    found = []
    if n >= LARGEST_SHARE_FROM and largest > LARGEST_SHARE * n:
        found.append(f"the largest cluster holds {largest} of {n} skills")
    if noise > NOISE_SHARE * n:
        found.append(f"{noise} of {n} skills are in no cluster")
    if len(sizes) < FEWEST_CLUSTERS:
        found.append(f"only {len(sizes)} clusters among {n} skills")
    return found


# ---- rows ------------------------------------------------------------------------------------


def _save(store: Store, found: Clustering) -> None:
    """Replace skills and clusters and point the labels to them, all in one transaction."""
    sizes = Counter(skill.cluster for skill in found.skills)
    clusters = [
        {
            "cluster_id": stable_id("cluster", name),
            "name": name,
            "medoid": name,
            "size": size,
            "persistence": found.persistence.get(name),
            "keywords": found.keywords[name],
        }
        for name, size in sizes.items()
    ]
    skills = [
        {
            "skill_id": stable_id("skill", skill.name),
            "name": skill.name,
            "cluster_id": stable_id("cluster", skill.cluster),
            "rare": skill.is_rare,
            "count": skill.count,
            "hdbscan_label": skill.hdbscan_label,
            "strength": skill.strength,
        }
        for skill in found.skills
    ]
    skill_ids = [stable_id("skill", skill) for skill in found.skill_of.values()]
    with store.transaction():
        store.execute("DELETE FROM skill")
        store.execute("DELETE FROM cluster")
        store.add_rows("cluster", clusters)
        store.add_rows("skill", skills)
        store.execute(
            "UPDATE skill_label SET skill_id = found.skill_id"
            " FROM (SELECT unnest(?) AS name, unnest(?) AS skill_id) found"
            " WHERE skill_label.name = found.name",
            [list(found.skill_of), skill_ids],
        )


def _summary(store: Store, found: Clustering) -> str:
    rare = sum(skill.is_rare for skill in found.skills)
    unnamed = store.value("SELECT count(*) FROM skill_label WHERE name IS NULL")
    text = f"{len(found.persistence):,} clusters, {rare:,} skills on their own; "
    text += f"{len(found.skills):,} skills from {sum(s.count for s in found.skills):,} labels"
    text += f", {unnamed:,} labels unusable" if unnamed else ""
    return text + (f"; {len(found.warnings)} warnings" if found.warnings else "")
