"""What happens at a million: plans, turns in the corpus, questions to it, skills, training data.

    python benchmarks/scale.py                       # all parts; an hour or two on two cores
    python benchmarks/scale.py turns --turns 100000  # a part, smaller

Parts: `mixes` plans and stores 10k to 1M mixes over 5,000 skills, `skills` the same over 100,000
(how long 100,000 names take to cluster is in benchmarks/cluster.py), `turns` writes up to 5M model
calls (benchmarks/scale_corpus.py) and asks what people ask of a run, also the report and an export,
`training` makes tokens of up to 100,000 examples. Every figure comes from a process of its own;
memory is its largest resident size, times are CPU seconds with wall time beside them. Needs about
10 GB of disk, which it frees. A table for people, then a line of JSON, also in results/scale.json;
parts that were not asked for stay as they were.
"""

import argparse
import io
import itertools
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import scale_corpus

from localism import reader
from localism.context import Context
from localism.errors import LocalismError
from localism.progress import Progress
from localism.store import Store

RESULT = Path(__file__).parent / "results" / "scale.json"
MIXES = (10_000, 100_000, 1_000_000)
TURNS = (100_000, 1_000_000, 5_000_000)
EXAMPLES = (10_000, 30_000, 100_000)
MANY_SKILLS = 100_000
BLOCK = 1_000
"""Conversations that are made at once, before the clock runs."""
LOOKUPS = 200
MEASURED = 10_000
"""Conversations that are written as a run writes them, at each size."""
MEMORY = (
    "SELECT coalesce(sum(memory_usage_bytes), 0)::DOUBLE / 1e6 AS mb FROM duckdb_memory()"
    " WHERE tag = 'ART_INDEX'"
)
LIMIT_SECONDS = 900
QUESTIONS = {
    "books": "FROM books",
    "tokens": "FROM tokens",
    "skill_coverage": "FROM skill_coverage",
    "cluster_coverage": "FROM cluster_coverage",
    "query_type_coverage": "FROM query_type_coverage",
    "pair_coverage": "FROM pair_coverage LIMIT 100",
    "unused_pairs": "FROM unused_pairs LIMIT 100",
    "coverage_balance": "FROM coverage_balance",
    "dataset_stats": "FROM dataset_stats",
    "rejections": "FROM rejections",
    "skill_rejections": "FROM skill_rejections LIMIT 100",
    "leaderboard": "FROM leaderboard",
    "checkpoint_curve": "FROM checkpoint_curve",
    "example_cost": "SELECT avg(completion_tokens) FROM example_cost",
    "lineage of one": "FROM lineage WHERE mix_id = '{mix}'",
    "a turn by its id": "FROM turn WHERE turn_id = '{turn}'",
    "a word in all replies": "SELECT count(*) FROM turn WHERE text LIKE '%zzyzx%'",
    "the last calls": "SELECT turn_id, text FROM turn ORDER BY finished_at DESC LIMIT 20",
}
Facts = dict[str, Any]


def seconds_of(work: Callable[[], Any]) -> float:
    """Wall time."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def both(found: Facts, name: str, work: Callable[[], Any]) -> None:
    """Note CPU seconds of this process, all threads together, and wall time beside them."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    found[name] = time.process_time() - cpu
    found[f"{name}, wall"] = time.monotonic() - wall


def peak_mb() -> float:
    """Largest resident size of this process; ru_maxrss would remember its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


# ---- what children do ------------------------------------------------------------------------


def plan(folder: Path, mixes: int, skills: int) -> Facts:
    """Plan sets, then the whole stage with its rows, then the views that count them."""
    from localism.coverage import Coverage
    from localism.stages import mix

    clusters = [str(unit // 4) for unit in range(skills)]
    sets = Coverage(clusters, scale_corpus.K, 300, Random(0)).sets()
    found: Facts = {}
    both(found, "plan", lambda: sum(1 for _ in itertools.islice(sets, mixes)))
    found["plan_mb"] = peak_mb()
    config = scale_corpus.config()
    section = {"k": scale_corpus.K, "train": mixes - 300, "dev": 100, "test": 200, "unit": "skill"}
    config = config.model_copy(update={"mix": config.mix.model_copy(update=section)})
    corpus = folder / "corpus.duckdb"
    with Store(corpus) as store:
        scale_corpus.add_skills(store, skills)
        context = Context(config, store, folder, Progress(io.StringIO(), plain=True))

        def stage() -> None:
            mix.run(context)
            store.flush()

        both(found, "stage", stage)
        for view in ("skill_coverage", "pair_coverage", "coverage_balance", "books"):
            sql = f"FROM {view} {'LIMIT 100' if view == 'pair_coverage' else ''}"
            both(found, view, partial(store.query, sql))
        both(found, "load_mixes", partial(mix.load_mixes, store))
    return found | {"file_mb": corpus.stat().st_size / 1e6}


def grow(folder: Path, first: int, last: int, measured: int) -> Facts:
    """Add the conversations of mixes first to last, the measured ones of them through the store.

    The others come in bulk, which is no way that a run has; what a write costs depends on how much
    is there. The clock runs only inside the store.
    """
    maker, corpus = scale_corpus.Maker(), folder / "corpus.duckdb"
    before, spent, cpu = resident_mb(), 0.0, 0.0
    bulk = seconds_of(lambda: scale_corpus.bulk(corpus, maker, first, last - measured))
    began = time.monotonic()
    with Store(corpus) as store:
        opened = time.monotonic() - began
        for start in range(last - measured, last, BLOCK):
            made = list(maker.conversations(start, min(start + BLOCK, last)))
            began, cpu_began = time.monotonic(), time.process_time()
            for rows, candidate in made:
                store.add_rows("turn", rows)
                store.add("candidate", **candidate)
            store.flush()
            spent, cpu = spent + time.monotonic() - began, cpu + time.process_time() - cpu_began
        indexes_mb = store.value(MEMORY)
        store.let_go_of_memory()
        writer = resident_mb() - before
        lookup = seconds_of(lambda: _look_up(store, last - measured)) / LOOKUPS
        scale_corpus.add_plan(store, first, last)
        closing = time.monotonic()
    rows_added = measured * (scale_corpus.TURNS_EACH + 1)
    return {
        "rows_per_second": rows_added / spent,
        "rows_per_cpu_second": rows_added / cpu,
        "bulk_seconds": bulk,
        "writer_mb": writer,
        "indexes_mb": indexes_mb,
        "lookup_ms": 1000 * lookup,
        "open_seconds": opened,
        "close_seconds": time.monotonic() - closing,
        "file_mb": corpus.stat().st_size / 1e6,
    }


def _look_up(store: Store, mixes: int) -> None:
    """Turns by their ids, as a call that is asked again finds its answer."""
    draw = Random(1)
    for _ in range(LOOKUPS):
        number = scale_corpus.TURNS_EACH * draw.randrange(max(1, mixes))
        turn_id = scale_corpus.scattered(scale_corpus.TURN, number)
        assert store.query("SELECT * FROM turn WHERE turn_id = ?", [turn_id])


def ask(folder: Path, mixes: int) -> Facts:
    """Each question as `localism sql` asks it; the second of two answers counts."""
    middle = mixes // 2
    names = {
        "mix": scale_corpus.scattered(scale_corpus.MIX, middle),
        "turn": scale_corpus.scattered(scale_corpus.TURN, 5 * middle),
    }
    found: Facts = {}
    for name, sql in QUESTIONS.items():
        try:
            for _ in range(2):
                asked = sql.format(**names)
                both(found, name, partial(reader.read, folder, asked, time_limit=LIMIT_SECONDS))
                if found[name] > 5:
                    break
        except LocalismError as refused:
            found[name] = refused.problem
    return found


def by_command(folder: Path, mixes: int, *words: str) -> Facts:
    """A command as people type it, with Python's start; status and why."""
    place = [str(mixes // 2)] if words == ("why",) else []
    command = [sys.executable, "-m", "localism", *words, *place, "--run", str(folder)]

    def run() -> None:
        subprocess.run(command, capture_output=True, check=True, timeout=LIMIT_SECONDS)

    wall = min(seconds_of(run) for _ in range(2))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (used.ru_utime + used.ru_stime) / 2
    return {"cpu": cpu, "wall": wall, "mb": used.ru_maxrss / 1024}


def page(folder: Path) -> Facts:
    """The report: its facts and its text, without the export that stage report also writes."""
    from localism.reporting import facts
    from localism.reporting import page as of_report

    with Store(folder / "corpus.duckdb") as store:
        progress = Progress(io.StringIO(), plain=True)
        context = Context(scale_corpus.config(), store, folder, progress)
        found: Facts = {}
        known: Facts = {}
        both(found, "facts", lambda: known.update(facts.collect(context)))
        both(found, "render", lambda: known.update(text=of_report.render(known)))
    return found | {"page_mb": len(known["text"]) / 1e6}


def export(folder: Path) -> Facts:
    """The data set in both shapes and both kinds of file."""
    from localism.compare import Read
    from localism.export.make import Asked
    from localism.export.make import export as make

    target = folder / "exported"
    with duckdb.connect(str(folder / "corpus.duckdb"), read_only=True) as connection:

        def read(sql: str) -> list[Any]:
            cursor = connection.execute(sql)
            names = [column[0] for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        source: Read = read
        asked = Asked(target, overwrite=True, accept_licences=True)
        found: Facts = {}
        both(found, "export", lambda: make(source, folder, scale_corpus.config(), asked))
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    subprocess.run(["rm", "-r", str(target)], check=True)
    return found | {"written_mb": size / 1e6}


def training(folder: Path, examples: int) -> Facts:
    """Examples of the miniature's own words -> tokens -> the data set that TRL is given."""
    import datasets
    import transformers

    from localism.paths import embedded
    from localism.stages.train_plan import TEMPLATE
    from localism.training.tokens import end_token, tokenize

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(embedded("embedded:student")))
    if not tokenizer.chat_template:
        tokenizer.chat_template = TEMPLATE.read_text()
    words = [word for word in tokenizer.get_vocab() if word.isalpha()]
    draw = Random(0)
    file = folder / "train.jsonl"
    with file.open("w") as out:
        for _ in range(examples):
            asked, said = (" ".join(draw.choices(words, k=n)) for n in (14, 72))
            row = {
                "prompt": [{"role": "user", "content": asked}],
                "completion": [{"role": "assistant", "content": said}],
            }
            out.write(json.dumps(row) + "\n")
    end, before = end_token(tokenizer, "here"), resident_mb()
    found: Facts = {"before_mb": before}
    made: list[Any] = []
    both(found, "tokenize", lambda: made.append(tokenize(file, tokenizer, end, 2048, "here").table))
    found["tokenized_mb"] = resident_mb() - before
    tokens = sum(len(ids) for ids in made[0]["input_ids"])
    table = datasets.table.InMemoryTable(made[0])
    both(found, "dataset", lambda: datasets.Dataset(table))
    found["bytes_a_token"] = 1e6 * found["tokenized_mb"] / tokens
    return found | {"tokens_each": tokens / examples}


CHILDREN = {f.__name__: f for f in (plan, grow, ask, by_command, page, export, training)}

# ---- the parent ------------------------------------------------------------------------------


def child(name: str, folder: Path, *arguments: Any) -> Facts:
    """What a child found with its largest size, or why it ended."""
    command = [sys.executable, __file__, "--child", json.dumps([name, str(folder), *arguments])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=6 * LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return {"failed": f"no end after {6 * LIMIT_SECONDS} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1][:300]}
    found: Facts = json.loads(done.stdout.splitlines()[-1])
    print(f"{name} {arguments}: {json.dumps(found)}", flush=True)
    return found


def growth(rows: dict[int, Facts], key: str) -> float | None:
    """Exponent of a figure between the smallest and the largest size."""
    known = [(size, row[key]) for size, row in rows.items() if isinstance(row.get(key), float)]
    if len(known) < 2:
        return None
    (one, first), *_, (other, last) = known
    return round(math.log(last / first) / math.log(other / one), 2)


def of_plans(scratch: Path, sizes: list[int], skills: int) -> Facts:
    rows = {}
    for size in sizes:
        folder = scratch / f"plan-{skills}-{size}"
        folder.mkdir()
        rows[size] = child("plan", folder, size, skills)
        subprocess.run(["rm", "-r", str(folder)], check=True)
    keys = ("plan", "stage", "skill_coverage", "pair_coverage", "load_mixes")
    return {"skills": skills, "sizes": rows, "growth": {key: growth(rows, key) for key in keys}}


def of_turns(scratch: Path, sizes: list[int]) -> Facts:
    """One corpus that grows; questions, report and export at each size."""
    folder, rows, mixes = scratch / "run", {}, 0
    scale_corpus.begin(folder)
    for size in sizes:
        wanted = size // scale_corpus.TURNS_EACH
        rows[size] = {
            "grow": child("grow", folder, mixes, wanted, min(MEASURED, wanted - mixes)),
            "ask": child("ask", folder, wanted),
            "status": child("by_command", folder, wanted, "status"),
            "why": child("by_command", folder, wanted, "why"),
            "report": child("page", folder),
            "export": child("export", folder),
        }
        mixes = wanted
    subprocess.run(["rm", "-r", str(folder)], check=True)
    return {"turns_each": scale_corpus.TURNS_EACH, "sizes": rows}


def of_training(scratch: Path, sizes: list[int]) -> Facts:
    rows = {size: child("training", scratch, size) for size in sizes}
    keys = ("tokenize", "tokenized_mb", "dataset")
    return {"sizes": rows, "growth": {key: growth(rows, key) for key in keys}}


def table(results: Facts) -> None:
    """What came out, for people: one line a figure, a column a size."""
    for part in ("mixes", "skills", "turns", "training"):
        if part not in results:
            continue
        sizes = results[part]["sizes"]
        print(f"\n{part:<28}" + "".join(f"{int(size):>14,}" for size in sizes))
        lines: dict[str, dict[str, Any]] = {}
        for size, row in sizes.items():
            for name, value in row.items():
                inner = value if isinstance(value, dict) else {"": value}
                for key, one in inner.items():
                    lines.setdefault(f"{name} {key}".strip(), {})[size] = one
        for name, values in lines.items():
            cells = [values.get(size) for size in sizes]
            shown = [f"{c:,.2f}" if isinstance(c, float) else str(c)[:12] for c in cells]
            print(f"  {name:<26}" + "".join(f"{cell:>14}" for cell in shown))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = ("mixes", "skills", "turns", "training")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}")
    parser.add_argument("--mixes", type=int, nargs="+", default=list(MIXES))
    parser.add_argument("--turns", type=int, nargs="+", default=list(TURNS))
    parser.add_argument("--examples", type=int, nargs="+", default=list(EXAMPLES))
    parser.add_argument("--scratch", type=Path, help="where the disk is")
    parser.add_argument("--to", type=Path, default=RESULT, help="another file for the result")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, folder, *arguments = json.loads(options.child)
        found = CHILDREN[name](Path(folder), *arguments)
        print(json.dumps(found | {"peak_mb": peak_mb()}))
        return
    wanted = options.parts or parts
    if unknown := set(wanted) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}")
    results = json.loads(options.to.read_text()) if options.to.exists() else {}
    work = {
        "mixes": lambda scratch: of_plans(scratch, options.mixes, scale_corpus.SKILLS),
        "skills": lambda scratch: of_plans(scratch, options.mixes, MANY_SKILLS),
        "turns": lambda scratch: of_turns(scratch, options.turns),
        "training": lambda scratch: of_training(scratch, options.examples),
    }
    for part in wanted:
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            results[part] = work[part](Path(scratch)) | {
                "date": str(date.today()),
                "machine": f"{platform.machine()}, {os.cpu_count()} shared cores",
                "load_average": round(os.getloadavg()[1], 1),
                "duckdb": duckdb.__version__,
            }
        results = json.loads(json.dumps(results))
        options.to.write_text(json.dumps(results) + "\n")
    table(results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
