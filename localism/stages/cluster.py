"""Stage cluster: raw labels -> skills (near-duplicates merged) -> clusters of skills.

Names are embedded, merged where they are the same skill in other words, and clustered with HDBSCAN.
What HDBSCAN leaves alone is a cluster of one, flagged rare, unless [cluster].noise finds it a home.
No language model takes part, unless [cluster] asks for the teacher at the end.
Alone: localism cluster --run NAME
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from localism.clustering.embed import vectors_of
from localism.clustering.layout import places
from localism.clustering.quality import Measure, measures
from localism.clustering.skills import Clustering, cluster_names
from localism.context import Context
from localism.errors import StageError
from localism.records import stable_id
from localism.stages import cluster_teacher
from localism.store import Row, Store
from localism.tables import number_of


def run(context: Context) -> str:
    """Cluster every label of the corpus anew; the same labels give the same rows."""
    store, config, progress = context.store, context.config, context.progress
    counts = _names(store)

    def embedded(done: int) -> None:
        progress.update(done, len(counts), unit="names", detail="embedding")

    vectors = vectors_of(store, list(counts), config.embedder, embedded)
    progress.update(len(counts), len(counts), unit="names", detail="clustering")
    found = cluster_names(counts, vectors, config.cluster, config.seed)
    progress.update(len(counts), len(counts), unit="names", detail="measuring")
    quality = measures(found, config.cluster, config.seed, context.more_skills())
    _save(store, found, places(found.vectors, config.seed), quality)
    warnings = [measure.warning for measure in quality if measure.warning]
    for warning in warnings:
        context.warn("cluster", warning)
    return _summary(store, found, len(warnings)) + cluster_teacher.run(context)


def _names(store: Store) -> dict[str, int]:
    """Usable names, by letter, and how many labels have each."""
    counts = {
        row["name"]: row["n"]
        for row in store.query(
            "SELECT name, count(*) AS n FROM skill_label"
            " WHERE name IS NOT NULL AND unusable IS NULL GROUP BY name ORDER BY name"
        )
    }
    if not counts:
        raise StageError(
            "no skill label has a usable name",
            where="table skill_label",
            fix='run extract first; `localism sql "SELECT raw, unusable FROM skill_label"` shows'
            " what it got",
        )
    return counts


def _save(
    store: Store, found: Clustering, where: NDArray[np.float64], quality: Sequence[Measure]
) -> None:
    """Replace skills and clusters and point the labels to them, all in one transaction."""
    with store.transaction():
        for table in ("skill", "cluster", "cluster_quality"):
            store.execute(f"DELETE FROM {table}")
        store.add_rows("cluster", _cluster_rows(found))
        store.add_rows("skill", _skill_rows(found, where))
        store.add_rows("cluster_quality", [measure._asdict() for measure in quality])
        store.execute("UPDATE skill_label SET skill_id = NULL WHERE skill_id IS NOT NULL")
        store.execute(
            "UPDATE skill_label SET skill_id = found.skill_id"
            " FROM (SELECT unnest(?) AS name, unnest(?) AS skill_id) found"
            " WHERE skill_label.name = found.name AND unusable IS NULL",
            [
                list(found.skill_of),
                [stable_id("skill", skill) for skill in found.skill_of.values()],
            ],
        )


def _cluster_rows(found: Clustering) -> list[Row]:
    sizes = Counter(skill.cluster for skill in found.skills)
    return [
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


def _skill_rows(found: Clustering, where: NDArray[np.float64]) -> list[Row]:
    return [
        {
            "skill_id": stable_id("skill", skill.name),
            "name": skill.name,
            "cluster_id": stable_id("cluster", skill.cluster),
            "rare": skill.is_rare,
            "count": skill.count,
            "hdbscan_label": skill.hdbscan_label,
            "strength": skill.strength,
            "map_x": float(x),
            "map_y": float(y),
        }
        for skill, (x, y) in zip(found.skills, where, strict=True)
    ]


def _summary(store: Store, found: Clustering, warnings: int) -> str:
    rare = sum(skill.is_rare for skill in found.skills)
    unusable = store.value(
        "SELECT count(*) FROM skill_label WHERE name IS NULL OR unusable IS NOT NULL"
    )
    labels = sum(skill.count for skill in found.skills)
    text = f"{number_of(len(found.persistence), 'cluster')}, "
    text += f"{number_of(rare, 'skill on its own', 'skills on their own')}; "
    text += f"{number_of(len(found.skills), 'skill')} from {number_of(labels, 'label')}"
    text += f", {number_of(unusable, 'label')} unusable" if unusable else ""
    return text + (f"; {number_of(warnings, 'warning')}" if warnings else "")
