"""Two runs' skills -> what only one has, what both have, and what moved.

Alone: localism skills diff A B
"""

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from localism import reader, tables
from localism.skill_lists.look import listing

ROWS_AT_ONCE = 1024
VECTORS_AT_ONCE = 2_000
_VECTORS = """
SELECT text_hash,
       list_aggregate(list_transform(vector, lambda x: hex(x::BIT::BLOB)), 'string_agg', '')
FROM embedding WHERE embedder = '{}' AND text_hash IN ({})
"""
SHOWN = 15


class Near(NamedTuple):
    """The nearest skill of the other run."""

    nearest: str
    """Its name."""
    likeness: float
    """Cosine, of embeddings or of letters."""
    by: str
    """embedding, or name where a vector is missing."""


@dataclass(frozen=True)
class _Side:
    """One of the two runs."""

    skills: dict[str, dict[str, Any]]
    """Listing rows by name."""
    vectors: dict[str, NDArray[np.float32]]
    """By name, of the embedder that both corpora hold vectors of."""


def compare(a: Path, b: Path) -> dict[str, Any]:
    """summary, only_a, only_b (each with its nearest neighbour in the other), both, moved.

    A skill that both have has moved when its companions have: the skills that both runs have and
    that are in its cluster. That a cluster got another name is no move.
    """
    embedders = set(_embedders(a)) & set(_embedders(b))
    one, other = (_side(folder, min(embedders, default=None)) for folder in (a, b))
    shared = sorted(one.skills.keys() & other.skills.keys())
    moved = _moved(one, other, shared)
    only_a, only_b = _only(one, other), _only(other, one)
    summary = {
        "a": a.name,
        "b": b.name,
        "skills_a": len(one.skills),
        "skills_b": len(other.skills),
        "only_a": len(only_a),
        "only_b": len(only_b),
        "both": len(shared),
        "moved": len(moved),
    }
    both = [
        {"skill": name, "labels_a": one.skills[name]["labels"],
         "labels_b": other.skills[name]["labels"]}
        for name in shared
    ]  # fmt: skip
    return {"summary": summary, "only_a": only_a, "only_b": only_b, "both": both, "moved": moved}


def _embedders(folder: Path) -> list[str]:
    return [row[0] for row in reader.read(folder, "SELECT DISTINCT embedder FROM embedding").rows]


def _side(folder: Path, embedder: str | None) -> _Side:
    skills = {row["skill"]: row for row in listing(folder)}
    return _Side(skills, _vectors(folder, list(skills), embedder) if embedder else {})


def _vectors(folder: Path, names: Sequence[str], embedder: str) -> dict[str, NDArray[np.float32]]:
    """Vectors by name, of those that the corpus has.

    They come as text, four bytes a number in hexadecimal: as lists of numbers, 20,000 of them take
    five times as long and half a gigabyte.
    """
    from localism.clustering.embed import text_hash

    hashes = {text_hash(name): name for name in names}
    keys = list(hashes)
    found = {}
    for start in range(0, len(keys), VECTORS_AT_ONCE):
        wanted = ", ".join(f"'{key}'" for key in keys[start : start + VECTORS_AT_ONCE])
        for key, numbers in reader.read(folder, _VECTORS.format(embedder, wanted)).rows:
            found[hashes[key]] = np.frombuffer(bytes.fromhex(numbers), ">f4").astype(np.float32)
    return found


def _only(mine: _Side, theirs: _Side) -> list[dict[str, Any]]:
    """My skills that they lack, the largest first, each with what they have instead."""
    lacking = [name for name in mine.skills if name not in theirs.skills]
    near = _nearest(lacking, mine, theirs)
    return [
        {"skill": name, "labels": mine.skills[name]["labels"], **near[name]._asdict()}
        for name in lacking
    ] if theirs.skills else []  # fmt: skip


def _moved(one: _Side, other: _Side, shared: Sequence[str]) -> list[dict[str, Any]]:
    before, after = _companions(one, shared), _companions(other, shared)

    @functools.cache  # skills that stay together have left and joined the same ones
    def change(cluster_a: str, cluster_b: str) -> tuple[list[str], list[str]]:
        old, new = before[cluster_a], after[cluster_b]
        return sorted(old - new), sorted(new - old)

    homes = {name: (one.skills[name]["cluster"], other.skills[name]["cluster"]) for name in shared}
    return [
        {"skill": name, "cluster_a": home[0], "cluster_b": home[1],
         "left": change(*home)[0], "joined": change(*home)[1]}
        for name, home in homes.items() if any(change(*home))
    ]  # fmt: skip


def _companions(side: _Side, shared: Sequence[str]) -> dict[str, set[str]]:
    """Cluster -> those of its skills that both runs have."""
    members: dict[str, set[str]] = defaultdict(set)
    for name in shared:
        members[side.skills[name]["cluster"]].add(name)
    return members


# ---- neighbours ------------------------------------------------------------------------------


def _nearest(names: Sequence[str], mine: _Side, theirs: _Side) -> dict[str, Near]:
    """By embedding where there are vectors, by letters for the others."""
    embedded = [name for name in names if name in mine.vectors and theirs.vectors]
    spelled = sorted(set(names).difference(embedded))
    found: dict[str, Near] = {}
    if embedded:
        vectors = np.array([mine.vectors[name] for name in embedded])
        found = _best(embedded, vectors, list(theirs.vectors), _matrix(theirs), "embedding")
    if spelled:
        letters, their_letters = _letters(spelled, list(theirs.skills))
        found |= _best(spelled, letters, list(theirs.skills), their_letters, "name")
    return found


def _matrix(side: _Side) -> NDArray[np.float32]:
    return np.array(list(side.vectors.values()))


def _best(
    names: Sequence[str], rows: Any, others: Sequence[str], matrix: Any, by: str
) -> dict[str, Near]:
    """Name -> its nearest other; rows and matrix hold unit vectors, dense or sparse."""
    found = {}
    for start in range(0, len(names), ROWS_AT_ONCE):
        likeness = rows[start : start + ROWS_AT_ONCE] @ matrix.T
        likeness = np.asarray(likeness if by == "embedding" else likeness.todense())
        best = likeness.argmax(axis=1)
        for row, column in enumerate(best):
            value = round(float(likeness[row, column]), 4)
            found[names[start + row]] = Near(others[column], value, by)
    return found


def _letters(names: Sequence[str], others: Sequence[str]) -> tuple[Any, Any]:
    """Unit vectors of letter n-grams, weighted by how telling they are."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit([*names, *others])
    return vectorizer.transform(names), vectorizer.transform(others)


# ---- text ------------------------------------------------------------------------------------


def text(found: dict[str, Any], width: int) -> str:
    """The differences as a person reads them: counts, then the first of each kind."""
    s = found["summary"]
    lines = [
        f"{s['a']}: {tables.number_of(s['skills_a'], 'skill')}   "
        f"{s['b']}: {tables.number_of(s['skills_b'], 'skill')}   "
        f"both: {s['both']:,}, of which {s['moved']:,} moved to other companions"
    ]
    titles = {
        "only_a": f"only in {s['a']}, and the nearest in {s['b']}",
        "only_b": f"only in {s['b']}, and the nearest in {s['a']}",
        "moved": "in both, with other companions in its cluster",
    }
    for key, title in titles.items():
        rows = [_joined(row) for row in found[key][:SHOWN]]
        if not rows:
            continue
        more = f"; the first {SHOWN}" if len(found[key]) > SHOWN else ""
        table = tables.aligned(list(rows[0]), [list(row.values()) for row in rows], width)
        lines += ["", f"{title}: {len(found[key]):,}{more}", table.rstrip()]
    return "\n".join(lines) + "\n"


def _joined(row: dict[str, Any]) -> dict[str, Any]:
    return {key: ", ".join(v) if isinstance(v, list) else v for key, v in row.items()}
