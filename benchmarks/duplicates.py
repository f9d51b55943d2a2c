"""Near duplicates of instructions: which threshold is right how often, and how long a search takes.

    python benchmarks/duplicates.py

Precision and recall on the labelled pairs of tests/data/instruction_pairs.csv (small edits and
rewordings of one task are duplicates; the same template with other particulars, and another task on
the same topic, are not), for word 3-grams (what stage curate uses) and for the cosine of the
default embedder. Then CPU seconds for 10,000 and 100,000 template-like instructions, of which a
tenth are edits of others. A table for people, then one line of JSON, also written to
benchmarks/results/duplicates.json.
"""

import csv
import json
import platform
import random
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from localism.clustering.embed import encode
from localism.config import Embedder
from localism.curation.duplicates import Texts

RESULT = Path(__file__).parent / "results" / "duplicates.json"
PAIRS = Path(__file__).parent.parent / "tests" / "data" / "instruction_pairs.csv"
THRESHOLDS = {
    "word_3_grams": (0.5, 0.6, 0.7, 0.8, 0.85, 0.9),
    "embedding_cosine": (0.7, 0.8, 0.85, 0.9, 0.95),
}
SIZES = (10_000, 100_000)
KINDS = ("edited", "reworded", "template", "topic")


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
        print(f"{size:>7,} instructions: {seconds} s CPU, {found:,} duplicates")
    line = json.dumps(result)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
