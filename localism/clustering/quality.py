"""How good a clustering is by its own measures, what looks bad, and what to change.

No measure here knows what a skill means. Large inputs are sampled with the seed, so that looking
takes seconds however many skills there are: stability clusters at most STABILITY_SKILLS skills,
the silhouette compares at most SILHOUETTE_SKILLS (whole clusters), and the near-duplicate rate asks
for the neighbours of at most NEAR_SKILLS.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from localism.clustering.methods import find_clusters
from localism.clustering.skills import Clustering
from localism.config import Cluster as ClusterConfig
from localism.tables import number_of

Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]

STABILITY_SKILLS, STABILITY_DRAWS, STABILITY_SHARE = 3_000, 3, 0.8
SILHOUETTE_SKILLS = 5_000
NEAR_SKILLS = 2_000
FEWEST_SKILLS = 10
"""Of fewer, no share says anything."""
# Bars from the appendix lists of the paper: the defaults lie well inside, collapsed ones outside.
LARGEST_SHARE, LARGEST_FROM = 0.10, 50
NOISE_SHARE = 0.60
FEWEST_CLUSTERS = 3
SILHOUETTE = 0.10
STABILITY = 0.50
NEAR_COSINE, NEAR_SHARE = 0.86, 0.15
INDISTINCT_SHARE = 0.01


class Measure(NamedTuple):
    """A row of table cluster_quality."""

    metric: str
    """Its name."""
    value: float | None
    """None when it could not be computed."""
    warning: str | None
    """When it looks bad: what, and what to change."""


def measures(
    found: Clustering, config: ClusterConfig, seed: int, more: str = "get more skills"
) -> list[Measure]:
    """Every measure of a clustering, in the order of the report; `more` is advice.

    relative_validity has no bar: it compares clusterings of the same vectors, and says little
    about one (docs/decisions/0005).
    """
    sizes = Counter(skill.cluster for skill in found.skills if not skill.is_rare)
    noise = sum(skill.hdbscan_label < 0 for skill in found.skills)
    skills = len(found.skills)
    unknown = indistinct_share(found.vectors)
    alike = near_duplicate_rate(found.vectors, seed)
    silhouette = cosine_silhouette(found, seed)
    again = stability(found.vectors, config, seed)
    return [
        Measure("skills", skills, None),
        Measure("clusters", len(sizes), _few_clusters(len(sizes), skills, config, more)),
        Measure("noise_share", noise / skills, _much_noise(noise, skills, config)),
        Measure("rare_skills", sum(skill.is_rare for skill in found.skills), None),
        Measure(
            "largest_share", max(sizes.values(), default=0) / skills, _blob(sizes, skills, config)
        ),
        Measure("relative_validity", found.relative_validity, None),
        Measure("silhouette", silhouette, _loose(silhouette, config)),
        Measure("stability", again, _unstable(again, config)),
        Measure("near_duplicate_rate", alike, _alike(alike, config)),
        Measure("indistinct_share", unknown, _unknown(unknown)),
    ]


# ---- the figures -----------------------------------------------------------------------------


def cosine_silhouette(found: Clustering, seed: int) -> float | None:
    """Mean cosine silhouette of the skills that are in a cluster with others; -1 to 1."""
    from sklearn.metrics import silhouette_score

    homes = [None if skill.is_rare else skill.cluster for skill in found.skills]
    members: dict[str, list[int]] = {}
    for place, home in enumerate(homes):
        if home is not None:
            members.setdefault(home, []).append(place)
    clusters = list(members.values())
    np.random.default_rng(seed).shuffle(clusters)
    rows: list[int] = []
    labels: list[int] = []
    for number, cluster in enumerate(clusters):
        if not rows or len(rows) + len(cluster) <= SILHOUETTE_SKILLS:
            rows += cluster[:SILHOUETTE_SKILLS]
            labels += [number] * len(cluster[:SILHOUETTE_SKILLS])
    if not 2 <= len(set(labels)) < len(labels):
        return None
    return float(silhouette_score(found.vectors[rows], labels, metric="cosine"))


def stability(vectors: Vectors, config: ClusterConfig, seed: int) -> float | None:
    """Mean adjusted Rand index between clusterings of all skills and of 80 % of them; 1 is equal.

    Noise counts as clusters of one. The resamples are clustered by the graph of neighbours, which
    finds what the exact method finds (methods.py) in a tenth of its time.
    """
    from sklearn.metrics import adjusted_rand_score

    if len(vectors) < FEWEST_SKILLS:
        return None
    rng = np.random.default_rng(seed)
    vectors = vectors[_sample(rng, len(vectors), STABILITY_SKILLS)]
    whole = find_clusters(vectors, config, "fast", seed).labels
    if whole.max() < 0:
        return None
    scores = []
    for _ in range(STABILITY_DRAWS):
        rows = _sample(rng, len(vectors), int(STABILITY_SHARE * len(vectors)))
        part = find_clusters(vectors[rows], config, "fast", seed).labels
        scores.append(adjusted_rand_score(singled(whole[rows]), singled(part)))
    return float(np.mean(scores))


def indistinct_share(vectors: Vectors) -> float:
    """Share of skills with the vector of another one: words that the embedder does not know."""
    rounded = np.round(vectors[:, :8], 5)  # of 384 numbers, enough to tell two vectors apart
    _, group, sizes = np.unique(rounded, axis=0, return_inverse=True, return_counts=True)
    return float((sizes[group] > 1).mean())


def near_duplicate_rate(vectors: Vectors, seed: int) -> float | None:
    """Share of skills that have another one at least NEAR_COSINE alike."""
    if len(vectors) < FEWEST_SKILLS:
        return None
    single = vectors.astype(np.float32)
    rows = _sample(np.random.default_rng(seed), len(vectors), NEAR_SKILLS)
    near = 0
    for start in range(0, len(rows), 256):
        block = rows[start : start + 256]
        cosines = single[block] @ single.T
        cosines[np.arange(len(block)), block] = -1
        near += int((cosines.max(axis=1) >= NEAR_COSINE).sum())
    return near / len(rows)


def _sample(rng: np.random.Generator, n: int, size: int) -> Labels:
    return np.sort(rng.choice(n, min(n, size), replace=False))


def singled(labels: Labels) -> Labels:
    """Labels with a number of its own for each noise point."""
    return np.where(labels < 0, -1 - np.arange(len(labels)), labels)


# ---- what looks bad --------------------------------------------------------------------------


def _few_clusters(clusters: int, skills: int, config: ClusterConfig, more: str) -> str | None:
    if clusters >= FEWEST_CLUSTERS:
        return None
    change = _smaller(config) or more
    return f"only {number_of(clusters, 'cluster')} among {skills} skills; {change}"


def _much_noise(noise: int, skills: int, config: ClusterConfig) -> str | None:
    if noise <= NOISE_SHARE * skills:
        return None
    change = _smaller(config) or '[cluster].noise = "absorb" gives them to the nearest cluster'
    return f"{noise} of {skills} skills are in no cluster of HDBSCAN; {change}"


def _smaller(config: ClusterConfig) -> str:
    """The HDBSCAN keys that ask for more than the least."""
    least = {"min_samples": 1, "min_cluster_size": 2}
    keys = [f"[cluster].{key} = {v}" for key, v in least.items() if getattr(config, key) > v]
    return f"set {' and '.join(keys)}" if keys else ""


def _blob(sizes: Counter[str], skills: int, config: ClusterConfig) -> str | None:
    if skills < LARGEST_FROM or max(sizes.values(), default=0) <= LARGEST_SHARE * skills:
        return None
    largest = ", ".join(f"{name} {size}" for name, size in sizes.most_common(3))
    if config.selection == "eom":
        change = 'set [cluster].selection = "leaf", which does not collapse'
    elif config.noise == "assign-all":
        change = 'set [cluster].noise = "rare"'
    else:
        change = _smaller(config) or "get skills of more themes if all of them are of one"
    return f"the largest clusters hold too much ({largest} of {skills} skills); {change}"


def _loose(silhouette: float | None, config: ClusterConfig) -> str | None:
    if silhouette is None or silhouette >= SILHOUETTE:
        return None
    change = _smaller(config) or "an embedder that knows this domain ([embedder].path)"
    if config.noise != "rare":
        change = 'set [cluster].noise = "rare"'
    return f"clusters hardly differ (cosine silhouette {silhouette:.2f}); {change}"


def _unstable(stability: float | None, config: ClusterConfig) -> str | None:
    if stability is None or stability >= STABILITY:
        return None
    change = _smaller(config) or "more labels, or mix single skills ([mix].unit)"
    return (
        f"clusters change when a fifth of the skills is missing (agreement {stability:.2f}, 1 is"
        f" equal); {change}"
    )


def _alike(share: float | None, config: ClusterConfig) -> str | None:
    if share is None or share <= NEAR_SHARE:
        return None
    lower = min(NEAR_COSINE, round(config.merge_cosine - 0.04, 2))
    return (
        f"{share:.0%} of the skills have a near double (cosine {NEAR_COSINE} or more); lower"
        f" [cluster].merge_cosine to {lower}, at some false merges"
    )


def _unknown(share: float) -> str | None:
    if share <= INDISTINCT_SHARE:
        return None
    return (
        f"{share:.0%} of the skills have equal vectors, because the embedder does not know their"
        " words; set [embedder].path to a model of their language"
    )
