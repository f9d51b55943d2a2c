"""DuckDB's own UI in the browser, on a copy of a run's corpus.  Alone: localism ui --run NAME

The copy is read through the run's socket or from its file, like every other query, so that nothing
that is done in the UI can stall a run or change it. The extension is only loaded, never fetched.
Its pages are not in it: it fetches them from a web server at every start, by default from DuckDB's.
"""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from localism import reader
from localism.errors import ConfigError, MachineError, UsageError
from localism.store import SCHEMA

PAGES = "https://ui.duckdb.org"
ROWS_AT_ONCE = 500  # an answer has at most reader.MOST_CHARACTERS
SECONDS_TO_ANSWER = 20.0


@contextmanager
def served(folder: Path, pages: str | None, port: int) -> Iterator[str]:
    """The UI's address while this is open; the copy is gone afterwards.

    Raises MachineError where the extension is not installed, UsageError without `pages` or where
    the port is taken, and ConfigError when the pages do not come.
    """
    extension = _extension()
    if pages is None:
        raise UsageError(
            f"DuckDB's UI fetches its pages from {PAGES} at every start, and nothing here may "
            "leave the machine",
            where=f"{extension} is installed; its pages are not in it",
            fix="--pages URL names a copy of them inside your network (or that address itself, if "
            "it may be reached); `localism sql` needs none",
        )
    _check_port(port)
    with TemporaryDirectory(prefix="localism-ui-") as place:
        copy = Path(place) / reader.CORPUS
        copy_corpus(folder, copy)
        # The address of the pages is obeyed in this mode alone (settings.cpp of duckdb-ui).
        settings: dict[str, str | bool | int | float | list[str]] = {
            "allow_unsigned_extensions": "true",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        # Not read-only, which the UI cannot work with (duckdb-ui, issue 61): it is a copy.
        with duckdb.connect(str(copy), config=settings) as connection:
            yield _start(connection, extension, pages, port)
            connection.execute("CALL stop_ui_server()")


def _extension() -> Path:
    """The extension's file, for this DuckDB and this platform; MachineError where it is missing."""
    with duckdb.connect() as connection:
        (platform,) = connection.execute("PRAGMA platform").fetchone() or ("",)
    version = f"v{duckdb.__version__}"
    path = Path.home() / ".duckdb/extensions" / version / platform / "ui.duckdb_extension"
    if path.exists():
        return path
    raise MachineError(
        f"DuckDB's extension `ui` is not installed for DuckDB {version} on {platform}",
        where=str(path),
        fix="where there is a network, fetch extensions.duckdb.org/"
        f"{version}/{platform}/ui.duckdb_extension.gz, unpack it and put it there; "
        "`localism sql` without a query needs nothing",
    )


def _check_port(port: int) -> None:
    """UsageError where something listens already: the UI would leave the place to it in silence."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return
    raise UsageError(
        f"something listens on port {port} already",
        where="--port",
        fix="end it (another `localism ui`?), or name another port",
    )


def _start(connection: duckdb.DuckDBPyConnection, extension: Path, pages: str, port: int) -> str:
    # The extension keeps its notebooks there and makes no parents.
    (Path.home() / ".duckdb").mkdir(exist_ok=True)
    connection.execute(f"LOAD {_quoted(extension)}")
    connection.execute(f"SET ui_local_port = {port}")
    connection.execute(f"SET ui_remote_url = {_quoted(pages)}")
    connection.execute("CALL start_ui_server()")
    address = f"http://localhost:{port}/"
    try:
        with urllib.request.urlopen(address, timeout=SECONDS_TO_ANSWER):
            return address
    except (urllib.error.URLError, TimeoutError) as failed:
        reason = failed.read().decode() if isinstance(failed, urllib.error.HTTPError) else failed
        raise ConfigError(
            "the pages of DuckDB's UI cannot be had",
            where=f"--pages {pages}: {reason}",
            fix="name a web server that has a copy of them",
        ) from None


def copy_corpus(folder: Path, target: Path) -> None:
    """A corpus with the rows and views of a run's, whether or not that is being worked on."""
    with duckdb.connect(str(target)) as connection:
        connection.execute(SCHEMA.read_text())
        names = reader.read(folder, "SELECT table_name FROM duckdb_tables() WHERE NOT internal")
        for (name,) in names.rows:
            _copy_table(folder, connection, name)


def _copy_table(folder: Path, connection: duckdb.DuckDBPyConnection, name: str) -> None:
    import pyarrow

    ((last,),) = reader.read(folder, f"SELECT max(rowid) FROM {name}").rows
    for first in range(0, (-1 if last is None else last) + 1, ROWS_AT_ONCE):
        rows = f"rowid BETWEEN {first} AND {first + ROWS_AT_ONCE - 1}"
        page = reader.read(folder, f"SELECT * FROM {name} WHERE {rows}")
        columns = list(zip(*page.rows, strict=True)) or [()] * len(page.columns)
        data = pyarrow.table(dict(zip(page.columns, map(list, columns), strict=True)))
        connection.register("page", data)
        connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM page")


def _quoted(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"
