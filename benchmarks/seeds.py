"""Seed data: rows a second and peak memory of a seeded sample from a million rows.

python benchmarks/seeds.py [--rows 1000000]

Writes Alpaca-like rows of about 400 characters as Parquet, JSONL and CSV to a temporary folder,
samples each in a process of its own, prints a table, whether each stayed below 2 GiB, and one JSON
line, and saves that to benchmarks/results/seeds.json. A tenth of the rows is loaded too: what
memory grows with the rows shows between the two.
"""

import argparse
import csv
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

from localism.config import Extract, SeedSource
from localism.seeds.files import sample_sources

RESULT = Path(__file__).parent / "results" / "seeds.json"
LIMIT_MIB = 2048
COLUMNS = ("id", "instruction", "input", "output", "score")
FORMATS = ("parquet", "jsonl", "csv")
REPEATS = 3
WORDS = (
    "the a plan meal week budget garden soil train letter answer why how what number water, "
    'paint clean store check measure before after 12 300 résumé 天气 "quoted" list\n- item because'
).split(" ")


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Alpaca's columns and two that nobody asks for."""
    random = Random(0)
    for number in range(count):
        words = random.choices(WORDS, k=70)
        yield {
            "id": number,
            "instruction": f"{number}: {' '.join(words[:20])}",
            "input": " ".join(words[20:30]) if number % 3 == 0 else "",
            "output": " ".join(words[30:]),
            "score": random.random(),
        }


def write(folder: Path, count: int) -> None:
    """The same rows as seeds.parquet (one row group, as pandas writes it), .jsonl and .csv."""
    import pyarrow
    import pyarrow.parquet

    with (
        (folder / "seeds.jsonl").open("w", encoding="utf-8") as lines,
        (folder / "seeds.csv").open("w", encoding="utf-8", newline="") as stream,
    ):
        table = csv.DictWriter(stream, COLUMNS)
        table.writeheader()
        for row in rows(count):
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            table.writerow(row)
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in rows(count):
        for name, value in row.items():
            columns[name].append(value)
    path = folder / "seeds.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=count)


def load(path: Path) -> dict[str, float]:
    """Sample the paper's 5,200; runs in a child, whose peak memory is then that of the loading."""
    began = time.monotonic()
    sample = sample_sources(Extract(seeds=(SeedSource(path=str(path)),)), seed=0)
    seconds = time.monotonic() - began
    assert len(sample) == Extract().seed_examples, len(sample)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_mib": peak_kib / 1024}


def in_own_process(*words: str) -> str:
    """The last line that this script prints when it is called so."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")
    return done.stdout.splitlines()[-1] if done.stdout else ""


def measure(count: int) -> dict[str, Any]:
    """Format -> medians of REPEATS loads."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        in_own_process("--write", folder, "--rows", str(count))
        for name in FORMATS:
            path = Path(folder) / f"seeds.{name}"
            loads = [json.loads(in_own_process("--load", str(path))) for _ in range(REPEATS)]
            seconds = sorted(load["seconds"] for load in loads)
            found[name] = {
                "rows": count,
                "file_mib": round(path.stat().st_size / 2**20, 1),
                "rows_per_second": round(count / seconds[REPEATS // 2]),
                "slowest": round(count / seconds[-1]),
                "fastest": round(count / seconds[0]),
                "peak_mib": round(max(load["peak_mib"] for load in loads), 1),
            }
    return found


def report(found: dict[int, dict[str, Any]]) -> None:
    """The table."""
    print(f"{'format':<9}{'rows':>10}{'file MiB':>10}{'rows/s':>28}{'peak MiB':>10}")
    for formats in found.values():
        for name, result in formats.items():
            rate = "{rows_per_second:,} ({slowest:,}-{fastest:,})".format(**result)
            verdict = "PASS" if result["peak_mib"] < LIMIT_MIB else "FAIL"
            print(
                f"{name:<9}{result['rows']:>10,}{result['file_mib']:>10,.0f}{rate:>28}"
                f"{result['peak_mib']:>10,.0f}  {verdict} against {LIMIT_MIB}"
            )


def main() -> None:
    """Command line; --write and --load are how the script calls itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.write:
        write(asked.write, asked.rows)
        return
    if asked.load:
        print(json.dumps(load(asked.load)))
        return
    load_before = os.getloadavg()[0]
    found = {count: measure(count) for count in (asked.rows // 10, asked.rows)}
    report(found)
    line = json.dumps(
        {
            "benchmark": "seeds",
            "date": date.today().isoformat(),
            "cores": len(os.sched_getaffinity(0)),
            "load_before": load_before,
            "machine": platform.machine(),
            "python": platform.python_version(),
            "versions": {"pyarrow": importlib.metadata.version("pyarrow")},
            "repeats": REPEATS,
            "sample": Extract().seed_examples,
            "limit_mib": LIMIT_MIB,
            "loads": [{"format": name, **result} for formats in found.values()
                      for name, result in formats.items()],
        }
    )  # fmt: skip
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
