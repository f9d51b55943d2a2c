"""Does the plan use every skill? Ours against the paper's random draw, and the time for a million.

    python benchmarks/coverage.py

The 1,131 distinct SDA skill names of the paper's appendix I (tests/data/skills_sda.txt), k = 2,
n = 1,000, as in its data set; then a million mixes over 5,000 skills, planned alone and with the
whole stage's rows in DuckDB. CPU seconds of one process. A table for people, then one line of JSON,
also written to benchmarks/results/coverage.json.
"""

import io
import itertools
import json
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

from localism.config import Config, Judge, MixSection, Student, Teacher
from localism.context import Context
from localism.coverage import Coverage, random_sets
from localism.progress import Progress
from localism.records import stable_id
from localism.stages import mix
from localism.store import Store

RESULT = Path(__file__).parent / "results" / "coverage.json"
SKILLS = Path(__file__).parent.parent / "tests" / "data" / "skills_sda.txt"
N, K, SEEDS = 1000, 2, 20
# Counted in the authors' public data set of 1,000 SDA examples (1,132 skills).
PUBLISHED_UNUSED = 190
MILLION, MANY_SKILLS = 1_000_000, 5_000


def names() -> list[str]:
    """The distinct names of the list."""
    lines = SKILLS.read_text().splitlines()
    return sorted({line.strip() for line in lines if line.strip() and not line.startswith("#")})


def figures(sets: Iterator[tuple[int, ...]], units: int) -> dict[str, int]:
    """What N sets leave unused, use unevenly, and repeat."""
    drawn = list(itertools.islice(sets, N))
    uses = Counter({unit: 0 for unit in range(units)})
    for members in drawn:
        uses.update(members)
    return {
        "unused": sum(count == 0 for count in uses.values()),
        "most_minus_least": max(uses.values()) - min(uses.values()),
        "repeated_sets": N - len(set(map(frozenset, drawn))),
    }


def compared(units: int) -> dict[str, dict[str, list[int]]]:
    """Each figure's lowest and highest over SEEDS seeds, for both designs."""
    clusters = [str(unit) for unit in range(units)]
    designs = {
        "balanced": lambda random: Coverage(clusters, K, 0, random).sets(),
        "random": lambda random: random_sets(units, K, 0, random),
    }
    found: dict[str, dict[str, list[int]]] = {}
    for design, sets in designs.items():
        runs = [figures(sets(Random(seed)), units) for seed in range(SEEDS)]
        found[design] = {
            key: [min(r[key] for r in runs), max(r[key] for r in runs)] for key in runs[0]
        }
    return found


def planning_seconds(k: int) -> float:
    """CPU seconds to plan a million sets over 5,000 skills in 1,250 clusters."""
    clusters = [str(unit // 4) for unit in range(MANY_SKILLS)]
    began = time.process_time()
    sets = Coverage(clusters, k, 300, Random(0)).sets()
    assert sum(1 for _ in itertools.islice(sets, MILLION)) == MILLION
    return time.process_time() - began


def stage_seconds() -> dict[str, float]:
    """Wall and CPU seconds of the whole stage for a million mixes, and of skill_coverage on it."""
    config = Config(
        teacher=Teacher(path="embedded:teacher"),
        judge=Judge(same_as="teacher"),
        student=Student(path="embedded:student"),
        mix=MixSection(k=K, train=MILLION - 300, dev=100, test=200),
    )
    with tempfile.TemporaryDirectory() as folder:
        with Store(Path(folder) / "corpus.duckdb") as store:
            for number in range(MANY_SKILLS):
                cluster = f"cluster_{number // 4}"
                store.add(
                    "skill", skill_id=stable_id("skill", number), name=f"skill_{number:04}",
                    cluster_id=cluster, rare=False, count=1, hdbscan_label=0, strength=1.0,
                )  # fmt: skip
                if number % 4 == 0:
                    store.add(
                        "cluster", cluster_id=cluster, name=cluster, size=4,
                        medoid=f"skill_{number:04}",
                    )  # fmt: skip
            context = Context(config, store, Path(folder), Progress(io.StringIO(), plain=True))
            wall, cpu = time.monotonic(), time.process_time()
            mix.run(context)
            store.flush()
            taken = time.monotonic() - wall, time.process_time() - cpu
            wall = time.monotonic()
            assert len(store.query("FROM skill_coverage")) == MANY_SKILLS
            view = time.monotonic() - wall
    return {"wall": taken[0], "cpu": taken[1], "skill_coverage_wall": view}


def main() -> None:
    """Measure, print, save."""
    units = len(names())
    result: dict[str, Any] = {
        "benchmark": "coverage",
        "date": str(date.today()),
        "python": platform.python_version(),
        "skills": units,
        "n": N,
        "k": K,
        "seeds": SEEDS,
        "published_unused": PUBLISHED_UNUSED,
        **compared(units),
        "million_planned_cpu_seconds": {str(k): planning_seconds(k) for k in (2, 3)},
        "million_stage_seconds": stage_seconds(),
    }
    print(f"{units:,} skills, {N:,} mixes of {K}, {SEEDS} seeds (lowest to highest)")
    for design in ("balanced", "random"):
        row = {key: f"{low}-{high}" for key, (low, high) in result[design].items()}
        print(f"{design:<10}" + "   ".join(f"{key} {value}" for key, value in row.items()))
    print(f"published  unused {PUBLISHED_UNUSED} of 1,132")
    print(f"a million over {MANY_SKILLS:,} skills: {result['million_planned_cpu_seconds']}")
    print(f"with rows  {result['million_stage_seconds']}")
    line = json.dumps(result)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
