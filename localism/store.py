"""The corpus: one DuckDB file a run.  Buffered transactional writes, and reads that see them.

Rows are added from any thread or coroutine, collected, and written about once a second as one
transaction of Arrow batches (thousands of rows a second, where a row at a time manages hundreds).
A row whose key is already there is left as it was, so that doing a thing twice is harmless: that,
with ids made from content, is all that resuming needs. kill -9 loses at most the last second.
"""

import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import duckdb

from localism.errors import LocalismError, StageError, of_the_disk
from localism.records import stable_id

if TYPE_CHECKING:
    import numpy

SCHEMA = Path(__file__).parent / "schema.sql"
LOCK_SECONDS = 5.0
FLUSH_SECONDS = 1.0
FLUSH_ROWS = 5000
# A run shares its machine with engines and trainers. What DuckDB may take is a share of the memory
# (its own default is 80%) and not a number, since indexes of millions of rows have to fit.
MEMORY_LIMIT = "25%"
# Pages that were written stay in DuckDB's cache until it is full, though nobody reads them again
# and the system caches the file as well: a million turns are a gigabyte. More than this is let go.
CACHE_BYTES = 128 << 20
LET_GO_SECONDS = 30.0
# DuckDB holds a table's last row group in memory whenever it writes more of the table: with its own
# 122,880 rows a group, hundreds of megabytes of texts for a moment (benchmarks/turns.py).
ROW_GROUP_ROWS = 16_384
WRITING = f"(ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
READING = "(READ_ONLY)"
# The corpus touches no file but its own, whatever SQL reaches it, and fetches no extension.
SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    # In DuckDB 2.0 it sorts a sum in the bits that its guess of a filter's outcome wants: 171,302
    # came back as 40,230 (ORDER BY beside sum() and a scalar subquery in WHERE).
    "disabled_optimizers": "compressed_materialization",
    "memory_limit": MEMORY_LIMIT,
    # Every checkpoint writes the last row group of a table anew: four times fewer of them than by
    # default take a fifth less CPU.
    "checkpoint_threshold": "64MB",
}
_MEMORY = "SELECT tag, memory_usage_bytes FROM duckdb_memory()"

LATEST = """
SELECT greatest((SELECT max(happened_at) FROM event), (SELECT max(finished_at) FROM turn))
"""

Row = dict[str, Any]


def now() -> datetime:
    """The time as the corpus stores it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _uptime() -> float:
    """Seconds since boot, suspended ones included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def not_a_corpus(path: Path, refused: duckdb.IOException) -> LocalismError | None:
    """The error for a file that DuckDB cannot read, or None when another process holds it."""
    reason = str(refused).splitlines()[0]
    if "Could not set lock" in reason:
        return None
    return of_the_disk(reason, str(path)) or StageError(
        "the corpus cannot be opened",
        where=f"{path}: {reason}",
        fix="check who may read it, and that it was copied whole; if it is damaged, move the run "
        "folder aside and start it again",
    )


def attached(**files: tuple[Path, str]) -> duckdb.DuckDBPyConnection:
    """A connection to these files under these names, WRITING or READING each, and to no other.

    The first is where a table without a name in front of it is.
    """
    first = next(iter(files))
    settings: dict[str, Any] = {**SETTINGS, "enable_external_access": "true"}
    settings |= {"allowed_configs": ["memory_limit"], "temp_directory": f"{files[first][0]}.tmp"}
    connection = duckdb.connect(config=settings)
    try:
        for name, (path, how) in files.items():
            quoted = str(path).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS {name} {how}")
        connection.execute(f"USE {first}")
        connection.execute("SET enable_external_access = false")
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_writing(path: Path) -> duckdb.DuckDBPyConnection:
    """Open for writing; a reader that holds the file for a moment is waited for."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return attached(corpus=(path, WRITING))
        except duckdb.IOException as locked:
            if damage := not_a_corpus(path, locked):
                raise damage from None
            if time.monotonic() > deadline:
                raise StageError(
                    "the corpus is open in another process",
                    where=f"{path}: {locked}",
                    fix="wait for that process, or end it; `localism status` and `sql` work "
                    "meanwhile",
                ) from None
            time.sleep(0.1)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C, or a scheduler's warning, waits until a write is whole.

    Their handlers raise, and an exception in the middle of a write would lose its rows. Other
    threads than the main one are never interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if callable(handler):
            before[number] = handler
            signal.signal(number, lambda *what: came.append(what))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for came_number, frame in came:
        before[signal.Signals(came_number)](came_number, frame)


class Store:
    """The one writer of a corpus. Thread-safe; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = open_for_writing(path)
        try:
            with self._explaining(), _undisturbed():
                self._connection.execute(SCHEMA.read_text())
                self._connection.execute("SET lock_configuration = true")
                (latest,) = self._connection.execute(LATEST).fetchone() or (None,)
        except BaseException:
            self._connection.close()
            raise
        self._opened_at, self._opened = max(now(), latest or datetime.min), _uptime()
        self._told = datetime.min
        self._lock = threading.RLock()
        self._buffer: dict[str, list[Row]] = defaultdict(list)
        self._buffered = 0
        self._in_transaction = False
        self._broken: BaseException | None = None
        self._closing = threading.Event()
        self._flusher = threading.Thread(target=self._flush_often, daemon=True)
        self._flusher.start()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, table: str, **row: Any) -> None:
        """Buffer one row; it is in the file within FLUSH_SECONDS. An existing key wins."""
        self.add_rows(table, [row])

    def add_rows(self, table: str, rows: list[Row]) -> None:
        """Buffer rows of one table; all must name the same columns."""
        if not rows:
            return
        with self._lock:
            self._check()
            self._buffer[table].extend(rows)
            self._buffered += len(rows)
            if self._buffered >= FLUSH_ROWS:
                self.flush()

    def now(self) -> datetime:
        """The time for a row: later than any that was told or is in the corpus.

        Somebody may set the machine's clock back, or forth and back, and what was done must still
        come before what is done; so it is only read when the corpus is opened.
        """
        with self._lock:
            passed = timedelta(seconds=_uptime() - self._opened)
            self._told = max(self._opened_at + passed, self._told + timedelta(microseconds=1))
            return self._told

    def event(self, kind: str, stage: str | None = None, **detail: Any) -> None:
        """Note that something happened, with a time."""
        import json

        at = self.now()
        self.add(
            "event",
            event_id=stable_id(kind, stage, str(at), detail),
            happened_at=at,
            stage=stage,
            kind=kind,
            detail=json.dumps(detail),
        )

    def query(self, sql: str, parameters: list[Any] | None = None) -> list[Row]:
        """Rows as dicts; sees everything added before."""
        with self._lock:
            self.flush()
            cursor = self._run(sql, parameters)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]

    def value(self, sql: str, parameters: list[Any] | None = None) -> Any:
        """The first column of the first row, or None."""
        rows = self.query(sql, parameters)
        return next(iter(rows[0].values())) if rows else None

    def numbers(self, sql: str, parameters: list[Any] | None = None) -> "numpy.ndarray[Any, Any]":
        """A query's one column as an array: for millions, of which rows would take gigabytes."""
        with self._lock:
            self.flush()
            (column,) = self._run(sql, parameters).fetchnumpy().values()
            return column

    def execute(self, sql: str, parameters: list[Any] | None = None) -> None:
        """One writing statement, in a transaction of its own, after what was added before."""
        with self._lock:
            self.flush()
            self._run(sql, parameters)

    def _run(self, sql: str, parameters: list[Any] | None = None) -> duckdb.DuckDBPyConnection:
        """A statement; KeyboardInterrupt for a signal that came while DuckDB was at it."""
        try:
            with self._explaining():
                return self._connection.execute(sql, parameters or [])
        except RuntimeError as stopped:
            # DuckDB hides what the signal's handler raised behind this.
            if str(stopped) == "Query interrupted":
                raise KeyboardInterrupt from None
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is added and executed inside is in the file as a whole, or not at all."""
        with self._lock:
            self.flush()
            self._connection.begin()
            self._in_transaction = True
            try:
                yield
                self.flush()
            except BaseException:
                self._buffer, self._buffered = defaultdict(list), 0
                self._roll_back()
                raise
            else:
                with _undisturbed(), self._explaining():
                    self._connection.commit()
            finally:
                self._in_transaction = False

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A second connection to the same file, for readers in other threads."""
        with self._lock:
            self.flush()
            cursor = self._connection.cursor()
            cursor.execute("USE corpus")  # a connection of its own begins beside the files
            return cursor

    def flush(self) -> None:
        """Write what is buffered as one transaction."""
        with self._lock, _undisturbed():
            self._check()
            if not self._buffered:
                return
            batches, self._buffer, self._buffered = self._buffer, defaultdict(list), 0
            if self._in_transaction:  # transaction() commits
                for table, rows in batches.items():
                    self._write(table, rows)
                return
            self._connection.begin()
            try:
                with self._explaining():
                    for table, rows in batches.items():
                        self._write(table, rows)
                    self._connection.commit()
            except BaseException as broken:
                # The batch is lost: whoever asks next must hear of it, whichever thread this is.
                self._broken = broken
                self._roll_back()
                raise

    def _write(self, table: str, rows: list[Row]) -> None:
        import pyarrow

        columns = list(rows[0])
        data = {name: [row[name] for row in rows] for name in columns}
        # Replaces the batch before; unregistering would be refused in a transaction that failed.
        self._connection.register("batch", pyarrow.table(data))
        self._connection.execute(
            f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) SELECT * FROM batch"
        )

    def let_go_of_memory(self) -> None:
        """Shrink DuckDB's cache to CACHE_BYTES and free what it keeps for later."""
        with self._lock:
            used = dict(self._connection.execute(_MEMORY).fetchall())
            used.pop("BASE_TABLE", 0)
            kept = sum(used.pop(tag, 0) for tag in ("ART_INDEX", "IN_MEMORY_TABLE", "METADATA"))
            if self._in_transaction or any(used.values()):
                return
            try:
                # A limit of what is left: there is no other way to ask for it.
                self._connection.execute(f"SET memory_limit = '{kept + CACHE_BYTES}B'")
            except duckdb.OutOfMemoryException:
                pass  # some pages are in use at this moment
            self._connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")

    def _roll_back(self) -> None:
        try:
            self._connection.rollback()
        except duckdb.Error:
            pass  # a commit that failed, as on a full disk, has done it already

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """A disk that takes nothing more is the user's to mend, and no bug of ours."""
        try:
            yield
        except duckdb.Error as broken:
            explained = of_the_disk(str(broken), str(self._path))
            if explained is None:
                raise
            raise explained from broken

    def _check(self) -> None:
        """Raise what an earlier write failed with: its rows are missing."""
        if isinstance(self._broken, LocalismError):
            raise self._broken
        if self._broken:
            raise RuntimeError("an earlier write to the corpus failed") from self._broken

    def _flush_often(self) -> None:
        looked = time.monotonic()
        while not self._closing.wait(FLUSH_SECONDS):
            try:
                self.flush()
                if time.monotonic() - looked > LET_GO_SECONDS:
                    self.let_go_of_memory()
                    looked = time.monotonic()
            except BaseException as broken:  # shown to the writer at its next call
                self._broken = broken
                return

    def close(self) -> None:
        """Flush and close; a write that failed in the background is raised here."""
        self._closing.set()
        self._flusher.join()
        try:
            self.flush()
        finally:
            with self._explaining():
                self._connection.close()
