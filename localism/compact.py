"""The corpus without the space that DuckDB keeps free in its file: copied, verified, swapped.

DuckDB never makes a file smaller. Rows that were written again and again while a run was working,
candidates that failed and were asked once more, leave holes; a copy has none. Every row stays.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from localism import lock
from localism.errors import ConfigError, MachineError, StageError
from localism.reader import CORPUS
from localism.store import READING, WRITING, attached, open_for_writing

COPY = f"{CORPUS}.compacting"
# Sums of row hashes: the same rows, each as often, in any order.
_CHECKSUM = "SELECT count(*), sum(hash(t)::HUGEINT) FROM {}.{} t"
_SCHEMA = """
SELECT 'table', table_name, sql FROM duckdb_tables() WHERE database_name = ? AND NOT internal
UNION ALL
SELECT 'view', view_name, sql FROM duckdb_views() WHERE database_name = ? AND NOT internal
ORDER BY ALL
"""


class Compacted(NamedTuple):
    """What came of it."""

    before: int
    """Bytes of the file, its write-ahead log included."""
    after: int
    """Bytes of the file that took its place."""
    tables: int
    """Tables, each with the rows that it had."""
    rows: int
    """Rows of all tables."""


def compact(folder: Path, say: Callable[[str], None]) -> Compacted:
    """Replace a run's corpus by a copy without holes; the old file stays until the copy is proven.

    Killed at any moment it leaves one whole corpus: the swap is one rename. Raises ConfigError
    where there is no corpus, UsageError while the run is being worked on, MachineError without
    room for a copy, StageError when the copy is not what was copied.
    """
    corpus, copy = folder / CORPUS, folder / COPY
    if not corpus.exists():
        raise ConfigError(
            "this run has no corpus yet", where=str(corpus), fix="there is nothing to compact"
        )
    with lock.held(folder, say):
        before = _bytes(corpus)
        _check_room(corpus, before)
        _remove(copy)  # of a call that was killed
        try:
            _fold_in_log(corpus)
            say(f"copying {before:,} bytes")
            _copy(corpus, copy)
            say("comparing every table")
            tables, rows = _verify(corpus, copy)
            _swap(copy, corpus)
        except BaseException:
            _remove(copy)
            raise
    return Compacted(before, corpus.stat().st_size, tables, rows)


def _bytes(corpus: Path) -> int:
    files = (corpus, corpus.with_name(f"{CORPUS}.wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def _check_room(corpus: Path, needed: int) -> None:
    free = shutil.disk_usage(corpus.parent).free
    if free < needed:
        raise MachineError(
            f"no room for a copy of the corpus: {needed:,} bytes, and {free:,} are free",
            where=str(corpus.parent),
            fix="free some space there; the corpus itself is as it was",
        )


def _remove(copy: Path) -> None:
    for file in (copy, copy.with_name(f"{COPY}.wal")):
        file.unlink(missing_ok=True)


def _fold_in_log(corpus: Path) -> None:
    """The file alone is the corpus afterwards: what a killed run left in its log is in it."""
    with open_for_writing(corpus) as connection:
        connection.execute("CHECKPOINT")
    assert not corpus.with_name(f"{CORPUS}.wal").exists(), "the log would not fit the new file"


def _copy(corpus: Path, copy: Path) -> None:
    with attached(new=(copy, WRITING), old=(corpus, READING)) as connection:
        connection.execute("COPY FROM DATABASE old TO new")
        connection.execute("CHECKPOINT new")


def _verify(corpus: Path, copy: Path) -> tuple[int, int]:
    """Tables and rows, read back from the disk; StageError where the copy differs."""
    with attached(new=(copy, READING), old=(corpus, READING)) as connection:
        schemas = [connection.execute(_SCHEMA, [name, name]).fetchall() for name in ("old", "new")]
        tables = [name for kind, name, _ in schemas[0] if kind == "table"]
        sums = [
            [connection.execute(_CHECKSUM.format(of, table)).fetchone() for table in tables]
            for of in ("old", "new")
        ]
    differing = [table for table, old, new in zip(tables, *sums, strict=True) if old != new]
    if schemas[0] != schemas[1] or differing:
        raise StageError(
            "the copy is not what was copied",
            where=f"{copy}: {', '.join(differing) or 'its schema'}",
            fix="the corpus is as it was; look for a failing disk (dmesg), then try again",
        )
    return len(tables), sum(counted[0] for counted in sums[0] if counted)


def _swap(copy: Path, corpus: Path) -> None:
    """Put the copy in the corpus' place, on the disk and not in its cache alone."""
    shutil.copymode(corpus, copy)
    for path in (copy, corpus.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            if path == copy:
                copy.replace(corpus)
        finally:
            os.close(descriptor)
