"""Rows of a benchmark's public files, with the place of each for error messages."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from localism.errors import ConfigError

JSON_LINES = (".jsonl", ".ndjson")
READABLE = (*JSON_LINES, ".json", ".parquet")


@dataclass(frozen=True)
class Row:
    """One object of a file."""

    where: str
    """File and line, or place in the list."""
    values: Mapping[str, Any]
    """Its columns."""

    def refuse(self, problem: str, fix: str) -> NoReturn:
        """Raise the error of a row that is not what the benchmark has."""
        raise ConfigError(problem, where=self.where, fix=fix)

    def text(self, *names: str, empty: bool = False) -> str:
        """The text of the first of these columns that is there; it may be empty only if `empty`."""
        name = next((name for name in names if name in self.values), None)
        value = self.values.get(name) if name else None
        if not isinstance(value, str) or not (empty or value.strip()):
            self.refuse(
                f"no text in {' or '.join(names)}",
                f"the row has {', '.join(map(str, self.values)) or 'no columns'}",
            )
        self._check_storable(value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.values.get(name)
        if not isinstance(value, list) or not value:
            self.refuse(f"no list of texts in {name}", "take the benchmark's own file as it is")
        for entry in value:
            if not isinstance(entry, str):
                self.refuse(f"{name} holds something that is no text", "take the file as it is")
            self._check_storable(entry)
        return tuple(value)

    def _check_storable(self, value: str) -> None:
        try:
            value.encode()
        except UnicodeEncodeError:
            self.refuse("half of a surrogate pair is in no text", "save the file as UTF-8")


def rows(file: Path) -> Iterator[Row]:
    """The objects of a JSONL, JSON (a list), CSV (with a header) or Parquet file.

    Raises ConfigError.
    """
    try:
        if file.suffix == ".parquet":
            yield from _parquet(file)
            return
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as unread:
        raise ConfigError(
            f"the benchmark file cannot be read: {getattr(unread, 'strerror', None) or unread}",
            where=str(file),
            fix="check the path; JSON files are UTF-8",
        ) from None
    if file.suffix == ".csv":
        yield from _csv(file, text)
        return
    yield from _json_lines(file, text) if file.suffix in JSON_LINES else _json_list(file, text)


def _json_lines(file: Path, text: str) -> Iterator[Row]:
    # Not splitlines: it also breaks at characters that JSON texts may hold unescaped.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _row(f"{file} line {number}", _parsed(line, f"{file} line {number}"))


def _json_list(file: Path, text: str) -> Iterator[Row]:
    found = _parsed(text, str(file))
    if not isinstance(found, list):
        raise ConfigError(
            "the file holds no list of objects", where=str(file), fix="take the benchmark's own"
        )
    for number, value in enumerate(found, 1):
        yield _row(f"{file} entry {number}", value)


def _csv(file: Path, text: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for values in reader:
            row = Row(f"{file} line {reader.line_num}", values)
            if None in values or None in values.values():
                row.refuse("the row has not as many cells as the header", "quote texts with commas")
            yield row
    except csv.Error as wrong:
        raise ConfigError(
            f"this is not CSV: {wrong}",
            where=f"{file} line {reader.line_num}",
            fix='put a text that holds " or a line break in quotes, each " in it doubled',
        ) from None


def _parquet(file: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except pyarrow.ArrowException as broken:
        raise ConfigError(
            f"this is no Parquet file: {broken}", where=str(file), fix="copy it again, whole"
        ) from None
    for number, value in enumerate(table.to_pylist(), 1):
        yield _row(f"{file} row {number}", value)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise ConfigError(f"this is not JSON: {wrong}", where=where, fix="copy it again") from None


def _row(where: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise ConfigError("this is no object", where=where, fix="take the benchmark's own file")
    return Row(where, value)


def only_file(source: Path, names: Sequence[str], what: str) -> Path:
    """The file itself, or the one of a folder (searched whole) that has one of these names.

    Names may be patterns (*.json). The first name that is there counts, so the surest come first.
    Raises ConfigError when there is none, or several of one name.
    """
    if source.is_file():
        return source
    for name in names:
        found = sorted(path for path in source.rglob(name) if path.is_file())
        if len(found) > 1:
            shown = ", ".join(str(path.relative_to(source)) for path in found[:4])
            raise ConfigError(
                f"several files could hold {what}: {shown}",
                where=str(source),
                fix="name the one file",
            )
        if found:
            return found[0]
    raise ConfigError(
        f"no file with {what}",
        where=str(source),
        fix=f"bring {' or '.join(names)}" if source.is_dir() else "check the path",
    )


def unique(own_ids: Sequence[str], where: str) -> None:
    """ConfigError when two items have one id."""
    seen: set[str] = set()
    for own_id in own_ids:
        if own_id in seen:
            raise ConfigError(
                f"two items have the id {own_id}", where=where, fix="keep one row for each"
            )
        seen.add(own_id)
