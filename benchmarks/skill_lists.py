"""The defaults of stage cluster on the paper's own lists (appendix I): a table and a JSON line.

    python benchmarks/skill_lists.py

SDA are the skills that a model listed topic by topic, SDD the skill clusters of three sets of seed
examples. Printed beside each figure is what was measured before this project, with the same
embedder, by reading HDBSCAN's own output. Merging is scored on tests/data/skill_pairs.csv: pairs of
names drawn by bands of cosine and judged by one reader without seeing the cosine (same = 1: either
name could be asked for in place of the other). Weights undo the bands, so recall is over all pairs
with a cosine of at least .6. Written to benchmarks/results/skill_lists.json.
"""

import csv
import importlib.metadata
import json
import platform
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from localism.clustering.duplicates import merge_duplicates
from localism.clustering.embed import Vectors, encode
from localism.clustering.methods import find_clusters
from localism.clustering.quality import measures, singled, stability
from localism.clustering.skills import cluster_names
from localism.config import Cluster, Embedder
from localism.skill_names import normalise

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
RESULT = Path(__file__).parent / "results" / "skill_lists.json"
LISTS = {
    "sda": ("skills_sda",),
    "sdd": ("skills_sdd_alpaca", "skills_sdd_ultrachat", "skills_sdd_safety"),
}
# Measured before: HDBSCAN on the distinct names as they are, 2/1; leaf for SDA, eom for SDD; the
# stability is eom's in both. merged_to is the rule with a cosine of .90.
BEFORE = {
    "sda": {"clusters": 271, "noise": 0.32, "largest": 0.007, "silhouette": 0.38,
            "stability": 0.83, "merged_to": 1085, "precision": 0.96, "recall": 0.28},
    "sdd": {"clusters": 99, "noise": 0.34, "largest": 0.023, "stability": 0.85,
            "merged_to": 436, "precision": 0.84, "recall": 0.18},
}  # fmt: skip
CUTS = (0.80, 0.86, 0.88, 0.90, 0.92, 0.94, 1.0)


def read_list(files: tuple[str, ...]) -> Counter[str]:
    """Normalised names with how often they occur, by letter."""
    lines = [line for name in files for line in (DATA / f"{name}.txt").read_text().splitlines()]
    names = [normalise(line).text for line in lines if not line.startswith("#")]
    return Counter(dict(sorted(Counter(name for name in names if name).items())))


def unmerged(vectors: Vectors) -> dict[str, float]:
    """HDBSCAN with the defaults on the distinct names, before any merge."""
    from sklearn.metrics import silhouette_score

    config = Cluster()
    labels = find_clusters(vectors, config, "hdbscan", 0).labels
    inside = labels >= 0
    fast = find_clusters(vectors, config, "fast", 0).labels
    again = stability(vectors, config, 0)
    return {
        "clusters": int(labels.max()) + 1,
        "noise": float(1 - inside.mean()),
        "largest": float(np.bincount(labels[inside]).max() / len(labels)),
        "silhouette": float(silhouette_score(vectors[inside], labels[inside], metric="cosine")),
        "stability": float(again or 0),
        "fast_agrees": _agreement(labels, fast),
    }


def _agreement(one: Any, other: Any) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(singled(one), singled(other)))


def merging(which: str, names: list[str], vectors: Vectors) -> dict[str, dict[str, float]]:
    """Cosine cut -> skills left, and weighted precision and recall on the judged pairs."""
    with (DATA / "skill_pairs.csv").open() as file:
        pairs = [row for row in csv.DictReader(file) if row["list"] == which]
    found = {}
    for cut in CUTS:
        groups = merge_duplicates(names, vectors, cut)
        home = {names[i]: number for number, group in enumerate(groups) for i in group}
        weight: Counter[tuple[bool, bool]] = Counter()
        joined = 0
        for pair in pairs:
            is_merged = home[pair["first"]] == home[pair["second"]]
            joined += is_merged
            weight[is_merged, pair["same"] == "1"] += float(pair["weight"])  # type: ignore[assignment]
        right, wrong, missed = weight[True, True], weight[True, False], weight[False, True]
        found[f"{cut:.2f}"] = {
            "skills": len(groups),
            "judged_merges": joined,
            "precision": right / (right + wrong) if right + wrong else float("nan"),
            "recall": right / (right + missed),
        }
    return found


def one_list(which: str) -> dict[str, Any]:
    """Every figure of a list."""
    counts = read_list(LISTS[which])
    vectors = encode(list(counts), Embedder())
    began = time.process_time()
    clustering = cluster_names(counts, vectors, Cluster())
    clustered = time.process_time()
    quality = measures(clustering, Cluster(), 0)
    return {
        "rows": counts.total(),
        "distinct": len(counts),
        "unmerged": unmerged(vectors),
        "merging": merging(which, list(counts), vectors),
        "defaults": {m.metric: m.value for m in quality},
        "warnings": [m.warning for m in quality if m.warning],
        "cluster_cpu_seconds": clustered - began,
        "quality_cpu_seconds": time.process_time() - clustered,
    }


def report(results: dict[str, Any]) -> None:
    """The table for people."""
    for which, found in results.items():
        print(f"{which}: {found['rows']} rows, {found['distinct']} distinct names")
        for metric, value in found["unmerged"].items():
            before = BEFORE[which].get(metric)
            print(
                f"  unmerged {metric:<14}{value:>10.3f}" + (f"   before {before}" if before else "")
            )
        for cut, row in found["merging"].items():
            print(
                f"  merge at {cut}: {row['skills']:>5} skills   precision {row['precision']:.2f}"
                f"   recall {row['recall']:.2f}   ({row['judged_merges']} of the judged pairs)"
            )
        before = BEFORE[which]
        print(f"  before at 0.90: {before['merged_to']}, {before['precision']}, {before['recall']}")
        for metric, value in found["defaults"].items():
            print(f"  default  {metric:<20}{value:>10.3f}")


def main() -> None:
    results = {which: one_list(which) for which in LISTS}
    report(results)
    line = json.dumps(
        {
            "date": str(date.today()),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "versions": {p: importlib.metadata.version(p) for p in ("hdbscan", "scikit-learn")},
            "before": BEFORE,
            "lists": results,
        }
    )
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
