"""Reading a corpus from outside: through the running process, or from the file when none runs.

DuckDB refuses a second process while one writes, and a reader that held the file would stall the
writer. So the process that owns a run answers SQL on a Unix socket in the run folder, with a cursor
of its own, in a read-only transaction and within a time limit; nobody outside can stall a run.
"""

import difflib
import json
import math
import os
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from localism.errors import ConfigError, LocalismError, UsageError
from localism.store import SETTINGS, Store, not_a_corpus

SOCKET = "corpus.sock"
CORPUS = "corpus.duckdb"
LET_GO_SECONDS = 5.0
TIME_LIMIT_SECONDS = 60.0
NEAREST = 3
MOST_ROWS, MOST_CHARACTERS, ROWS_AT_ONCE = 1_000_000, 100_000_000, 2_000
_HINT = re.compile(r"Did you mean|Candidate bindings|Either add it")
_MISSING = re.compile(r"Table with name (\S+) does not exist")
_CANDIDATES = re.compile(r"Candidate bindings:[: ]*")
READ_ONLY = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}


@dataclass(frozen=True)
class Table:
    """The answer to a query."""

    columns: list[str]
    """Column names."""
    rows: list[list[Any]]
    """JSON-compatible values; times and decimals as text and float."""

    def as_dicts(self) -> list[dict[str, Any]]:
        """One dict a row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def read(folder: Path, sql: str, time_limit: float = TIME_LIMIT_SECONDS) -> Table:
    """Run one read-only statement on the corpus of a run folder, whether or not it is running.

    Raises UsageError for SQL that is wrong, not read-only, or too slow; ConfigError when the
    folder holds no corpus.
    """
    corpus = folder / CORPUS
    if not corpus.exists():
        raise ConfigError(
            "this run has no corpus yet",
            where=str(corpus),
            fix="start it with `localism run-all`, or name another with --run",
        )
    deadline = time.monotonic() + LET_GO_SECONDS
    while True:
        answer = _ask_running_process(folder, sql, time_limit)
        if answer is not None:
            return answer
        try:
            connection = duckdb.connect(str(corpus), read_only=True, config=SETTINGS)
            break
        except duckdb.IOException as unreadable:
            if damage := not_a_corpus(corpus, unreadable):
                raise damage from None
            if time.monotonic() > deadline:
                raise UsageError(
                    "the corpus is held by a process that does not answer",
                    where=str(corpus),
                    fix="try again in a few seconds",
                ) from None
        time.sleep(0.1)  # a run started that is about to listen, or ended that is about to let go
    with connection, ThreadPoolExecutor(1) as pool:
        # In the main thread DuckDB 2.0 now and then does not hear Ctrl-C until the query is done.
        answer_to_come = pool.submit(select, connection, sql, time_limit)
        try:
            return answer_to_come.result()
        except KeyboardInterrupt:
            while not answer_to_come.done():
                connection.interrupt()
                time.sleep(0.02)
            raise


def select(connection: duckdb.DuckDBPyConnection, sql: str, time_limit: float) -> Table:
    """One read-only statement on an open connection, with a time limit in seconds."""
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as broken:
        raise _sql_error(connection, sql, str(broken)) from None
    if len(statements) != 1 or statements[0].type not in READ_ONLY:
        raise UsageError(
            "only one SELECT, WITH, FROM, DESCRIBE or EXPLAIN statement can be run here",
            where=_shown(sql),
            fix="the corpus is read-only from outside; see docs/sql.md",
        )
    timer = threading.Timer(time_limit, connection.interrupt)
    timer.start()
    try:
        connection.execute("BEGIN TRANSACTION READ ONLY")
        cursor = connection.execute(statements[0])
        columns = [column[0] for column in cursor.description or []]
        return Table(columns, _capped(cursor))
    except duckdb.InterruptException:
        raise UsageError(
            f"the query took longer than {time_limit:g} seconds",
            where=_shown(sql),
            fix="narrow it, or run it after the run has ended",
        ) from None
    except duckdb.Error as broken:
        raise _sql_error(connection, sql, str(broken)) from None
    finally:
        timer.cancel()
        try:
            connection.execute("ROLLBACK")
        except duckdb.Error:
            pass  # BEGIN itself was interrupted


def _capped(cursor: duckdb.DuckDBPyConnection) -> list[list[Any]]:
    """All rows, or UsageError: a huge answer would take the memory of the run that gives it."""
    rows: list[list[Any]] = []
    characters = 0
    while batch := cursor.fetchmany(ROWS_AT_ONCE):
        rows += [[_plain(value) for value in row] for row in batch]
        characters += sum(len(value) for row in batch for value in row if isinstance(value, str))
        if characters > MOST_CHARACTERS or len(rows) > MOST_ROWS:
            raise UsageError(
                f"the answer is too large (over {MOST_ROWS:,} rows or {MOST_CHARACTERS:,} "
                "characters)",
                where="localism sql",
                fix="add LIMIT or name fewer columns; the data set itself is in export/",
            )
    return rows


def _sql_error(connection: duckdb.DuckDBPyConnection, sql: str, message: str) -> UsageError:
    """DuckDB's first line as the problem; what it suggests, and what there is, as the fix."""
    problem, *rest = message.splitlines()
    hints = [_CANDIDATES.sub("columns like it: ", line) for line in rest if _HINT.match(line)]
    manual = "docs/sql.md describes every table and view"
    if missing := _MISSING.search(problem):
        hints = []  # DuckDB's own guess may be a table of its catalogue
        with connection.cursor() as cursor:
            names = [name for kind in ("view", "table") for name in _names(cursor, kind)]
        near = difflib.get_close_matches(missing[1], names, NEAREST, 0.5)
        manual = "`localism sql .tables` lists what there is, docs/sql.md describes it"
        if near:
            manual = f"did you mean {' or '.join(near)}? {manual}"
    elif "olumn" in problem:
        manual += '; `localism sql "DESCRIBE skill"` lists the columns of one'
    words = [hint if hint.endswith("?") else f"{hint};" for hint in hints]
    return UsageError(problem, where=_shown(sql), fix=" ".join([*words, manual]))


def is_missing(wrong: UsageError) -> bool:
    """Whether a query failed because the corpus has no such table or view."""
    return _MISSING.search(wrong.problem) is not None


def _shown(sql: str) -> str:
    """A statement on one line, or its beginning."""
    return " ".join(sql.split())[:200] or 'localism sql ""'


def _names(connection: duckdb.DuckDBPyConnection, kind: str) -> list[str]:
    """Names of the corpus' own views, or tables."""
    found = connection.execute(
        f"SELECT {kind}_name FROM duckdb_{kind}s() WHERE NOT internal ORDER BY 1"
    )
    return [row[0] for row in found.fetchall()]


def _plain(value: Any) -> Any:
    """A value as JSON can carry it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None  # JSON has no NaN


# ---- the socket ----------------------------------------------------------------------------


@contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """The socket's path through an open folder: sun_path holds 108 bytes, run folders may not."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def _ask_running_process(folder: Path, sql: str, time_limit: float) -> Table | None:
    """The running process' answer, or None when no process listens."""
    with _short_path(folder) as path, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(time_limit + 5)
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        try:
            client.sendall(json.dumps({"sql": sql, "time_limit": time_limit}).encode() + b"\n")
            with client.makefile("rb") as stream:
                line = stream.readline()
        except ConnectionError:
            return None  # the run ended at this moment
        except TimeoutError:
            raise UsageError(
                "the running process did not answer in time",
                where=str(folder / SOCKET),
                fix="try again; it may be writing much at once",
            ) from None
    if not line:
        return None  # the run ended between connect and answer: read the file
    answer = json.loads(line)
    if "problem" in answer:
        raise UsageError(**answer)
    return Table(**answer)


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        server: _Server = self.server  # type: ignore[assignment]
        with server.store.cursor() as cursor:
            server.cursors.add(cursor)
            is_answered = threading.Event()
            watching = (cursor, is_answered)
            threading.Thread(target=self._stop_if_left, args=watching, daemon=True).start()
            try:
                table = select(cursor, request["sql"], request["time_limit"])
                answer: dict[str, Any] = {"columns": table.columns, "rows": table.rows}
            except LocalismError as wrong:
                answer = {"problem": wrong.problem, "where": wrong.where, "fix": wrong.fix}
            finally:
                is_answered.set()
                server.cursors.discard(cursor)
        # An asker that is told nothing opens the file itself, now that the run lets go of it.
        if not server.is_closing:
            try:
                self.wfile.write(json.dumps(answer).encode() + b"\n")
            except ConnectionError:
                pass  # the asker has left

    def _stop_if_left(
        self, cursor: duckdb.DuckDBPyConnection, is_answered: threading.Event
    ) -> None:
        """End the query of an asker who has gone (Ctrl-C): the run has better things to do."""
        try:
            self.connection.recv(1, socket.MSG_PEEK)  # askers say nothing more, but they end
            while not is_answered.wait(0.05):  # one before its first step would be lost
                cursor.interrupt()
        except (OSError, duckdb.Error):
            pass  # it ended at this moment


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, store: Store) -> None:
        super().__init__(path, _Handler)
        self.store = store
        self.cursors: set[duckdb.DuckDBPyConnection] = set()
        """Of questions that are being answered."""
        self.is_closing = False

    def stop(self) -> None:
        """Answer nothing more; a corpus cannot be closed while a cursor is busy."""
        self.shutdown()
        self.server_close()
        self.is_closing = True
        while self.cursors:
            for cursor in list(self.cursors):
                cursor.interrupt()
            time.sleep(0.02)


@contextmanager
def answering(store: Store, folder: Path) -> Iterator[None]:
    """While this is open, other processes can read the store through the run folder's socket."""
    (folder / SOCKET).unlink(missing_ok=True)  # left by a process that was killed
    with _short_path(folder) as path:
        server = _Server(path, store)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        (folder / SOCKET).unlink(missing_ok=True)
