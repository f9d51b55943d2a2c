"""What `localism sql` understands besides one query: `.tables` and its kin, scripts, a prompt.

Everything goes through reader.read, so that it works beside a running process, read-only.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from localism import reader, tables
from localism.errors import LocalismError, UsageError
from localism.store import SCHEMA

PROSE_LINES = 3
HISTORY_LINES = 1000
PLAN = ["explain_key", "explain_value"]
HELP = """\
.tables          tables and views, with their columns and rows
.schema [NAME]   how one of them is made, or all
.format FORM     table, csv, json or markdown, from now on
.help            this
.quit            leave; so does Ctrl-D

A query ends with a semicolon and may take several lines. Ctrl-C drops it, or stops it while it
runs. docs/sql.md describes every table and view, with the questions they answer.
"""
_OBJECTS = """
SELECT table_name AS name, 'table' AS kind, column_count AS columns, estimated_size AS rows
FROM duckdb_tables() WHERE NOT internal
UNION ALL
SELECT view_name, 'view', column_count, NULL FROM duckdb_views() WHERE NOT internal
ORDER BY kind DESC, name
"""
# Where a semicolon ends no statement: texts, quoted names, comments.
_TOKEN = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|;|.", re.S
)
_OPEN = re.compile(r"['\"]|/\*|\$\w*\$")


class Shell:
    """Answers queries and dot commands on one run."""

    def __init__(self, folder: Path, form: str, say: Callable[[str], None]) -> None:
        self._folder, self._form, self._say = folder, form, say

    def answer(self, statement: str) -> None:
        """Say what a query or a dot command gives. Raises UsageError for one that is wrong."""
        if statement.lstrip().startswith("."):
            self._command(statement)
            return
        table = reader.read(self._folder, statement)
        if table.columns == PLAN and self._form == "table":
            self._say("".join(f"{drawing.rstrip()}\n" for _, drawing in table.rows))
            return
        is_seen = sys.stdout.isatty() or os.environ.get("COLUMNS")
        width = tables.terminal_width() if is_seen else None  # a pipe or a file gets it all
        self._say(tables.render(table, self._form, width, PROSE_LINES))

    def script(self, lines: Iterable[str]) -> None:
        """All statements of a file; the last one needs no semicolon. Raises UsageError for none."""
        waiting, asked = "", 0
        for line in lines:
            if not waiting.strip() and line.lstrip().startswith("."):
                self.answer(line)
                asked += 1
                continue
            *whole, waiting = split(waiting + line)
            for statement in whole:
                self.answer(statement)
            asked += len(whole)
        if waiting.strip():
            self.answer(waiting)
        elif not asked:
            raise UsageError(
                "there is no query",
                where="localism sql",
                fix='give one: localism sql "FROM books", or pipe one in',
            )

    def prompt(self, history: Path) -> None:
        """Ask until Ctrl-D or .quit; a mistake ends the query and nothing else."""
        name = self._folder.name
        self._say(f"run {name}, read-only; .help says more, Ctrl-D leaves\n")
        waiting = ""
        with _Remembered(history):
            while True:
                try:
                    line = input(f"{name}> " if not waiting.strip() else f"{'...':>{len(name)}}> ")
                    if not waiting.strip() and line.strip() in (".quit", ".exit"):
                        return
                    waiting = self._ask(waiting, line)
                except EOFError:
                    self._say("\n")
                    return
                except KeyboardInterrupt:
                    waiting = ""
                    self._say("\n")

    def _ask(self, waiting: str, line: str) -> str:
        """Answer what is whole; returns what is not."""
        is_command = not waiting.strip() and line.lstrip().startswith(".")
        *whole, rest = [line, ""] if is_command else split(f"{waiting}{line}\n")
        for statement in whole:
            try:
                self.answer(statement)
            except LocalismError as wrong:
                print(wrong, file=sys.stderr, flush=True)
        return rest

    def _command(self, line: str) -> None:
        word, *arguments = line.rstrip(" ;\n").split()
        if word == ".tables" and not arguments:
            table = reader.read(self._folder, _OBJECTS)
            self._say(tables.render(table, self._form, tables.terminal_width()))
        elif word == ".schema" and len(arguments) < 2:
            self._say(self._schema(arguments[0] if arguments else None))
        elif word == ".format" and len(arguments) == 1 and arguments[0] in tables.FORMS:
            self._form = arguments[0]
        elif word == ".help" and not arguments:
            self._say(HELP)
        else:
            raise UsageError(
                f"there is no command {line.strip()!r}",
                where="localism sql",
                fix=".tables, .schema [NAME], .format table|csv|json|markdown, .help or .quit",
            )

    def _schema(self, name: str | None) -> str:
        """CREATE statements with their comments, as the corpus was made with them."""
        known = [str(row[0]) for row in reader.read(self._folder, _OBJECTS).rows]
        made = _statements()
        if name is None:
            return "\n".join(made[one] for one in known if one in made)
        if name not in known or name not in made:
            near = difflib.get_close_matches(name, known, reader.NEAREST, 0.5)
            raise UsageError(
                f"this corpus has no table or view {name!r}",
                where=".schema",
                fix=(f"did you mean {' or '.join(near)}? " if near else "") + ".tables lists them",
            )
        return made[name]


def _statements() -> dict[str, str]:
    """Table or view -> its statement in schema.sql, with the comment above it."""
    found = re.findall(
        r"^((?:--[^\n]*\n)*CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW) (\w+).*?;[^\n]*\n)",
        SCHEMA.read_text(),
        re.M | re.S,
    )
    return {name: text for text, name in found}


def split(text: str) -> list[str]:
    """Statements that end with a semicolon, without it, and behind them what has not ended yet."""
    parts, start, place = [], 0, 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        assert token, text[place:]
        # A lone quote or the beginning of a comment: its end has not been typed yet.
        if len(token[0]) == 1 and _OPEN.match(text, place):
            break
        place = token.end()
        if token[0] == ";":
            parts.append(text[start : place - 1])
            start = place
    return [*(part for part in parts if part.strip()), text[start:]]


# ---- what was typed before -------------------------------------------------------------------


def history_file() -> Path:
    """Where the prompt keeps its history: in the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "localism" / "sql_history"


class _Remembered:
    """While it is open, lines can be edited and called back; a folder that is closed to us is none
    of the user's worries."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        try:
            import readline
        except ImportError:  # a Python built without it
            return
        readline.set_history_length(HISTORY_LINES)
        try:
            readline.read_history_file(self._file)
        except OSError:
            pass

    def __exit__(self, *_: object) -> None:
        try:
            import readline

            self._file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(self._file)
        except (ImportError, OSError):
            pass
