"""Files and folders of seed data -> seed examples, and a seeded sample of each source.

Read are JSONL, JSON, CSV (each also as .gz), Parquet, a dataset folder as datasets.save_to_disk
writes it, and a plain folder of such files. Everything but JSON streams, and of Parquet and Arrow
only the columns needed are read, so that memory does not grow with the number of rows.
"""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import IO, Any, NoReturn, TypeVar

from localism.config import Extract, SeedSource
from localism.errors import ConfigError
from localism.paths import embedded
from localism.records import stable_id
from localism.seeds.shapes import Columns, find_columns, read_row

FORM = '{"instruction": "...", "response": "..."}'
BATCH_ROWS = 512
# A quote that is never closed would make one field of the rest of the file.
LONGEST_CSV_FIELD = 64 * 2**20
# What a damaged file raises while it is read; Arrow's errors and wrong UTF-8 are ValueErrors.
UNREADABLE = (OSError, EOFError, ValueError, zlib.error, csv.Error)
# Files of a dataset folder that describe it.
DESCRIPTIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
SPLIT_WORDS = {"train", "training", "validation", "valid", "dev", "test", "eval"}
_SHARD = re.compile(r"(?:.*-)?(\w+)-\d+-of-\d+.*")

Row = dict[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class SeedExample:
    """One row of seed data."""

    source: str
    """Name of the file or folder."""
    ordinal: int
    """How many rows of the source stand before it."""
    instruction: str
    """With its input behind it."""
    response: str | None
    """If the row has one."""

    @property
    def seed_id(self) -> str:
        """By the instruction alone, which is all that is labelled: the same one counts once."""
        return stable_id("seed", self.instruction)


def sample_sources(section: Extract, seed: int) -> list[SeedExample]:
    """A seeded sample of each source by itself, in the order of the sources and their rows.

    What is drawn from one source does not depend on the others. Raises ConfigError as read does,
    and for a source without a row.
    """
    drawn: list[SeedExample] = []
    for number, source in enumerate(section.seeds):
        random = Random(f"seed examples {seed} of source {number}")
        sample = reservoir(read(source), source.sample or section.seed_examples, random)
        if not sample:
            raise ConfigError(
                "the seed data holds no example",
                where=f"[extract].seeds[{number}] = {source.path!r}",
                fix=f"put rows into it, for instance {FORM}",
            )
        drawn += sorted(sample, key=lambda example: example.ordinal)
    return drawn


def reservoir(every: Iterable[Item], count: int, random: Random) -> list[Item]:
    """`count` of them, each as likely as any other; holds no more than that in memory.

    Vitter's algorithm R: it draws a number for each row, so that the way in which rows were
    batched has no part in the outcome.
    """
    kept: list[Item] = []
    for number, example in enumerate(every):
        if number < count:
            kept.append(example)
        elif (place := random.randrange(number + 1)) < count:
            kept[place] = example
    return kept


def read(source: SeedSource) -> Iterator[SeedExample]:
    """All examples of a source. A row or file that is none raises ConfigError and says where."""
    path = embedded(source.path)
    asked = Columns(source.instruction, source.input, source.response)
    ordinal = 0
    for file in _files(path, source.split):
        unit, rows = READERS[_kind(file)]
        place = 0
        try:
            for place, row in rows(file, asked):
                try:
                    instruction, response = read_row(row, find_columns(row, asked))
                except ValueError as wrong:
                    _refuse_row(str(wrong), f"{file}{unit}{place}", row)
                yield SeedExample(path.name, ordinal, instruction, response)
                ordinal += 1
        except UNREADABLE as damaged:
            raise ConfigError(
                f"the seed data cannot be read: {damaged}",
                where=f"{file}{unit}{place}, or after it" if place else str(file),
                fix="check that the file is whole, and in the format that its suffix says",
            ) from None


def _refuse_row(problem: str, where: str, columns: Iterable[str]) -> NoReturn:
    raise ConfigError(
        f"not a seed example: {problem}",
        where=where,
        fix=f"mend or drop that row, or name other columns in models.toml: {_naming(columns)}",
    )


def _naming(columns: Iterable[str]) -> str:
    return (
        '[extract].seeds = [{ path = "...", instruction = "COLUMN", response = "COLUMN" }];'
        f" columns here: {', '.join(columns) or 'none'}"
    )


# ---- one file -> (line or row from 1, the row as a dict) -----------------------------------------


def _open(file: Path, **text: str) -> IO[Any]:
    """Bytes, or text when `text` says how to decode it; unpacked when the name ends in .gz."""
    mode = "rt" if text else "rb"
    return gzip.open(file, mode, **text) if file.suffix == ".gz" else file.open(mode, **text)  # type: ignore[call-overload]


def _jsonl(file: Path, _: Columns) -> Iterator[tuple[int, Row]]:
    with _open(file) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _object(line, f"{file}:{number}")


def _object(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig"))
        if isinstance(row, dict):
            return row
        problem = "the line is not a JSON object"
    except (ValueError, RecursionError) as wrong:
        problem = str(wrong)
    raise ConfigError(
        f"not a seed example: {problem}", where=where, fix=f"write one JSON object a line: {FORM}"
    )


def _json(file: Path, _: Columns) -> Iterator[tuple[int, Row]]:
    with _open(file) as stream:
        content = stream.read()
    try:
        table = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as wrong:
        fix = "mend it; a file with one JSON object a line is named .jsonl"
        raise ConfigError(f"not JSON: {wrong}", where=str(file), fix=fix) from None
    found = list(table.values()) if isinstance(table, dict) else [table]
    arrays = [value for value in found if isinstance(value, list)]
    if len(arrays) != 1:
        keys = f" (keys here: {', '.join(table)})" if isinstance(table, dict) else ""
        raise ConfigError(
            "neither an array of seed examples nor an object that holds one array",
            where=str(file),
            fix=f"write [{FORM}, ...]{keys}",
        )
    for number, row in enumerate(arrays[0], start=1):
        if not isinstance(row, dict):
            _refuse_row("not a JSON object", f"{file}, row {number}", ())
        yield number, row


def _csv(file: Path, asked: Columns) -> Iterator[tuple[int, Row]]:
    """Rows by their last line: a quoted field may have several."""
    csv.field_size_limit(LONGEST_CSV_FIELD)
    with _open(file, encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream, strict=True)
        header = next(lines, [])
        if twice := sorted({name for name in header if name and header.count(name) > 1}):
            problem, fix = f"column {twice[0]!r} is there twice", "give each column its own name"
            raise ConfigError(f"not seed data: {problem}", where=str(file), fix=fix)
        if header:
            _columns(header, asked, file)
        for row in lines:
            if row and len(row) != len(header):
                problem = f"fields in this row: {len(row)}, in the header: {len(header)}"
                _refuse_row(problem, f"{file}:{lines.line_num}", header)
            if row:
                yield lines.line_num, dict(zip(header, row, strict=True))


def _parquet(file: Path, asked: Columns) -> Iterator[tuple[int, Row]]:
    import pyarrow.parquet

    # Otherwise a row group's whole columns are held: a million rows in one group are common.
    flat = {"buffer_size": 2**20, "pre_buffer": False}
    with pyarrow.parquet.ParquetFile(file, **flat) as table:
        columns = _columns(table.schema_arrow.names, asked, file)
        yield from _numbered(table.iter_batches(BATCH_ROWS, columns=columns, use_threads=False))


def _arrow(file: Path, asked: Columns) -> Iterator[tuple[int, Row]]:
    """Arrow's stream format, which datasets writes. Not memory-mapped: mapped pages count too."""
    import pyarrow

    with pyarrow.OSFile(str(file)) as stream, pyarrow.ipc.open_stream(stream) as table:
        names = table.schema.names
        fields = [names.index(name) for name in _columns(names, asked, file)]
    options = pyarrow.ipc.IpcReadOptions(included_fields=fields)
    with (
        pyarrow.OSFile(str(file)) as stream,
        pyarrow.ipc.open_stream(stream, options=options) as table,
    ):
        yield from _numbered(table)


def _columns(names: list[str], asked: Columns, file: Path) -> list[str]:
    """The columns of a table to read."""
    try:
        return find_columns(names, asked).used()
    except ValueError as wrong:
        fix = f"name the columns in models.toml: {_naming(names)}"
        raise ConfigError(f"not seed data: {wrong}", where=str(file), fix=fix) from None


def _numbered(batches: Iterable[Any]) -> Iterator[tuple[int, Row]]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield number, row


# Suffix -> how a place in it is written, and its reader.
READERS: dict[str, tuple[str, Callable[[Path, Columns], Iterator[tuple[int, Row]]]]] = {
    ".parquet": (", row ", _parquet),
    ".arrow": (", row ", _arrow),
    ".jsonl": (":", _jsonl),
    ".csv": (":", _csv),
    ".json": (", row ", _json),
}


def _kind(file: Path) -> str:
    """The suffix that has a reader, or nothing."""
    name = file.name.removesuffix(".gz").lower()
    return next((suffix for suffix in READERS if name.endswith(suffix)), "")


# ---- folders -------------------------------------------------------------------------------------


def _files(path: Path, split: str) -> list[Path]:
    """The files of a source that belong to the split, in order; ConfigError when there are none."""
    if not path.is_dir():
        if not _kind(path):
            fix = f"use {', '.join(READERS)}, or a dataset folder"
            raise ConfigError("the suffix names no format of seed data", where=str(path), fix=fix)
        if split:
            fix = "leave split away, or name the folder"
            raise ConfigError(f"a file has no split {split!r}", where=str(path), fix=fix)
        return [path]
    splits = _splits(path)
    if not splits:
        fix = f"name a folder that holds {', '.join(READERS)} files, or one file"
        raise ConfigError("there is no data in the folder", where=str(path), fix=fix)
    only = next(iter(splits)) if len(splits) == 1 else ""
    chosen = split or ("train" if "train" in splits else only)
    if chosen not in splits:
        problem = f"no split {split!r} in the folder" if split else "the folder has several splits"
        fix = f'[extract].seeds = [{{ path = "...", split = "..." }}], one of: {", ".join(splits)}'
        raise ConfigError(problem, where=str(path), fix=fix)
    return splits[chosen]


def _splits(folder: Path) -> dict[str, list[Path]]:
    """Name of each split -> its files."""
    try:
        if (folder / "dataset_dict.json").exists():
            names = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
            return {name: _saved(folder / name)[1] for name in names}
        if (folder / "state.json").exists():
            name, files = _saved(folder)
            return {name: files}
    except (OSError, ValueError, LookupError, TypeError) as damaged:
        raise ConfigError(
            "the dataset folder is damaged",
            where=f"{folder}: {damaged!r}",
            fix="write it again with datasets.save_to_disk",
        ) from None
    found: dict[str, list[Path]] = {}
    for file in _plain_files(folder):
        found.setdefault(_split_of(file.relative_to(folder)), []).append(file)
    return found


def _saved(folder: Path) -> tuple[str, list[Path]]:
    """Split and files of one dataset as save_to_disk writes it."""
    state = json.loads((folder / "state.json").read_bytes())
    files = [folder / file["filename"] for file in state["_data_files"]]
    return state.get("_split") or "train", files


def _plain_files(folder: Path) -> list[Path]:
    """The data files of a folder, which must be of one format."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and _kind(file) and file.name not in DESCRIPTIONS and not is_hidden:
            found.setdefault(_kind(file), []).append(file)
    if len(found) > 1:
        found.pop(".json", None)  # beside data of another format it describes that
    if len(found) > 1:
        raise ConfigError(
            f"the folder holds data in several formats: {', '.join(found)}",
            where=str(folder),
            fix="name one of its files: read together, rows might count twice",
        )
    return next(iter(found.values()), [])


def _split_of(file: Path) -> str:
    """By name, as on the Hugging Face Hub: train_sft-00000-of-00003.parquet, test.jsonl, dev/a.csv.

    A file that names no split belongs to train.
    """
    stem = file.name.partition(".")[0]
    if shard := _SHARD.fullmatch(stem):
        return shard[1]
    words = re.split(r"[\W_]+", " ".join([*file.parent.parts, stem]).lower())
    return next((word for word in words if word in SPLIT_WORDS), "train")
