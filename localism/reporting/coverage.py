"""Which skills and pairs the examples cover, and where the holes are."""

from collections import Counter
from statistics import median
from typing import Any

from localism.store import Row, Store
from localism.tables import number_of

MOST_SKILLS = 3000  # in the page's table and map; the corpus has all of them
MOST_CLUSTERS = 28  # in the matrix: more cells than that cannot be told apart
LISTED = 24

_SKILLS = """
SELECT v.*, s.map_x, s.map_y, s.count AS labels, cl.size
FROM skill_coverage v JOIN skill s ON s.name = v.skill JOIN cluster cl USING (cluster_id)
ORDER BY v.skill
"""

# Each unordered pair of the skills of a mix, by the clusters that they are in.
_PAIRS = """
WITH part AS (
    SELECT mix_id, position, cluster_id
    FROM mix_skill JOIN skill USING (skill_id) JOIN cluster USING (cluster_id)
)
SELECT least(a.cluster_id, b.cluster_id) AS one, greatest(a.cluster_id, b.cluster_id) AS other,
       count(*) AS planned, count(*) FILTER (accepted) AS accepted
FROM part a JOIN part b ON a.mix_id = b.mix_id AND a.position < b.position
JOIN mix_outcome o ON o.mix_id = a.mix_id GROUP BY ALL
"""

_LOST_PAIRS = """
SELECT skill_a, skill_b, planned FROM pair_coverage WHERE planned > 0 AND accepted = 0
ORDER BY planned DESC, skill_a, skill_b
"""


def collect(store: Store) -> dict[str, Any]:
    """Facts by name: skills, holes, the matrix of clusters, clusters with their members."""
    skills = store.query(_SKILLS)
    return {
        "skills": skills,
        "shown_skills": shown(skills),
        "uses": _uses(skills),
        "holes": holes(store, skills),
        "matrix": matrix(store),
        "balance": store.query("SELECT * FROM coverage_balance"),
        "query_types": store.query(
            "SELECT query_type, sum(planned)::BIGINT AS planned, sum(accepted)::BIGINT AS accepted,"
            " sum(rejected)::BIGINT AS rejected FROM query_type_coverage GROUP BY query_type"
            " ORDER BY accepted DESC, query_type"
        ),
        "cluster_members": store.query(
            "SELECT cl.name, cl.size, "
            "string_agg(s.name, ', ' ORDER BY s.count DESC, s.name) AS members "
            "FROM cluster cl JOIN skill s USING (cluster_id) WHERE cl.size > 1 "
            f"GROUP BY ALL ORDER BY cl.size DESC, cl.name LIMIT {LISTED}"
        ),
    }


def shown(skills: list[Row]) -> list[Row]:
    """All of them, or of very many those that are used least and every n-th of the others."""
    if len(skills) <= MOST_SKILLS:
        return skills
    by_use = sorted(skills, key=lambda row: (row["accepted"], row["skill"]))
    least, rest = by_use[: MOST_SKILLS // 2], by_use[MOST_SKILLS // 2 :]
    room = MOST_SKILLS - len(least)
    kept = least + [rest[place * len(rest) // room] for place in range(room)]
    return sorted(kept, key=lambda row: row["skill"])


def _uses(skills: list[Row]) -> list[Row]:
    """How many skills have how many planned and how many accepted examples."""
    planned = Counter(row["planned"] for row in skills)
    accepted = Counter(row["accepted"] for row in skills)
    return [
        {"examples": n, "planned": planned[n], "accepted": accepted[n]}
        for n in sorted(planned | accepted)
    ]


def holes(store: Store, skills: list[Row]) -> dict[str, Any]:
    """Skills that no accepted example has, thin ones (half the median or less), and lost pairs."""
    used = [row["accepted"] for row in skills]
    middle = median(used) if used else 0
    by_use = sorted(skills, key=lambda row: (row["accepted"], -row["planned"], row["skill"]))
    thin = [row for row in by_use if 0 < row["accepted"] <= middle / 2]
    never = [row for row in by_use if row["accepted"] == 0]
    lost = store.query(_LOST_PAIRS)
    return {
        "median": middle,
        "never": never[:LISTED],
        "never_count": len(never),
        "thin": thin[:LISTED],
        "thin_count": len(thin),
        "lost_pairs": lost[:LISTED],
        "lost_pair_count": len(lost),
    }


def matrix(store: Store, most: int = MOST_CLUSTERS) -> dict[str, Any] | None:
    """Pairs of skills by the clusters that they are in; None where no mix has two skills.

    The largest clusters have a row each, the others share one, skills on their own another.
    `even` is how many accepted pairs a cell would have if all pairs of skills were used alike.
    """
    pairs = store.query(_PAIRS)
    if not pairs:
        return None
    clusters = store.query("SELECT cluster_id, name, size FROM cluster ORDER BY size DESC, name")
    group_of, groups = _groups(clusters, most)
    planned: Counter[tuple[int, int]] = Counter()
    accepted: Counter[tuple[int, int]] = Counter()
    for pair in pairs:
        low, high = sorted((group_of[pair["one"]], group_of[pair["other"]]))
        planned[low, high] += pair["planned"]
        accepted[low, high] += pair["accepted"]
    total, skills = accepted.total(), sum(group["skills"] for group in groups)
    cells = []
    for low in range(len(groups)):
        for high in range(low, len(groups)):
            share = _possible(groups, low, high) / max(1, skills * (skills - 1) / 2)
            known = planned[low, high], accepted[low, high]
            cells.append([low, high, *known, round(total * share, 2)])
    return {"groups": groups, "cells": cells}


def _groups(clusters: list[Row], most: int) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Cluster id -> place of its group, and the groups with their names and skills."""
    alone = [row for row in clusters if row["size"] == 1]
    others = [row for row in clusters if row["size"] > 1]
    parts = [[row] for row in others[:most]] + [others[most:], alone]
    names = [row["name"] for row in others[:most]]
    names += [number_of(len(others) - most, "other cluster")]
    names += [number_of(len(alone), "skill on its own", "skills on their own")]
    kept = [(name, part) for name, part in zip(names, parts, strict=True) if part]
    most = min(most, len(others))
    group_of = {row["cluster_id"]: place for place, (_, part) in enumerate(kept) for row in part}
    return group_of, [
        {"name": name, "skills": sum(row["size"] for row in part), "is_one": place < most}
        for place, (name, part) in enumerate(kept)
    ]


def _possible(groups: list[dict[str, Any]], low: int, high: int) -> float:
    mine, other = groups[low]["skills"], groups[high]["skills"]
    return mine * (mine - 1) / 2 if low == high else float(mine * other)
