"""Files of what people preferred -> pairs with the label of each annotator.

One row an annotation, as JSONL, as JSON (a list of objects) or as CSV with a header:

    instruction,output_1,output_2,preference[,annotator][,input][,generator_1,generator_2]

preference: 1 = output_1 is better, 2 = output_2 is better, 0 or 1.5 = a tie; what lies between 1
and 2 is a reference judge's weight. Empty or null is no label. AlpacaEval's human annotations have
these columns (annotator_index for annotator). Rows of the same two outputs, in either order, are
one pair with several annotators.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from localism.errors import ConfigError
from localism.judging.alpacaeval_files import read_text
from localism.judging.newton import Array

COLUMNS = ("instruction", "output_1", "output_2", "preference")
ANNOTATOR = ("annotator", "annotator_index")
JSON_LINES = (".jsonl", ".ndjson")
FORMS = (*JSON_LINES, ".json", ".csv")
PREFERENCE_FIX = (
    "write 1 (output_1 is better), 2 (output_2 is better), 0 (a tie), or leave it empty"
)
UNLABELLED = ("", "nan", "null", "none", "na")
# A quote that is never closed would make one field of the rest of the file.
LONGEST_FIELD = 64 * 2**20


@dataclass(frozen=True)
class RatedPair:
    """Two answers to an instruction, and what each annotator said of them."""

    instruction: str
    """What was asked, with its input behind it."""
    first: str
    """output_1 of the first row about them."""
    second: str
    """output_2."""
    labels: tuple[float, ...]
    """P(first is better) as each annotator gave it: 1, 0, 0.5 for a tie."""
    makers: tuple[str, str]
    """generator_1 and generator_2: who wrote them; empty where the file does not say."""


@dataclass(frozen=True)
class RatedPairs:
    """A whole file."""

    pairs: tuple[RatedPair, ...]
    """Those with a label, in the order of their first rows."""
    unlabelled: int
    """Pairs that nobody gave a label."""

    def labels(self) -> Array:
        """(N, A), NaN where a pair has fewer annotators than others."""
        most = max(len(pair.labels) for pair in self.pairs)
        table = np.full((len(self.pairs), most), np.nan)
        for row, pair in enumerate(self.pairs):
            table[row, : len(pair.labels)] = pair.labels
        return table


@dataclass(frozen=True)
class _Row:
    """One annotation, as it stands in the file."""

    where: str
    """File and line, or place in the list."""
    values: Mapping[str, Any]
    """Its columns."""

    def refuse(self, column: str, problem: str, fix: str) -> NoReturn:
        """Raise the error of a bad cell."""
        shown = repr(self.values.get(column))
        shown = shown if len(shown) <= 80 else f"{shown[:79]}…"
        raise ConfigError(problem, where=f"{self.where}, column {column} = {shown}", fix=fix)

    def text(self, column: str, *, may_be_empty: bool = False) -> str:
        """A text; ConfigError where there is none, or something else."""
        value = self.values.get(column)
        if column not in self.values or not isinstance(value, str):
            self.refuse(column, f"{column} is no text", f"columns: {','.join(COLUMNS)}")
        if not may_be_empty and not value.strip():
            self.refuse(column, f"{column} is empty", "fill it in, or delete the row")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.refuse(column, "half of a surrogate pair is in no text", "save the file as UTF-8")
        return value

    def optional(self, *columns: str) -> str:
        """What the first of these columns that is there holds, as text; empty without any."""
        found = next((self.values[name] for name in columns if name in self.values), None)
        return "" if found is None else str(found).strip()

    def label(self) -> float | None:
        """P(output_1 is better); None where nobody said."""
        value = self.values.get("preference", "")
        if "preference" not in self.values:
            self.refuse("preference", "preference is missing", PREFERENCE_FIX)
        if isinstance(value, str) and value.strip().lower() in UNLABELLED or value is None:
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            self.refuse("preference", "preference is not a number", PREFERENCE_FIX)
        if number == 0:
            return 0.5
        if not 1 <= number <= 2:  # also refuses NaN, which JSON files of Python may hold
            self.refuse("preference", "preference is out of range", PREFERENCE_FIX)
        return 2 - number


@dataclass
class _Gathered:
    """The rows about one pair so far."""

    instruction: str
    outputs: tuple[str, str]
    makers: tuple[str, str]
    labels: list[float] = field(default_factory=list)
    annotators: dict[str, str] = field(default_factory=dict)
    """Annotator -> the place of the row."""

    def add(self, row: _Row, outputs: tuple[str, str]) -> None:
        """Take in a row; ConfigError for an annotator's second one, who would count as two."""
        annotator = row.optional(*ANNOTATOR)
        if annotator in self.annotators:
            row.refuse(
                next(name for name in ANNOTATOR if name in row.values),
                f"this annotator judged the same pair before, in {self.annotators[annotator]}",
                "keep one of the two rows",
            )
        if annotator:
            self.annotators[annotator] = row.where
        label = row.label()
        if label is not None:
            self.labels.append(label if outputs == self.outputs else 1 - label)


def read_rated_pairs(path: Path) -> RatedPairs:
    """The pairs of a file; ConfigError names file, line and column of what is wrong."""
    found: dict[tuple[str, ...], _Gathered] = {}
    for row in _rows(path):
        instruction, outputs = _texts(row)
        makers = (row.optional("generator_1"), row.optional("generator_2"))
        one = _Gathered(instruction, outputs, makers)
        found.setdefault((instruction, *sorted(outputs)), one).add(row, outputs)
    labelled = [one for one in found.values() if one.labels]
    if not labelled:
        raise ConfigError(
            "the file holds no pair with a preference",
            where=str(path),
            fix=f"one annotation a row: {','.join(COLUMNS)}",
        )
    pairs = tuple(
        RatedPair(one.instruction, *one.outputs, tuple(one.labels), one.makers) for one in labelled
    )
    return RatedPairs(pairs, len(found) - len(labelled))


def _texts(row: _Row) -> tuple[str, tuple[str, str]]:
    instruction = row.text("instruction")
    if more := row.optional("input"):
        instruction = f"{instruction}\n\n{more}"
    # An empty answer is an answer, and people have an opinion on it.
    first = row.text("output_1", may_be_empty=True)
    return instruction, (first, row.text("output_2", may_be_empty=True))


# ---- formats -------------------------------------------------------------------------------


def _rows(path: Path) -> Iterator[_Row]:
    suffix = path.suffix.lower()
    if suffix not in FORMS:
        raise ConfigError(
            f"preferences are not read from {suffix or 'files without a suffix'}",
            where=str(path),
            fix=f"give one of {', '.join(FORMS)}",
        )
    text = read_text(path)
    if suffix == ".csv":
        yield from _csv(path, text)
    elif suffix == ".json":
        yield from _json_list(path, text)
    else:
        # Not splitlines: it also breaks at characters that JSON texts may hold unescaped.
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield _object(_parsed(line, path, number), f"{path}, line {number}")


def _json_list(path: Path, text: str) -> Iterator[_Row]:
    found = _parsed(text, path, 1)
    if not isinstance(found, list):
        raise ConfigError(
            "the file holds no list of objects",
            where=str(path),
            fix="write [{...}, ...]; a file with an object a line is named .jsonl",
        )
    for number, value in enumerate(found, 1):
        yield _object(value, f"{path}, entry {number}")


def _parsed(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as wrong:
        where = f"{path}, line {first_line + wrong.lineno - 1}, column {wrong.colno}"
        problem = f"this is not JSON: {wrong.msg}"
        raise ConfigError(problem, where=where, fix="mend it, or copy the file again") from None
    except (ValueError, RecursionError) as wrong:  # a number of thousands of digits, deep nesting
        where = f"{path}, line {first_line} or after it"
        problem = f"this is not JSON that can be read: {wrong}"
        raise ConfigError(problem, where=where, fix="mend it, or copy the file again") from None


def _object(value: Any, where: str) -> _Row:
    if not isinstance(value, dict):
        raise ConfigError(
            "this is no object", where=where, fix=f"write an object with {', '.join(COLUMNS)}"
        )
    return _Row(where, value)


def _csv(path: Path, text: str) -> Iterator[_Row]:
    csv.field_size_limit(LONGEST_FIELD)
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    layout = f"the header is {','.join(COLUMNS)}, in any order, and may have more"
    try:
        header = [name.strip() for name in next(lines, [])]
        wrong = [name for name in COLUMNS if header.count(name) != 1]
        if wrong:
            raise ConfigError(
                f"columns missing or repeated: {', '.join(wrong)}",
                where=f"{path}, line 1, columns {', '.join(header) or '(none)'}",
                fix=layout,
            )
        for fields in lines:
            where = f"{path}, line {lines.line_num}"
            if fields and len(fields) != len(header):
                problem = f"the line has {len(fields)} fields, the header has {len(header)}"
                raise ConfigError(problem, where=where, fix="quote fields that contain a comma")
            if fields:
                yield _Row(where, dict(zip(header, fields, strict=True)))
    except csv.Error as broken:
        where = f"{path}, line {lines.line_num}"
        raise ConfigError(f"this is not CSV: {broken}", where=where, fix=layout) from None
