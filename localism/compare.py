"""Trainings side by side, of one run or of several: scores on test, and differences with intervals.

A difference is against the first that is named, paired by prompt where both were judged on the same
instructions and references by the same rule, by tuple where they share those at least, and else
unpaired (judging.differences). The tables of the paper's ablations are views of each corpus;
several runs are put under each other.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from localism import reader
from localism.errors import StageError, UsageError
from localism.tables import number_of
from localism.training.sets import MAIN

if TYPE_CHECKING:
    from localism.judging.differences import Judged

Read = Callable[[str], list[dict[str, Any]]]
"""Runs a query on the corpus of one run."""
FACTS = (
    "set", "kind", "seed", "k", "examples", "epoch", "win_rate", "low", "high", "lc_win_rate",
    "lc_low", "lc_high", "characters", "tokens", "skill_coverage",
)  # fmt: skip
DIFFERENCE = (
    "difference", "difference_low", "difference_high", "effect", "basis", "prompts",
)  # fmt: skip
SEED = 0


class PaperTable(NamedTuple):
    """One of the paper's ablation tables, of our runs."""

    number: str
    """In the paper."""
    title: str
    """What it compares."""
    view: str
    """Of the corpus."""
    varies: tuple[str, ...]
    """Columns that tell what is compared."""


PAPER = (
    PaperTable("2", "Which data", "ablation_data", ("kind", "source", "examples")),
    PaperTable("3", "Skills in an example, and examples", "ablation_skills", ("k", "examples")),
    PaperTable("4", "Which teacher", "ablation_teachers", ("teacher", "source")),
    PaperTable("6", "Bad answers among the good", "ablation_quality", ("kind", "share")),
    PaperTable("13", "Disjoint parts", "ablation_splits", ("part",)),
    PaperTable("14", "Lengths in the training sets", "dataset_stats", ("set_name", "split")),
)


@dataclass(frozen=True)
class Entry:
    """A training whose pick was measured on test."""

    label: str
    """As it is shown."""
    facts: dict[str, Any]
    """A row of view ablations."""
    judged: "list[Judged]"
    """Its test prompts."""


def compare(names: Sequence[str], own: Path, folder_of: Callable[[str], Path]) -> reader.Table:
    """A row for each name, the differences against the first; all trainings of `own` if no name.

    A name is a training of run `own`, or a run, or RUN:TRAINING. Raises UsageError for a name that
    is neither, or that has not been measured.
    """
    if not names:
        return side_by_side(reading(own), own)
    return _table([_entry(name, own, folder_of) for name in names])


def side_by_side(read: Read, own: Path) -> reader.Table:
    """A row for each measured training of one run; UsageError where there is none."""
    entries = [_load(read, training, training) for training in measured(read)]
    if not entries:
        raise UsageError(
            "no training of this run has been measured on test",
            where=str(own),
            fix=f"localism evaluate --run {own.name}",
        )
    return _table(entries)


def paper_tables(
    runs: Sequence[tuple[str, Read]], numbers: Iterable[str] = ()
) -> list[tuple[PaperTable, reader.Table]]:
    """The paper's ablation tables that these runs can fill; of several runs, with their names.

    A table in which nothing is compared is left out, unless its number is asked for.
    """
    wanted = tuple(numbers)
    found = []
    for table in PAPER:
        rows = [
            ({"run": name} if len(runs) > 1 else {}) | row
            for name, read in runs
            for row in read(f"SELECT * FROM {table.view}")
        ]
        kinds = {tuple(str(row.get(name)) for name in ("run", *table.varies)) for row in rows}
        if table.number in wanted or (not wanted and len(kinds) > 1):
            found.append((table, _flat(rows)))
    return found


def reading(folder: Path) -> Read:
    """Queries on a run that may be at work; StageError where its corpus lacks today's views."""

    def read(sql: str) -> list[dict[str, Any]]:
        try:
            return reader.read(folder, sql).as_dicts()
        except UsageError as wrong:
            if not reader.is_missing(wrong):
                raise
            raise StageError(
                "this run's corpus is of an older localism, which could not compare",
                where=str(folder),
                fix=f"localism report --run {folder.name} brings its views up to date",
            ) from None

    return read


def measured(read: Read) -> list[str]:
    """Trainings with a measured pick, the run's own first."""
    return [row["training"] for row in read("SELECT training FROM ablations")]


def _entry(name: str, own: Path, folder_of: Callable[[str], Path]) -> Entry:
    known = measured(reading(own))
    if name in known:
        return _load(reading(own), name, name)
    run_name, _, training = name.partition(":")
    try:
        folder = folder_of(run_name)
    except UsageError:
        raise UsageError(
            f"{name!r} is no measured training of run {own.name}, and no run",
            where=f"--run {own.name}",
            fix=f"name some of: {', '.join(known) or 'none here'}; or runs, or"
            " RUN:TRAINING; localism evaluate --on SET measures a training",
        ) from None
    training = training or MAIN
    there = measured(reading(folder))
    if training not in there:
        on = "" if training == MAIN else " --on SET"
        measure = f"`localism evaluate --run {folder.name}{on}` measures it"
        raise UsageError(
            f"{training!r} of run {folder.name} has not been measured on test",
            where=name,
            fix=f"name some of: {', '.join(there)}; or {measure}"
            if there
            else f"{measure}; of a run that is not so far, `localism run-all --run {folder.name}`",
        )
    return _load(reading(folder), training, name)


def _load(read: Read, training: str, label: str) -> Entry:
    from localism.judging.differences import Judged

    name = training.replace("'", "''")
    (facts,) = read(f"SELECT *, set_name AS set FROM ablations WHERE training = '{name}'")
    rows = read(
        "SELECT prompt, tuple, rule, preference FROM test_preferences"
        f" WHERE training = '{name}' AND preference IS NOT NULL ORDER BY prompt"
    )
    return Entry(label, facts, [Judged(**row) for row in rows])


def _table(entries: list[Entry]) -> reader.Table:
    suites = sorted({name for entry in entries for name in entry.facts["benchmarks"] or {}})
    columns = ["training", *FACTS, *DIFFERENCE, *suites]
    return reader.Table(columns, [_row(entry, entries[0], suites) for entry in entries])


def _row(entry: Entry, first: Entry, suites: Sequence[str]) -> list[Any]:
    from localism.judging.differences import Difference, difference

    against = Difference(None, None, None, None, "", len(entry.judged))
    if entry is not first:
        against = difference(entry.judged, first.judged, seed=SEED)
    facts = [_rounded(entry.facts[name]) for name in FACTS]
    points = [_rounded(value) for value in (against.value, against.low, against.high)]
    how = [_rounded(against.effect, 2), against.basis, against.prompts]
    scores = [(entry.facts["benchmarks"] or {}).get(suite) for suite in suites]
    return [entry.label, *facts, *points, *how, *scores]


def _rounded(value: Any, digits: int = 1) -> Any:
    return round(value, digits) + 0.0 if isinstance(value, float) else value  # no -0.0


def _flat(rows: Sequence[dict[str, Any]]) -> reader.Table:
    """Rows with their benchmarks as columns; what no row has is left out."""
    flat = [
        {key: value for key, value in row.items() if key != "benchmarks"}
        | (row.get("benchmarks") or {})
        for row in rows
    ]
    columns = [
        name
        for name in dict.fromkeys(name for row in flat for name in row)
        if any(row.get(name) is not None for row in flat)
    ]
    return reader.Table(columns, [[row.get(name) for name in columns] for row in flat])


# ---- for people ------------------------------------------------------------------------------

SHORT = {
    "examples": "data", "win_rate": "win", "lc_win_rate": "lc", "characters": "length",
    "skill_coverage": "skills",
}  # fmt: skip
DETAIL = {
    "low", "high", "lc_low", "lc_high", "difference_low", "difference_high", "prompts", "kind",
    "share",
}  # fmt: skip
MEANINGS = {
    "data": "training examples",
    "win": "win rate against the reference, in percent",
    "lc": "length-controlled win rate, in percent",
    "length": "characters of an answer",
    "skills": "answers that show all their skills, in percent",
    "difference": "points of win rate",
}


def narrow(table: reader.Table) -> tuple[reader.Table, str]:
    """The comparison in the columns that a terminal has room for, and how to read it."""
    rows = table.as_dicts()
    left_out = {"set", "kind", "seed", "epoch", "tokens", "skill_coverage", "basis"}
    left_out |= {*DIFFERENCE} if len(rows) == 1 else set()  # nothing to compare it with
    columns = [name for name in table.columns if name not in left_out]
    kept = reader.Table(columns, [[row[name] for name in columns] for row in rows])
    short = condensed(kept)
    return short, f"{legend(short.columns)} {_reading_help(rows)}".rstrip()


def legend(columns: Iterable[str]) -> str:
    """What the short names of these columns mean; a difference comes last."""
    shown = set(columns)
    return "; ".join(f"{name}: {text}" for name, text in MEANINGS.items() if name in shown)


def condensed(table: reader.Table) -> reader.Table:
    """Short names, and a difference with its interval in one cell."""
    rows = table.as_dicts()
    columns = [name for name in table.columns if name not in DETAIL]
    if all(row.get("source") == "accepted" for row in rows):
        columns = [name for name in columns if name != "source"]
    cells = [
        [_interval(row) if name == "difference" else _rounded(row[name]) for name in columns]
        if "difference" in row
        else [row[name] for name in columns]
        for row in rows
    ]
    return reader.Table([SHORT.get(name, name) for name in columns], cells)


def _interval(row: dict[str, Any]) -> str | None:
    if row["difference"] is None:
        return None
    text = f"{_rounded(row['difference']):+.1f}"
    if row["difference_low"] is not None:
        text += f" ({row['difference_low']:.1f} to {row['difference_high']:.1f})"
    return text


def _reading_help(rows: Sequence[dict[str, Any]]) -> str:
    """How the differences were come by, in a line for each way."""
    first, *others = rows
    if not others:
        return ""
    lines = [
        f"against {first['training']}, with a 95% interval over prompts; effect: the same in"
        " standard deviations of the preferences"
    ]
    ways = dict.fromkeys((row["basis"], row["prompts"]) for row in others)
    for basis, prompts in ways:
        names = [r["training"] for r in others if (r["basis"], r["prompts"]) == (basis, prompts)]
        whose = "" if len(ways) == 1 else f"{', '.join(names)}: "
        count = "" if basis.startswith("not") else f", {number_of(prompts, 'prompt')}"
        lines.append(f"{whose}{basis}{count}")
    return "\n".join(lines)
