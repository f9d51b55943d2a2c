"""Files in AlpacaEval's units -> typed values, or an error that names file, line and column.

preferences     model,index,preference,len_model,len_baseline
                preference: 1 = baseline is better, 2 = candidate is better, 0 = tie
difficulty      index,difficulty
gamed           {"S_tanh": .., "S_difficulty": .., "gamed_weight": ..}
gamed lengths   index,len_baseline,len_verbose,len_concise
"""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from localism.errors import ConfigError
from localism.judging.alpacaeval import GamedBlock
from localism.judging.winrate import BattleRow, Battles, battles_from_rows, tanh_of_lengths

PREFERENCE_COLUMNS = ("model", "index", "preference", "len_model", "len_baseline")
DIFFICULTY_COLUMNS = ("index", "difficulty")
GAMED_LENGTH_COLUMNS = ("index", "len_baseline", "len_verbose", "len_concise")
UNSCORED_WORDS = ("", "nan", "null", "none", "na")

PREFERENCE_FIX = (
    "write 1 (baseline is better) to 2 (candidate is better), 1.5 or 0 for a tie, "
    "or leave it empty where the judge gave no verdict"
)
LENGTH_FIX = "write the answer's length in characters, 0 or more"
DIFFICULTY_FIX = "write a number, about -5 to 5"
# Beyond these a cell is corrupt, and its square would overflow in the fit.
LONGEST_ANSWER = 1e9
LARGEST_DIFFICULTY = 100.0


class Cells(NamedTuple):
    """One line of a CSV file, and where it came from."""

    path: Path
    """The file."""
    line: int
    """Line number in the file, the header is 1."""
    values: dict[str, str]
    """Text by column, stripped."""

    def refuse(self, column: str, problem: str, fix: str) -> NoReturn:
        """Raise the error of a bad cell."""
        raise ConfigError(
            problem,
            where=f"{self.path}, line {self.line}, column {column} = {self.values[column]!r}",
            fix=fix,
        )

    def name(self, column: str) -> str:
        """A label that is not empty."""
        if not self.values[column]:
            self.refuse(column, f"{column} is empty", f"fill in the {column} or delete the line")
        return self.values[column]

    def number(self, column: str, fix: str, *, low: float, high: float) -> float:
        """A number in [low, high]."""
        try:
            value = float(self.values[column])
        except ValueError:
            self.refuse(column, f"{column} is not a number", fix)
        if not low <= value <= high:  # also refuses NaN
            self.refuse(column, f"{column} is out of range", fix)
        return value

    def length(self, column: str) -> float:
        """A count of characters."""
        return self.number(column, LENGTH_FIX, low=0, high=LONGEST_ANSWER)


def read_preferences_csv(path: Path | str) -> Battles:
    """Read judgments; preferences become P(candidate beats baseline) in [0, 1].

    An empty or NaN preference is unscored. AlpacaEval's own code also drops numbers outside [1, 2]
    with a log line; here they are an error, because the likely cause is a file in other units.
    Raises ConfigError on a bad file, cell or a repeated (model, index).
    """
    rows: list[BattleRow] = []
    seen: dict[tuple[str, str], int] = {}
    for cells in _read_csv(Path(path), PREFERENCE_COLUMNS):
        model, index = cells.name("model"), cells.name("index")
        if (model, index) in seen:
            cells.refuse(
                "index",
                f"{model} is judged twice on this index, first in line {seen[model, index]}",
                "keep one line for each model and index",
            )
        seen[model, index] = cells.line
        preference = _preference(cells)
        if preference is None:
            rows.append(BattleRow(model, index, None, None, None))
            continue
        lengths = cells.length("len_model"), cells.length("len_baseline")
        rows.append(BattleRow(model, index, preference, *lengths))
    return battles_from_rows(rows)


def _preference(cells: Cells) -> float | None:
    """AlpacaEval's preference in [0, 1]; 0 is how old files write a tie."""
    if cells.values["preference"].lower() in UNSCORED_WORDS:
        return None
    preference = cells.number("preference", PREFERENCE_FIX, low=0, high=2)
    if preference == 0:
        return 0.5
    if preference < 1:
        cells.refuse("preference", "preference is out of range", PREFERENCE_FIX)
    return preference - 1


def read_difficulty_csv(path: Path | str) -> dict[str, float]:
    """Read each item's difficulty on AlpacaEval's scale. Raises ConfigError."""
    difficulty: dict[str, float] = {}
    for cells in _read_csv(Path(path), DIFFICULTY_COLUMNS):
        index = cells.name("index")
        if index in difficulty:
            cells.refuse("index", "this index occurs twice", "keep one difficulty for each index")
        difficulty[index] = cells.number(
            "difficulty", DIFFICULTY_FIX, low=-LARGEST_DIFFICULTY, high=LARGEST_DIFFICULTY
        )
    return difficulty


def read_gamed(
    constants: Path | str, lengths: Path | str, difficulty: dict[str, float]
) -> GamedBlock:
    """Read what is left of AlpacaEval's verbose and concise baseline rows. Raises ConfigError.

    difficulty: of every index in the lengths file, as from `read_difficulty_csv`.
    """
    sums = _read_constants(Path(constants))
    columns: dict[str, list[float]] = {column: [] for column in GAMED_LENGTH_COLUMNS[1:]}
    difficulties: list[float] = []
    for cells in _read_csv(Path(lengths), GAMED_LENGTH_COLUMNS):
        if cells.name("index") not in difficulty:
            cells.refuse("index", "this index has no difficulty", "add it to the difficulty file")
        difficulties.append(difficulty[cells.values["index"]])
        for column, values in columns.items():
            values.append(cells.length(column))
    baseline = np.array(columns["len_baseline"])
    variants = [baseline - np.array(columns[name]) for name in ("len_verbose", "len_concise")]
    return GamedBlock(
        terms=np.concatenate([tanh_of_lengths(difference) for difference in variants]),
        difficulty=np.array(difficulties * len(variants)),
        terms_by_preference=sums["S_tanh"],
        difficulty_by_preference=sums["S_difficulty"],
        weight=sums["gamed_weight"],
    )


def _read_constants(path: Path) -> dict[str, float]:
    """The three numbers of the gamed file, finite, the weight not negative."""
    keys = ("S_tanh", "S_difficulty", "gamed_weight")
    fix = 'write {"S_tanh": .., "S_difficulty": .., "gamed_weight": ..}, three numbers'
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as problem:
        where = f"{path}, line {problem.lineno}, column {problem.colno}"
        raise ConfigError("this is not JSON", where=where, fix=fix) from problem
    if not isinstance(found, dict):
        raise ConfigError("the file holds no JSON object", where=str(path), fix=fix)
    for key in keys:
        if not _is_number(found.get(key)) or (key == "gamed_weight" and found[key] < 0):
            raise ConfigError(
                f"{key} is missing or not a usable number",
                where=f"{path}, {key} = {found.get(key)!r}",
                fix=fix,
            )
    return {key: float(found[key]) for key in keys}


def _is_number(value: object) -> bool:
    """Finite, and not a truth value, which Python counts among the integers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without a byte order mark; ConfigError when it cannot be read."""
    try:
        # utf-8-sig: a spreadsheet's byte order mark would become part of the first column's name
        return path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise ConfigError(
            f"cannot read the file: {reason}",
            where=str(path),
            fix="check the path and its permissions",
        ) from problem
    except UnicodeDecodeError as problem:
        raise ConfigError(
            f"the file is not UTF-8 text (byte {problem.start})",
            where=str(path),
            fix="save it as UTF-8",
        ) from problem


def _read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[Cells]:
    """The lines under the header, stripped; columns beyond `columns` are allowed and ignored."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    layout = f"the header is {','.join(columns)}, in any order"
    try:
        header = [name.strip() for name in next(reader, [])]
        absent = [column for column in columns if header.count(column) != 1]
        if absent:
            where = f"{path}, line 1, columns {', '.join(header) or '(none)'}"
            problem = f"columns missing or repeated: {', '.join(absent)}"
            raise ConfigError(problem, where=where, fix=layout)
        found_any = False
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(header):
                problem = f"the line has {len(fields)} fields, the header has {len(header)}"
                where = f"{path}, line {reader.line_num}"
                raise ConfigError(problem, where=where, fix="quote fields that contain a comma")
            found_any = True
            values = {name: text.strip() for name, text in zip(header, fields, strict=True)}
            yield Cells(path, reader.line_num, values)
    except csv.Error as problem:
        where = f"{path}, line {reader.line_num}"
        raise ConfigError(f"this is not CSV: {problem}", where=where, fix=layout) from problem
    if not found_any:
        raise ConfigError(
            "the file has no rows", where=str(path), fix=f"{layout}; add a line under it"
        )
