"""Label names and their vectors -> skills, each in exactly one cluster."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localism.clustering.duplicates import by_label, merge_duplicates
from localism.clustering.methods import chosen_method, find_clusters
from localism.clustering.naming import keywords, medoids
from localism.config import Cluster as ClusterConfig

Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Skill:
    """A merged group of label names and where clustering put it."""

    name: str
    """The most frequent of the merged names."""
    count: int
    """Labels that point to it."""
    hdbscan_label: int
    """HDBSCAN's cluster number; -1 is noise, also where the noise policy found it a home."""
    strength: float
    """HDBSCAN's membership strength, 0 to 1."""
    cluster: str
    """Name of its cluster: the medoid skill's name, its own for a rare skill."""
    is_rare: bool
    """HDBSCAN found it no company and the noise policy no home."""


@dataclass(frozen=True)
class Clustering:
    """Everything that is known before anything is measured."""

    skills: list[Skill]
    """Ordered by name."""
    vectors: Vectors
    """Unit vectors of the skills, (skills, dimension)."""
    skill_of: dict[str, str]
    """Label name to skill name."""
    persistence: dict[str, float]
    """Cluster name to HDBSCAN's cluster persistence; rare skills have none."""
    keywords: dict[str, str]
    """Cluster name to its c-TF-IDF terms."""
    relative_validity: float | None
    """See methods.relative_validity."""
    method: str
    """hdbscan, fast or cuml."""


def cluster_names(
    counts: Mapping[str, int], vectors: Vectors, config: ClusterConfig, seed: int = 0
) -> Clustering:
    """From distinct label names with counts, and their unit vectors, to skills and clusters.

    The order of the names decides nothing; the seed matters only to approximate neighbours.
    """
    skill_of, kept = _merged(counts, vectors, config, seed)
    merged = dict.fromkeys(sorted(kept), 0)
    for name, skill in skill_of.items():
        merged[skill] += counts[name]
    places = [kept[name] for name in merged]
    vectors = vectors[places]
    method = chosen_method(config, len(merged))
    found = find_clusters(vectors, config, method, seed)
    name_of = medoids(merged, vectors, found.labels)
    skills = [
        Skill(
            name, count, int(label), float(strength), name_of.get(int(home), name), bool(home < 0)
        )
        for (name, count), label, strength, home in zip(
            merged.items(),
            found.labels,
            found.strengths,
            homes(vectors, found.labels, config),
            strict=True,
        )
    ]
    return Clustering(
        skills,
        vectors,
        skill_of,
        {name: float(found.persistence[label]) for label, name in name_of.items()},
        keywords((s.name, s.count, s.cluster) for s in skills),
        found.relative_validity,
        method,
    )


def _merged(
    counts: Mapping[str, int], vectors: Vectors, config: ClusterConfig, seed: int
) -> tuple[dict[str, str], dict[str, int]]:
    """Label name -> the name of its skill, and that name's row in vectors.

    Of several names the most frequent one stands for all, then the shortest, then by letter.
    """
    names = list(counts)
    skill_of: dict[str, str] = {}
    kept: dict[str, int] = {}
    for group in merge_duplicates(names, vectors, config.merge_cosine, seed):
        best = min(group, key=lambda i: (-counts[names[i]], len(names[i]), names[i]))
        kept[names[best]] = best
        skill_of |= {names[i]: names[best] for i in group}
    return skill_of, kept


def homes(vectors: Vectors, labels: Labels, config: ClusterConfig) -> Labels:
    """The cluster of every skill after the noise policy; -1 is a cluster of its own.

    A noise point that gets a home gets that of the nearest centroid, the mean direction of what
    HDBSCAN put there. Of 16 such homes between cosine .5 and .75 nine were acceptable to a reader:
    hence rare is the default, and absorb stops at [cluster].absorb_cosine.
    """
    noise = np.flatnonzero(labels < 0)
    clusters = [members for label, members in sorted(by_label(labels).items()) if label >= 0]
    if config.noise == "rare" or not len(noise) or not clusters:
        return labels
    centroids = np.array([vectors[members].mean(axis=0) for members in clusters])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    least = config.absorb_cosine if config.noise == "absorb" else -1.0
    found = labels.copy()
    for start in range(0, len(noise), ROWS_AT_ONCE):
        rows = noise[start : start + ROWS_AT_ONCE]
        cosines = vectors[rows] @ centroids.T
        near = cosines.max(axis=1) >= least - 1e-9
        found[rows[near]] = cosines.argmax(axis=1)[near]
    return found
