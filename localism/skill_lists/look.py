"""The skills of a run, a cluster, or a search -> rows.  Alone: localism skills --run NAME

Everything is read through reader.read, so that it works beside a running process.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localism import offline, reader, tables
from localism.config import Embedder
from localism.errors import ConfigError, UsageError
from localism.skill_names import normalise

EXEMPLARS = 3
SHOWN_EXEMPLARS = 8
NEAREST = 3

_LISTING = """
WITH seen AS (
    SELECT l.skill_id, list_sort(list(DISTINCT l.source)) AS sources,
           list_sort(list(DISTINCT e.instruction) FILTER (e.instruction IS NOT NULL)) AS seeds,
           list_sort(list(DISTINCT 'topic: ' || t.name) FILTER (t.name IS NOT NULL)) AS topics
    FROM skill_label l LEFT JOIN seed_example e USING (seed_id) LEFT JOIN topic t USING (topic_id)
    WHERE l.skill_id IS NOT NULL GROUP BY l.skill_id
)
SELECT s.name AS skill, s.count AS labels, cl.name AS cluster, s.rare,
       coalesce(sources, []) AS sources,
       coalesce(seeds, topics, [])[1:{exemplars}] AS exemplars
FROM skill s JOIN cluster cl USING (cluster_id) LEFT JOIN seen USING (skill_id)
WHERE {condition} ORDER BY labels DESC, skill
"""


def listing(folder: Path, condition: str = "true") -> list[dict[str, Any]]:
    """One row a skill, the largest first: skill, labels, cluster, rare, sources, exemplars.

    Exemplars are up to EXEMPLARS seed instructions whose labels became the skill, or else the
    topics that its labels came from. `condition` is SQL over skill s and cluster cl.
    """
    rows = _read(folder, _LISTING.format(exemplars=EXEMPLARS, condition=condition))
    if not rows and not _read(folder, "SELECT 1 FROM skill LIMIT 1"):
        raise ConfigError(
            "this run has no skills yet",
            where=str(folder),
            fix=f"localism cluster --run {folder.name}, or localism skills import FILE.csv",
        )
    return rows


def noise(folder: Path) -> list[dict[str, Any]]:
    """Skills that HDBSCAN left alone, also where the noise policy found them a home."""
    return listing(folder, "s.hdbscan_label < 0")


def cluster(folder: Path, name: str) -> dict[str, Any]:
    """One cluster: its facts, its members, and the seed instructions that exhibit it.

    Raises UsageError, naming the nearest clusters, or the one that a skill of this name is in.
    """
    listing(folder, "false")  # a run without skills says so
    found = _clusters_named(folder, name)
    if not found:
        raise _no_such_cluster(folder, name)
    facts = found[0]
    cluster_id = facts.pop("cluster_id")
    exemplars = _read(
        folder,
        "SELECT instruction, assigned_by FROM seed_example "
        f"WHERE cluster_id = '{cluster_id}' ORDER BY source, ordinal",
    )
    members = listing(folder, f"cl.cluster_id = '{cluster_id}'")
    return {**facts, "members": members, "exemplars": exemplars}


def _clusters_named(folder: Path, name: str) -> list[dict[str, Any]]:
    names = ", ".join(_literal(text) for text in (name, normalise(name).text) if text)
    return _read(
        folder,
        "SELECT cluster_id, name AS cluster, medoid, size AS skills, persistence, keywords "
        f"FROM cluster WHERE name IN ({names or 'NULL'}) ORDER BY name <> {_literal(name)}",
    )


def _no_such_cluster(folder: Path, name: str) -> UsageError:
    wanted = normalise(name).text or name
    home = [row["cluster"] for row in listing(folder, f"s.name = {_literal(wanted)}")]
    every = [row["name"] for row in _read(folder, "SELECT name FROM cluster ORDER BY size DESC")]
    nearest = home or difflib.get_close_matches(wanted, every, NEAREST, 0.0)
    is_skill = f"{wanted} is a skill of this cluster" if home else "the nearest are these"
    return UsageError(
        f"no cluster is named {name!r}",
        where=str(folder),
        fix=f"{is_skill}: {', '.join(f'--cluster {near}' for near in nearest)}",
    )


# ---- search ----------------------------------------------------------------------------------


def search(folder: Path, text: str) -> list[dict[str, Any]]:
    """Every skill by its likeness to a text: the listing's columns behind `cosine`.

    Vectors come from the corpus; names that it has none for, after an edit, are embedded here.
    """
    if not text.strip():
        raise UsageError(
            "there is nothing to search for", where="--search", fix='for instance "budgets"'
        )
    from localism.clustering.embed import encode, fingerprint, text_hash

    rows = listing(folder)
    offline.close_air_gap(folder)
    embedder = _embedder(folder)
    wanted = encode([text], embedder)[0]
    # The corpus answers with numbers alone: its vectors would be a long way to carry.
    vector = ", ".join(f"{value:.8f}" for value in wanted)
    cosines = {
        row["text_hash"]: row["cosine"]
        for row in _read(
            folder,
            f"SELECT text_hash, list_inner_product(vector, [{vector}]::FLOAT[]) AS cosine "
            f"FROM embedding WHERE embedder = {_literal(fingerprint(embedder))}",
        )
    }
    unknown = [row["skill"] for row in rows if text_hash(row["skill"]) not in cosines]
    if unknown:
        likeness = encode(unknown, embedder) @ wanted
        cosines |= {text_hash(name): float(c) for name, c in zip(unknown, likeness, strict=True)}
    found = [{"cosine": round(cosines[text_hash(row["skill"])], 4), **row} for row in rows]
    return sorted(found, key=lambda row: (-row["cosine"], row["skill"]))


def _embedder(folder: Path) -> Embedder:
    """The embedder of a run, from the recipe in its corpus."""
    row = _read(folder, "SELECT recipe->>'$.embedder' AS embedder FROM run")[0]
    return Embedder.model_validate_json(row["embedder"])


# ---- text ------------------------------------------------------------------------------------


def flat(rows: Sequence[dict[str, Any]]) -> reader.Table:
    """Rows for a table or CSV: lists become one cell."""
    columns = list(rows[0]) if rows else ["skill"]
    joint = {"sources": ", ", "exemplars": " | "}
    cells = [[joint[c].join(row[c]) if c in joint else row[c] for c in columns] for row in rows]
    return reader.Table(columns, cells)


def cluster_text(found: dict[str, Any], width: int) -> str:
    """A cluster as a person reads it."""
    persistence = found["persistence"]
    lines = [f"cluster {found['cluster']}"]
    lines += [f"medoid {found['medoid']}"] if found["medoid"] != found["cluster"] else []
    lines.append(
        f"{tables.number_of(found['skills'], 'skill')}"
        + (f", persistence {persistence:.3g}" if persistence is not None else "")
        + (f", keywords: {found['keywords']}" if found["keywords"] else "")
    )
    members = flat([{k: v for k, v in row.items() if k != "cluster"} for row in found["members"]])
    lines += ["", *tables.aligned(members.columns, members.rows, width).splitlines(), ""]
    exemplars = found["exemplars"]
    lines.append(f"exhibited by {tables.number_of(len(exemplars), 'seed example')}")
    for row in exemplars[:SHOWN_EXEMPLARS]:
        lines.append(f"  {' '.join(row['instruction'].split())}")
    return "".join(f"{tables.shortened(line, width)}\n" for line in lines)


def _read(folder: Path, sql: str) -> list[dict[str, Any]]:
    return reader.read(folder, sql).as_dicts()


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
