"""Skill lists as CSV files: written from a run, read back with every mistake found at once."""

import csv
import hashlib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from localism import reader
from localism.errors import ConfigError, UsageError
from localism.export.folder import replace
from localism.skill_names import normalise
from localism.tables import number_of

COLUMNS = ("skill_id", "name", "cluster", "count", "source", "reason", "exemplar")
MISTAKES_SHOWN = 20
# Each count is so many rows of labels; more than this is a slip of the keyboard, or a flood.
MOST_LABELS = 1_000_000

_ROWS = """
WITH seen AS (
    SELECT l.skill_id, string_agg(DISTINCT l.source, '+' ORDER BY l.source) AS source,
           arg_min(l.reason, l.label_id) FILTER (l.reason IS NOT NULL) AS reason,
           arg_min(e.instruction, l.label_id) FILTER (e.instruction IS NOT NULL) AS exemplar
    FROM skill_label l LEFT JOIN seed_example e USING (seed_id)
    WHERE l.skill_id IS NOT NULL GROUP BY l.skill_id
)
SELECT s.skill_id, s.name, cl.name AS cluster, s.count, source, reason, exemplar
FROM skill s JOIN cluster cl USING (cluster_id) LEFT JOIN seen USING (skill_id)
ORDER BY cl.size DESC, cluster, s.count DESC, s.name
"""


def export(folder: Path, target: Path) -> int:
    """Write the skills of a run, cluster by cluster; returns how many. An old file is left alone.

    Raises UsageError when the file exists: it may hold an hour of somebody's edits.
    """
    if target.exists():
        raise UsageError(
            "the file exists already", where=str(target), fix="name another, or remove it"
        )
    table = reader.read(folder, _ROWS)
    if not table.rows:
        raise ConfigError(
            "this run has no skills yet",
            where=str(folder),
            fix=f"localism cluster --run {folder.name}",
        )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace(target, out.getvalue())
    except OSError as unwritten:
        reason = (unwritten.strerror or str(unwritten)).lower()
        raise UsageError(
            "the file cannot be written", where=f"{target} ({reason})", fix="name another"
        ) from None
    return len(table.rows)


@dataclass(frozen=True)
class ListedSkill:
    """One row of a file."""

    line: int
    """Where the row ends in the file, from 1; for messages."""
    written: str
    """The name as it stands there."""
    skill_id: str
    """Of a skill that the run has; empty for a new one."""
    cluster: str
    """Name of a cluster, or empty."""
    count: str
    """As it stands there; empty is 1."""
    source: str
    """Where it comes from; empty is the file."""
    reason: str
    """Why it is a skill; may be empty."""

    @property
    def labels(self) -> int:
        """The count as a number; only for rows without mistakes."""
        return int(self.count or 1)

    @property
    def name(self) -> str:
        """One spelling; only for rows without mistakes."""
        return normalise(self.written).text or self.written


@dataclass(frozen=True)
class SkillList:
    """A file of skills that could be read; its rows are yet to be checked."""

    path: Path
    """The file."""
    sha256: str
    """Of its bytes."""
    rows: tuple[ListedSkill, ...]
    """In its order."""
    unknown_columns: tuple[str, ...]
    """Columns that nothing reads."""


class Mistake(NamedTuple):
    """What is wrong with a row."""

    line: int
    """Of the file."""
    problem: str
    """In words."""


def read(path: Path) -> SkillList:
    """The rows of a CSV file with a header. Raises ConfigError when it is none, or lacks `name`."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")  # spreadsheets put a mark in front
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file") from None
    except OSError as unread:
        raise _unreadable(path, (unread.strerror or str(unread)).lower()) from None
    except UnicodeDecodeError as wrong:
        raise _unreadable(path, f"it is not UTF-8 (byte {wrong.start})") from None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    mistakes: list[Mistake] = []
    rows = []
    try:
        header = [name.strip().lower() for name in next(lines, [])]
        _check_header(path, header)
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                problem = (
                    f"{number_of(len(cells), 'cell')} under {number_of(len(header), 'column')}"
                )
                mistakes.append(Mistake(lines.line_num, f"{problem}; quote a cell with a comma"))
            row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
            rows.append(_row(lines.line_num, row))
    except csv.Error as wrong:
        raise _unreadable(path, f"line {lines.line_num}: {wrong}") from None
    refuse(path, mistakes)
    if not rows:
        raise _unreadable(path, "it has a header and no rows")
    unknown = tuple(name for name in header if name and name not in COLUMNS)
    return SkillList(path, hashlib.sha256(content).hexdigest(), tuple(rows), unknown)


def _row(line: int, cells: Mapping[str, str]) -> ListedSkill:
    wanted = ("skill_id", "cluster", "count", "source", "reason")
    others = {name: cells.get(name, "") for name in wanted}
    return ListedSkill(line, cells.get("name", ""), **others)


def _check_header(path: Path, header: Sequence[str]) -> None:
    if "name" not in header:
        found = ", ".join(header) or "nothing"
        raise _unreadable(path, f"it has no column `name`; its first line says: {found[:200]}")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise _unreadable(path, f"column {twice[0]} is there twice")


def _unreadable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        "this is no skill list",
        where=f"{path}: {reason}",
        fix="a CSV file, comma-separated, UTF-8, with a column `name`; `localism skills export` "
        "writes one",
    )


# ---- mistakes --------------------------------------------------------------------------------


def check(
    listed: SkillList,
    known: Mapping[str, str] | None = None,
    clusters: Collection[str] = (),
) -> None:
    """Raise ConfigError with the mistakes of all rows, or return.

    `known` are the skills of the run, skill_id to name, and `clusters` the names of its clusters;
    without `known` the list starts a run, and skill_id and cluster do not matter.
    """
    renamed = _renamed(listed.rows, known or {})
    first_line: dict[str, int] = {}
    mistakes: list[Mistake] = []
    for row in listed.rows:
        problems = [_name_problem(row, known or {}), _count_problem(row)]
        if known is not None:
            problems += [
                _id_problem(row, known, renamed, first_line),
                _cluster_problem(row, known, clusters),
            ]
        mistakes += [Mistake(row.line, problem) for problem in problems if problem]
    refuse(listed.path, mistakes)
    total = sum(row.labels for row in listed.rows if row.skill_id not in (known or {}))
    if total > MOST_LABELS:
        raise _unreadable(
            listed.path, f"its counts add up to {total:,}, more than {MOST_LABELS:,} labels"
        )


def refuse(path: Path, mistakes: Iterable[Mistake]) -> None:
    """One error for all mistakes of a file."""
    found = sorted(mistakes)
    if not found:
        return
    shown = [f"line {line}: {problem}" for line, problem in found[:MISTAKES_SHOWN]]
    if len(found) > MISTAKES_SHOWN:
        shown.append(f"and {len(found) - MISTAKES_SHOWN:,} more")
    raise ConfigError(
        f"{number_of(len(found), 'mistake')} in this skill list; nothing was changed",
        where="\n       ".join([str(path), *shown]),
        fix="mend these lines and import the file again",
    )


def _name_problem(row: ListedSkill, known: Mapping[str, str]) -> str | None:
    if not row.written:
        return "the name is empty; leave the whole row out to drop a skill"
    if known.get(row.skill_id) == row.written:
        return None  # as it was
    problem = normalise(row.written).problem
    return f"{_short(row.written)} cannot name a skill: {problem}" if problem else None


def _count_problem(row: ListedSkill) -> str | None:
    if row.count and not (row.count.isascii() and row.count.isdecimal() and int(row.count)):
        return f"count {_short(row.count)} is no whole number above 0"
    return None


def _renamed(rows: Sequence[ListedSkill], known: Mapping[str, str]) -> set[str]:
    """Names that a skill has in the run and not in the file any more."""
    names = {row.skill_id: (row.written, row.name) for row in rows}
    return {name for key, name in known.items() if key in names and name not in names[key]}


def _id_problem(
    row: ListedSkill,
    known: Mapping[str, str],
    renamed: Collection[str],
    first_line: dict[str, int],
) -> str | None:
    """A skill_id that is gone is no mistake where the name says which skill is meant.

    So a file that renames or merges can be imported again, edited further or not.
    """
    if not row.skill_id:
        return None
    if row.skill_id in first_line:
        return f"skill_id {_short(row.skill_id)} stands in line {first_line[row.skill_id]} too"
    first_line[row.skill_id] = row.line
    if row.skill_id in known:
        return None
    unknown = f"this run has no skill_id {_short(row.skill_id)}"
    if row.name in renamed:
        unknown += f", and its skill {row.name} gets another name in this file"
    elif row.name in known.values():
        return None
    return f"{unknown}; leave it empty to add a skill"


def _cluster_problem(
    row: ListedSkill, known: Mapping[str, str], clusters: Collection[str]
) -> str | None:
    is_new = row.skill_id not in known and row.name not in known.values()
    if is_new and row.cluster and row.cluster not in clusters:
        return f"this run has no cluster {_short(row.cluster)}; empty is a cluster of its own"
    return None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
