"""Near duplicates of instructions: which threshold is right how often, and how long a search takes.

    python benchmarks/duplicates.py

Precision and recall on the labelled pairs of tests/data/instruction_pairs.csv (small edits and
rewordings of one task are duplicates; the same template with other particulars, the same words but
for a detail that makes it another task, and another task on the same topic, are not), for word
3-grams, for the cosine of the default embedder, and for either. Then CPU seconds to go through
10,000 and 100,000 template-like instructions by words, and as many made-up vectors by meaning, of
which a tenth are edits of others; for the vectors also the share of the edits that cells lose, and
the process's largest memory. A table for people, then one line of JSON, also written to
benchmarks/results/duplicates.json.
"""

import csv
import json
import platform
import random
import resource
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from localism.clustering.embed import encode
from localism.config import Curate, Embedder
from localism.curation.duplicates import Texts
from localism.curation.meanings import Meanings

RESULT = Path(__file__).parent / "results" / "duplicates.json"
PAIRS = Path(__file__).parent.parent / "tests" / "data" / "instruction_pairs.csv"
THRESHOLDS = {
    "word_3_grams": (0.5, 0.6, 0.7, 0.8, 0.85, 0.9),
    "embedding_cosine": (0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995),
    # 1 where the default of either way is reached.
    "either": (1.0,),
}
DEFAULTS = Curate()
TOPICS, DIMENSIONS = 500, 384
SIZES = (10_000, 100_000)
KINDS = ("edited", "reworded", "template", "topic", "detail")


class Pair(NamedTuple):
    """Two instructions and what a person says of them."""

    first: str
    """One instruction."""
    second: str
    """The other."""
    kind: str
    """How the second was made from the first."""
    is_duplicate: bool
    """Whether a data set needs only one of them."""


def pairs() -> list[Pair]:
    """The labelled pairs."""
    with PAIRS.open(newline="") as stream:
        return [
            Pair(row["first"], row["second"], row["kind"], row["is_duplicate"] == "1")
            for row in csv.DictReader(stream)
        ]


def jaccard(first: str, second: str) -> float:
    """Likeness as stage curate sees it; 0 for less than a hundredth."""
    texts = Texts([first, second], 0.01)
    texts.keep(0)
    found = texts.find(1)
    return found.likeness if found else 0.0


def cosines(labelled: Sequence[Pair]) -> list[float]:
    """Of the default embedder's vectors."""
    vectors = encode([p.first for p in labelled] + [p.second for p in labelled], Embedder())
    half = len(labelled)
    return [float(value) for value in (vectors[:half] * vectors[half:]).sum(axis=1)]


def errors(labelled: Sequence[Pair], likeness: Sequence[float], threshold: float) -> dict[str, Any]:
    """Precision, recall, and the share of each kind that is taken for a duplicate."""
    taken = [pair for pair, value in zip(labelled, likeness, strict=True) if value >= threshold]
    right = sum(pair.is_duplicate for pair in taken)
    return {
        "precision": round(right / len(taken), 3) if taken else None,
        "recall": round(right / sum(pair.is_duplicate for pair in labelled), 3),
        **{
            kind: round(
                sum(p.kind == kind for p in taken) / sum(p.kind == kind for p in labelled), 3
            )
            for kind in KINDS
        },
    }


def either(words: float, cosine: float) -> float:
    """1 for a pair that one of the two default thresholds takes for a duplicate."""
    return float(words >= DEFAULTS.near_duplicate or cosine >= DEFAULTS.near_cosine)


def meaning_seconds(size: int) -> tuple[float, float]:
    """CPU seconds to go through so many vectors, and the share of near duplicates found.

    Vectors lie around topics, as those of instructions do, at cosines of 0.3 to 0.6 to each other
    within a topic; a tenth are at about 0.995 to an earlier one.
    """
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(TOPICS, DIMENSIONS))[rng.integers(0, TOPICS, size)]
    vectors += rng.normal(size=(size, DIMENSIONS))
    is_edit = rng.random(size) < 0.1
    is_edit[: size // 10] = False
    source = (rng.random(size) * np.arange(size)).astype(np.int64)
    vectors[is_edit] = vectors[source[is_edit]] + 0.1 * rng.normal(
        size=(int(is_edit.sum()), DIMENSIONS)
    ) * np.linalg.norm(vectors[is_edit], axis=1, keepdims=True) / np.sqrt(DIMENSIONS)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # An edit of an edit may be a little farther from what was kept.
    planted = (vectors * vectors[source]).sum(axis=1) >= DEFAULTS.near_cosine
    planted &= is_edit & ~is_edit[source]
    began = time.process_time()
    search, found = Meanings(vectors, seed=0), np.zeros(size, dtype=bool)
    for row in range(size):
        near = search.nearest(row)
        found[row] = near is not None and near.likeness >= DEFAULTS.near_cosine
        if not found[row]:
            search.keep(row)
    return round(time.process_time() - began, 2), round(float(found[planted].mean()), 4)


def search_seconds(size: int) -> tuple[float, int]:
    """CPU seconds to go through so many instructions, and how many were duplicates."""
    rng = random.Random(0)
    openings = ["could you please tell me how", "i would like to know how", "what is the best way"]
    texts: list[str] = []
    for _ in range(size):
        if texts and rng.random() < 0.1:
            texts.append(f"{rng.choice(texts)} please")
        else:
            # Zipf-like words: a few in most texts, most in a few.
            tail = [f"w{int(20_000 ** rng.random())}" for _ in range(rng.randint(10, 40))]
            texts.append(f"{rng.choice(openings)} {' '.join(tail)}")
    began = time.process_time()
    search, found = Texts(texts, 0.85), 0
    for index in range(size):
        if search.find(index) is None:
            search.keep(index)
        else:
            found += 1
    return round(time.process_time() - began, 2), found


def main() -> None:
    """Measure, print, save."""
    labelled = pairs()
    measured = {
        "word_3_grams": [jaccard(pair.first, pair.second) for pair in labelled],
        "embedding_cosine": cosines(labelled),
    }
    measured["either"] = [either(*both) for both in zip(*measured.values(), strict=True)]
    result: dict[str, Any] = {
        "benchmark": "duplicates",
        "date": str(date.today()),
        "python": platform.python_version(),
        "command": "python benchmarks/duplicates.py",
        "pairs": len(labelled),
        **{
            name: {str(t): errors(labelled, values, t) for t in THRESHOLDS[name]}
            for name, values in measured.items()
        },
        "search": {},
    }
    for name in measured:
        for threshold, row in result[name].items():
            print(f"{name:<18}{threshold:<6}" + "  ".join(f"{k} {v}" for k, v in row.items()))
    for size in SIZES:
        seconds, found = search_seconds(size)
        result["search"][str(size)] = {"cpu_seconds": seconds, "duplicates": found}
        print(f"{size:>7,} instructions by words: {seconds} s CPU, {found:,} duplicates")
        seconds, share = meaning_seconds(size)
        result["search"][str(size)] |= {"vector_cpu_seconds": seconds, "vector_recall": share}
        print(f"{size:>7,} vectors: {seconds} s CPU, {share:.2%} of near duplicates found")
    result["max_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    line = json.dumps(result)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
