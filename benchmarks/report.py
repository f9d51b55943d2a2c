"""How large is the report of a 4,000-example run, how long does it take, and what does it fetch?

    python benchmarks/report.py

A made corpus with the rows of a whole run (tests/made_corpus.py: 4,000 train, 200 dev and 500 test
examples of two out of 1,143 skills, five turns each, responses of some 250 words, ten gates, 15
checkpoints, four trainings, three benchmarks): the page is written and then opened in a headless
Chromium, wide and narrow, light and dark. A table for people, then one line of JSON, also in
benchmarks/results/report.json.

With --run DIR also the page of that run, from a copy.
"""

import argparse
import io
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import made_corpus  # noqa: E402
from browser import Page, chromium  # noqa: E402
from engines import embedded_config  # noqa: E402

from localism.config import Config  # noqa: E402
from localism.context import Context  # noqa: E402
from localism.progress import Progress  # noqa: E402
from localism.reporting import facts, page  # noqa: E402
from localism.store import Store  # noqa: E402

RESULT = Path(__file__).parent / "results" / "report.json"
SIZE = made_corpus.Size(
    train=4000, dev=200, test=500, skills=1143, clusters=150, epochs=15, words=250, turns=5,
    trainings=4,
)  # fmt: skip
LARGEST_MB = 5.0
REPEATS = 5
NUMBERS = {
    "megabytes": "size of the page, MB",
    "query_seconds": "reading the corpus, s",
    "render_seconds": "writing the page, s",
    "load_seconds": "Chromium, until loaded and drawn, s (median)",
    "load_spread": "its least and most, s",
    "requests": "requests beside the page itself",
    "messages": "messages on the console",
    "overflow_pixels": "sideways overflow at 420 pixels",
}


def built(folder: Path, config: Config) -> dict[str, Any]:
    """Write the page of a folder's corpus; returns seconds and size."""
    with Store(folder / "corpus.duckdb") as store:
        context = Context(config, store, folder, Progress(io.StringIO(), plain=True))
        started = time.monotonic()
        known = facts.collect(context)
        read = time.monotonic()
        text = page.render(known)
        written = time.monotonic()
    (folder / "report.html").write_text(text)
    return {
        "megabytes": round(len(text.encode()) / 1e6, 3),
        "query_seconds": round(read - started, 2),
        "render_seconds": round(written - read, 2),
    }


def looked_at(file: Path, program: str) -> dict[str, Any]:
    """Open the page as readers would; returns times, requests and messages."""
    with tempfile.TemporaryDirectory() as profile, Page(program, Path(profile)) as browser:
        seconds = [browser.open(file) for _ in range(REPEATS)]
        for scheme in ("light", "dark"):
            for width in (1100, 420):
                browser.prefer(scheme)
                browser.resize(width, 900)
                browser.open(file)
        overflow = browser.run("document.documentElement.scrollWidth") - 420
        others = [one for one in browser.requests if one != file.resolve().as_uri()]
        messages = list(browser.messages)
    return {
        "load_seconds": round(statistics.median(seconds), 2),
        "load_spread": [round(min(seconds), 2), round(max(seconds), 2)],
        "requests": len(others),
        "messages": len(messages),
        "overflow_pixels": overflow,
    }


def measured(folder: Path, config: Config, program: str) -> dict[str, Any]:
    return {**built(folder, config), **looked_at(folder / "report.html", program)}


def of_run(run: Path, program: str) -> dict[str, Any]:
    """The page of a finished run, from a copy of its corpus."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copy(run / "corpus.duckdb", folder)
        with Store(folder / "corpus.duckdb") as store:
            config = Config.model_validate_json(store.value("SELECT recipe FROM run"))
        return measured(folder, config, program)


def of_made(program: str) -> dict[str, Any]:
    """The page of the made corpus."""
    config = made_corpus.config_of(embedded_config)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with Store(folder / "corpus.duckdb") as store:
            made_corpus.fill(store, config, SIZE)
        return measured(folder, config, program)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, help="also the page of this run's folder")
    arguments = parser.parse_args()
    program = chromium()
    if program is None:
        sys.exit("error: Chromium is not installed\nfix:   install chromium")
    found = {"made, 4,000 examples": of_made(program)}
    if arguments.run:
        found["finished run"] = of_run(arguments.run, program)
    for name, row in found.items():
        print(f"{name}")
        for key, label in NUMBERS.items():
            print(f"  {label:<46} {row[key]}")
    print(f"the largest that is allowed: {LARGEST_MB} MB")
    result = {
        "benchmark": "report",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "repeats": REPEATS,
        "largest_megabytes": LARGEST_MB,
        "pages": found,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
