"""The files that a lab brought in -> which of them hold a split, and their rows.

Understood are a folder as `hf download --repo-type dataset` leaves it (Parquet or JSONL, found by
the README's `configs` or by the usual names), one as `save_to_disk` writes it, and plain JSONL.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from localism.errors import ConfigError
from localism.lmeval.tasks import Row, Task
from localism.weights import is_lfs_pointer

SUFFIXES = (".parquet", ".jsonl", ".json")
# Front matter: YAML between two lines of dashes at the top of a README.
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.S | re.M)


class Split(NamedTuple):
    """Where a split of a configuration is to be found."""

    files: tuple[Path, ...]
    """In order; empty when there are none."""
    looked_for: str
    """What would have been taken, in words."""


def folder_of(source: Path, task: Task) -> Path | None:
    """The folder of a task below what was brought in: by the task's name, or its repository's."""
    owner, repository = task.hub.split("/")
    names = (task.name, repository, f"{owner}/{repository}", f"{owner}--{repository}")
    return next((source / name for name in names if (source / name).is_dir()), None)


def find(folder: Path, config: str | None, split: str) -> Split:
    """The files of one split. Raises ConfigError where the README names files that are absent."""
    ways = (_saved_to_disk(folder, config, split), _by_readme(folder, config, split))
    found = next((files for files in ways if files), ())
    below = f"{config}/" if config else ""
    looked_for = f"{below}{split}-*.parquet, {below}{split}.jsonl, or a save_to_disk folder"
    return Split(found or _by_name(folder, config, split), looked_for)


def has_config(folder: Path, config: str) -> bool:
    """Whether anything of a configuration is there, be it incomplete."""
    return (folder / config).is_dir() or any(
        path.stem.startswith((f"{config}_", f"{config}-")) for path in data_files(folder)
    )


def data_files(folder: Path) -> list[Path]:
    """Parquet and JSONL files below a folder; not those in hidden folders, as .cache of hf."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def revision(folder: Path, file: Path) -> str | None:
    """The commit of the Hub that a file came from, which `hf download` notes beside it."""
    relative = file.relative_to(folder)
    noted = folder / ".cache/huggingface/download" / f"{relative}.metadata"
    return noted.read_text().split("\n")[0].strip() if noted.is_file() else None


def sha256(file: Path) -> str:
    """Of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---- where a split lies --------------------------------------------------------------------------


def _saved_to_disk(folder: Path, config: str | None, split: str) -> tuple[Path, ...]:
    for base in (folder / config, folder) if config else (folder,):
        state = base / split / "state.json"
        if state.is_file():
            parts = _json(state).get("_data_files") or []
            return _present(state, [state.parent / part["filename"] for part in parts])
    return ()


def _by_readme(folder: Path, config: str | None, split: str) -> tuple[Path, ...]:
    readme = folder / "README.md"
    matter = _FRONT_MATTER.match(readme.read_text(errors="replace")) if readme.is_file() else None
    if matter is None:
        return ()
    import yaml

    try:
        described = yaml.safe_load(matter[1])
    except yaml.YAMLError:
        return ()  # a card is prose for people; the usual names are tried instead
    listed = described.get("configs") if isinstance(described, dict) else None
    entries = [entry for entry in _as_list(listed) if isinstance(entry, dict)]
    if config is not None or len(entries) > 1:
        entries = [one for one in entries if one.get("config_name") == (config or "default")]
    return _of_patterns(readme, entries[0], split) if entries else ()


def _of_patterns(readme: Path, entry: dict[str, Any], split: str) -> tuple[Path, ...]:
    listed = [one for one in _as_list(entry.get("data_files")) if isinstance(one, dict)]
    paths = [
        path for one in listed if one.get("split") == split for path in _as_list(one.get("path"))
    ]
    patterns = [str(path).lstrip("/") for path in paths]
    root = readme.parent / str(entry.get("data_dir") or "")
    found = [sorted(root.glob(pattern)) for pattern in patterns]
    missing = [pattern for pattern, files in zip(patterns, found, strict=True) if not files]
    if missing:
        raise ConfigError(
            f"files of split {split} are missing: {missing[0]}",
            where=f"{readme} names them",
            fix="bring the repository in whole, or delete README.md beside files of other names",
        )
    return tuple(path for files in found for path in files)


def _by_name(folder: Path, config: str | None, split: str) -> tuple[Path, ...]:
    """By the usual names: CONFIG/SPLIT-00000-of-00001.parquet, data/SPLIT.jsonl, and the like."""
    shard = r"(-\d+-of-\d+)?$"
    plain = re.compile(re.escape(split) + shard)
    with_config = re.compile(f"{re.escape(config or '')}[-_]{re.escape(split)}{shard}")
    own, common = [], []
    for path in data_files(folder):
        parts = path.relative_to(folder).parts[:-1]
        is_plain = bool(plain.match(path.stem)) or parts[-1:] == (split,)
        if config and (with_config.match(path.stem) or (is_plain and config in parts)):
            own.append(path)
        elif is_plain and (config is None or not set(parts) - {"data", split}):
            common.append(path)
    return _one_kind(folder, own or common)


def _one_kind(folder: Path, files: Sequence[Path]) -> tuple[Path, ...]:
    """Files that are shards of one whole; the same data twice would count every item twice."""
    if len({(path.parent, path.suffix) for path in files}) > 1:
        raise ConfigError(
            "the same split is here more than once",
            where=", ".join(str(path.relative_to(folder)) for path in files[:4]) + f" in {folder}",
            fix="leave one of them and move the others away",
        )
    return tuple(files)


def _present(index: Path, files: Sequence[Path]) -> tuple[Path, ...]:
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ConfigError(
            f"a dataset folder lacks {missing[0]}", where=str(index), fix="copy the folder again"
        )
    return tuple(files)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


# ---- rows ----------------------------------------------------------------------------------------


def rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Row number from 1, and these columns of it. ConfigError names a missing column or damage."""
    import pyarrow as pa

    try:
        yield from (_arrow if file.suffix in (".parquet", ".arrow") else _lines)(file, columns)
    except (OSError, ValueError, pa.ArrowException) as damaged:
        said = "it is a Git LFS pointer, not the data" if is_lfs_pointer(file) else str(damaged)
        raise ConfigError(
            f"a data file cannot be read: {said}",
            where=str(file),
            fix="fetch it again with `hf download` and compare its size with the repository's",
        ) from None


def _arrow(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    if file.suffix == ".parquet":
        table = parquet.read_table(file)
    else:
        with pa.memory_map(str(file)) as mapped:
            table = pa.ipc.open_stream(mapped).read_all()
    _check_columns(table.column_names, columns, str(file))
    yield from enumerate(table.select(list(columns)).to_pylist(), start=1)


def _lines(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object")
        _check_columns(list(row), columns, f"{file}:{number}")
        yield number, {name: row[name] for name in columns}


def _check_columns(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise ConfigError(
            f"column {missing[0]} is missing",
            where=f"{where} (columns: {', '.join(found)})",
            fix=f"bring the repository's own files; these columns are read: {', '.join(wanted)}",
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as broken:
        raise ConfigError(
            f"{path.name} is damaged: {broken}", where=str(path), fix="copy the folder again"
        ) from None
    return content
