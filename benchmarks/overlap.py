"""Benchmark prompts in other words: which threshold finds how many, and how often it is wrong.

    python benchmarks/overlap.py

Precision and recall of gate overlap on benchmarks/overlap_pairs.jsonl, our own writing: prompts as
benchmarks have them, each with a paraphrase (light: mostly its words; reworded: other words;
translated), another task on the same topic, and, for some, the same template with other
particulars. By shared words (the gate's two rules) and by the cosine of the default embedder. A
table for people, then one line of JSON, also written to benchmarks/results/overlap.json.
"""

import json
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from localism.benchmark_files import BenchmarkPrompt
from localism.clustering.embed import encode
from localism.config import Curate, Embedder
from localism.curation.candidate import Candidate
from localism.curation.overlap import Prompts

RESULT = Path(__file__).parent / "results" / "overlap.json"
PAIRS = Path(__file__).parent / "overlap_pairs.jsonl"
THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
KINDS = ("light", "reworded", "translated", "template", "topic")
DEFAULTS = Curate()

Row = dict[str, Any]


def shares_words(row: Row) -> bool:
    """Whether the gate's two rules about words find the pair."""
    prompts = Prompts([BenchmarkPrompt("prompt", row["prompt"])])
    one = Candidate("a", "train", 0, (), row["instruction"], "", None, "stop")
    return not prompts.overlap(one, DEFAULTS.overlap_words, DEFAULTS.overlap_share).passed


def cosines(rows: Sequence[Row]) -> list[float]:
    """Of the default embedder's vectors."""
    prompts = encode([row["prompt"] for row in rows], Embedder())
    instructions = encode([row["instruction"] for row in rows], Embedder())
    return [float(value) for value in (prompts * instructions).sum(axis=1)]


def counted(rows: Sequence[Row], taken: Sequence[bool]) -> Row:
    """Precision, recall, and how many of each kind are taken for an overlap."""
    found = [row for row, is_taken in zip(rows, taken, strict=True) if is_taken]
    right = sum(row["is_overlap"] for row in found)
    return {
        "precision": round(right / len(found), 3) if found else None,
        "recall": round(right / sum(row["is_overlap"] for row in rows), 3),
        **{kind: sum(row["kind"] == kind for row in found) for kind in KINDS},
    }


def main() -> None:
    """Measure, print, save."""
    rows = [json.loads(line) for line in PAIRS.read_text().splitlines()]
    values = cosines(rows)
    table = {"words": counted(rows, [shares_words(row) for row in rows])}
    for threshold in THRESHOLDS:
        table[str(threshold)] = counted(rows, [value >= threshold for value in values])
    for name, row in table.items():
        print(f"{name:<8}" + "  ".join(f"{key} {value}" for key, value in row.items()))
    result = {
        "benchmark": "overlap",
        "date": str(date.today()),
        "python": platform.python_version(),
        "command": "python benchmarks/overlap.py",
        "pairs": {kind: sum(row["kind"] == kind for row in rows) for kind in KINDS},
        "found": table,
    }
    line = json.dumps(result)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
