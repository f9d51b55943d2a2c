"""Time, memory and growth of stage cluster for 1k to 100k names, beside others in one run.

    python benchmarks/cluster.py --bertopic /path/to/venv/bin/python
    python benchmarks/cluster.py --sizes 1000 3000 --embed-up-to 3000

Names are words of the paper's lists (appendix I) put together anew. They are embedded up to
--embed-up-to; beyond that vectors are these with some noise, since only clustering is timed there.
Embedding and clustering are timed apart, each fit in a process of its own, on one thread. CPU
seconds are those of the fit alone, without imports; peak memory is that of the process, imports
included. Sides: localism (merge, then [cluster].method = auto), exact (the same with hdbscan),
cells (fast, with approximate neighbours also where localism compares all), sklearn's HDBSCAN with
the same parameters and no merge, and BERTopic's default path (UMAP, then hdbscan) in an environment
of its own with bertopic in it, after a warm-up fit that pays for compilation. Each side stops at
the size where its growth would take it past --limit CPU seconds.
A table, then a line of JSON, also written to benchmarks/results/cluster.json.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "cluster.json"
LISTS = ("skills_sda", "skills_sdd_alpaca", "skills_sdd_ultrachat", "skills_sdd_safety")
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
SIDES = ("localism", "cells", "exact", "sklearn", "bertopic")
OURS = ("localism", "cells", "exact")
NOISE = 0.02
"""Standard deviation of each number: two copies of one vector have a cosine of about .87."""
EXACT_UP_TO = 10_000
"""As in clustering/neighbours.py, which BERTopic's environment cannot import."""
STEEPEST = 2.1
"""Growth that is expected of a side before it was seen."""


def names(count: int) -> list[str]:
    """Distinct names of two to four words, each word from a place where the lists have it."""
    rng = np.random.default_rng(0)
    lists = [(ROOT / "tests" / "data" / f"{name}.txt").read_text().splitlines() for name in LISTS]
    real = [line.lower().split("_") for lines in lists for line in lines if line[0] != "#"]
    found: dict[str, None] = {}
    while len(found) < count:
        one, other = (real[i] for i in rng.integers(len(real), size=2))
        cut = rng.integers(1, max(2, len(one)))
        found["_".join([*one[:cut], *other[-1 if len(other) < 3 else -2 :]])] = None
    return list(found)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mb() -> float:
    """Largest resident size of this process; ru_maxrss would remember its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """(CPU seconds of this process, result)."""
    began = cpu_seconds()
    result = function()
    return cpu_seconds() - began, result


# ---- sides, each in a process of its own -----------------------------------------------------


def run_side(side: str, folder: Path, size: int) -> dict[str, Any]:
    """Fit a side on the first `size` vectors of a folder."""
    if side == "embed":
        return _embed(folder, size)
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")[:size].astype(np.float64)
    texts = (folder / "names.txt").read_text().splitlines()[:size]
    fits = dict.fromkeys(OURS, _localism) | {"sklearn": _sklearn, "bertopic": _bertopic}
    found = fits[side](texts, vectors, side)
    labels = found.pop("labels")
    if side in OURS:
        np.save(folder / f"{side}-{size}.npy", labels)
    found |= {"clusters": int(labels.max()) + 1, "noise": float((labels < 0).mean())}
    return found


def _embed(folder: Path, size: int) -> dict[str, Any]:
    from localism.clustering.embed import encode
    from localism.config import Embedder

    embedder = Embedder(device="cpu")
    texts = (folder / "names.txt").read_text().splitlines()[:size]
    encode(texts[:32], embedder)
    seconds, vectors = timed(lambda: encode(texts, embedder))
    np.save(folder / "vectors.npy", vectors.astype(np.float32))
    return {"cpu_seconds": seconds, "names_per_cpu_second": size / seconds}


def _localism(texts: list[str], vectors: Any, side: str) -> dict[str, Any]:
    from localism.clustering import neighbours
    from localism.clustering.layout import places
    from localism.clustering.methods import find_clusters
    from localism.clustering.quality import measures
    from localism.clustering.skills import cluster_names
    from localism.config import Cluster

    if side == "cells":
        neighbours.EXACT_UP_TO = 0
    methods = {"localism": "auto", "cells": "fast", "exact": "hdbscan"}
    config = Cluster(method=methods[side])  # type: ignore[arg-type]
    find_clusters(vectors[:300], config, "fast", 0)  # imports
    seconds, found = timed(lambda: cluster_names(dict.fromkeys(texts, 1), vectors, config))
    result = {
        "cpu_seconds": seconds,
        "method": found.method,
        "skills": len(found.skills),
        "labels": np.array([skill.hdbscan_label for skill in found.skills]),
    }
    if side == "localism":
        result["quality_cpu_seconds"], quality = timed(lambda: measures(found, config, 0))
        result["map_cpu_seconds"], _ = timed(lambda: places(found.vectors, 0))
        result["stability"] = next(m.value for m in quality if m.metric == "stability")
    return result


def _sklearn(texts: list[str], vectors: Any, side: str) -> dict[str, Any]:
    from sklearn.cluster import HDBSCAN

    # Its min_samples counts the point itself: 2 is hdbscan's 1.
    model = HDBSCAN(
        min_cluster_size=2, min_samples=2, cluster_selection_method="leaf", n_jobs=1, copy=True
    )
    seconds, labels = timed(lambda: model.fit_predict(vectors))
    return {"cpu_seconds": seconds, "labels": labels}


def _bertopic(texts: list[str], vectors: Any, side: str) -> dict[str, Any]:
    from bertopic import BERTopic

    documents = [text.replace("_", " ") for text in texts]
    warm_up, _ = timed(lambda: BERTopic().fit_transform(documents[:500], vectors[:500]))
    seconds, (topics, _) = timed(lambda: BERTopic().fit_transform(documents, vectors))
    return {"cpu_seconds": seconds, "warm_up_cpu_seconds": warm_up, "labels": np.array(topics)}


# ---- the comparison --------------------------------------------------------------------------


def in_own_process(python: str, side: str, folder: Path, size: int, limit: float) -> dict[str, Any]:
    """What a side found, or why it did not."""
    command = [python, __file__, "--side", side, "--folder", str(folder), "--sizes", str(size)]
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=6 * limit, env=os.environ | one_thread
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no end after {6 * limit:.0f} s"}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def growth(rows: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Exponent of the CPU seconds between each size and the next."""
    done = [(size, row["cpu_seconds"]) for size, row in rows.items() if "cpu_seconds" in row]
    return {
        f"{one}-{other}": math.log(later / earlier) / math.log(other / one)
        for (one, earlier), (other, later) in zip(done, done[1:], strict=False)
    }


def one_side(
    python: str, side: str, folder: Path, sizes: list[int], limit: float
) -> dict[str, Any]:
    """A side at every size that it can be expected to finish."""
    rows: dict[int, dict[str, Any]] = {}
    for size in sizes:
        expected = 0.0
        if rows:
            last, steepness = next(reversed(rows)), [STEEPEST, *growth(rows).values()][-1]
            expected = rows[last]["cpu_seconds"] * (size / last) ** steepness
        if side == "cells" and size > EXACT_UP_TO:
            break  # from here on localism does the same
        if side != "localism" and expected > limit:
            print(f"{side} {size}: left out, {expected:,.0f} CPU s expected", flush=True)
            break
        rows[size] = in_own_process(python, side, folder, size, limit)
        print(f"{side} {size}: {json.dumps(rows[size])}", flush=True)
        if "failed" in rows[size]:
            break
    return {"sizes": rows, "growth": growth(rows)}


def prepare(folder: Path, sizes: list[int], embed_up_to: int, limit: float) -> dict[str, Any]:
    """Write names and vectors for the largest size; returns what embedding cost."""
    (folder / "names.txt").write_text("\n".join(names(sizes[-1])) + "\n")
    embedded = [size for size in sizes if size <= embed_up_to] or [sizes[0]]
    cost = one_side(sys.executable, "embed", folder, embedded, max(limit, 1000))
    vectors = np.load(folder / "vectors.npy")
    rng = np.random.default_rng(1)
    missing = max(0, sizes[-1] - len(vectors))
    around = vectors[rng.integers(len(vectors), size=missing)]
    around = around + rng.normal(0, NOISE, around.shape).astype(np.float32)
    around /= np.linalg.norm(around, axis=1, keepdims=True)
    np.save(folder / "vectors.npy", np.vstack([vectors, around]))
    return cost


def agreement(folder: Path, sizes: list[int]) -> dict[str, dict[int, float]]:
    """Adjusted Rand index with exact, noise as clusters of one, where both were run."""
    from sklearn.metrics import adjusted_rand_score

    found: dict[str, dict[int, float]] = {side: {} for side in OURS if side != "exact"}
    for side, row in found.items():
        for size in sizes:
            files = [folder / f"{name}-{size}.npy" for name in (side, "exact")]
            if all(file.exists() for file in files):
                one, other = (np.load(file) for file in files)
                if len(one) == len(other):  # else they did not merge the same names
                    alone = -1 - np.arange(len(one))
                    pair = [np.where(labels < 0, alone, labels) for labels in (one, other)]
                    row[size] = float(adjusted_rand_score(*pair))
    return found


def report(results: dict[str, Any]) -> None:
    """The table for people."""
    print(
        f"\n{'side':<10}{'names':>9}{'CPU s':>10}{'of localism':>13}{'peak MB':>9}{'clusters':>10}"
    )
    for side, found in results["sides"].items():
        for size, row in found["sizes"].items():
            if "failed" in row:
                print(f"{side:<10}{size:>9,}   {row['failed']}")
                continue
            ours = results["sides"]["localism"]["sizes"].get(size, row)["cpu_seconds"]
            seconds, peak, clusters = row["cpu_seconds"], row["peak_mb"], row["clusters"]
            ratio = f"{seconds / ours:.1f}x"
            print(f"{side:<10}{size:>9,}{seconds:>10.2f}{ratio:>13}{peak:>9.0f}{clusters:>10,}")
        print(f"{side:<10} growth {json.dumps(found['growth'])}")
    for size, row in results["embedding"]["sizes"].items():
        print(f"embedding {size:>9,}{row['cpu_seconds']:>10.2f}")
    print(f"agreement with exact: {results['agreement']}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--embed-up-to", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=120.0, help="CPU seconds for one fit")
    parser.add_argument("--bertopic", help="python of an environment that has bertopic")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        found = run_side(options.side, options.folder, options.sizes[0])
        print(json.dumps(found | {"peak_mb": peak_mb()}))
        return
    sizes = sorted(options.sizes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results: dict[str, Any] = {
            "embedding": prepare(folder, sizes, options.embed_up_to, options.limit)
        }
        pythons = dict.fromkeys(SIDES, sys.executable) | {"bertopic": options.bertopic}
        results["sides"] = {
            side: one_side(python, side, folder, sizes, options.limit)
            for side, python in pythons.items()
            if python
        }
        results["agreement"] = agreement(folder, sizes)
    report(results)
    packages = ("hdbscan", "scikit-learn", "sentence-transformers", "torch", "numpy")
    results |= {
        "date": str(date.today()),
        "machine": f"{platform.machine()}, {os.cpu_count()} shared cores, one thread",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "embedded_up_to": options.embed_up_to,
    }
    line = json.dumps(results)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
