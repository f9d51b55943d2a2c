"""localism sql beyond one query: dot commands, scripts, and the prompt in a real terminal."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pytest
from click.testing import CliRunner

from localism import sql_shell
from localism.cli.main import cli
from localism.errors import UsageError
from localism.reader import CORPUS
from localism.store import Store

SLOW = b"SELECT sum(a.range * b.range) FROM range(9000000) a, range(9000000) b;\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with two events."""
    folder = tmp_path_factory.mktemp("shell") / "first"
    folder.mkdir()
    (folder / "recipe.json").touch()
    with Store(folder / CORPUS) as store:
        for name in ("one", "two"):
            store.event(name)
    return folder


def asked(folder, *arguments, text=None):
    return CliRunner().invoke(cli, ["sql", "--run", str(folder), *arguments], input=text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; SELECT 2;", ["SELECT 1", " SELECT 2", ""]),
        ("SELECT 'a;''b' AS \"x;y\"; rest", ["SELECT 'a;''b' AS \"x;y\"", " rest"]),
        ("-- no; end\nSELECT 1 /* ; */ ;", ["-- no; end\nSELECT 1 /* ; */ ", ""]),
        ("SELECT $$a;b$$, $t$c;$$d$t$;", ["SELECT $$a;b$$, $t$c;$$d$t$", ""]),
        ("SELECT 'open; ", ["SELECT 'open; "]),
        ("SELECT /* open; ", ["SELECT /* open; "]),
        (";;", [""]),
        ("", [""]),
    ],
)
def test_a_statement_ends_at_a_semicolon_that_is_not_quoted(text, parts):
    assert sql_shell.split(text) == parts


def test_tables_lists_what_there_is_and_schema_shows_it_with_its_comments(folder):
    listed = asked(folder, ".tables").output
    assert "skill_coverage" in listed and "\nevent " in listed
    shown = asked(folder, ".schema", "skill").output
    assert shown.startswith("CREATE TABLE IF NOT EXISTS skill (") and "-- HDBSCAN" in shown
    assert shown.count("CREATE") == 1
    whole = asked(folder, ".schema").output
    assert whole.count("CREATE") == len([n for n in listed.splitlines()[2:-1] if n.strip()])


def test_a_name_that_is_not_there_is_answered_with_the_nearest_alone(folder):
    for statement in (".schema skil", "FROM skil"):
        with pytest.raises(UsageError) as wrong:
            sql_shell.Shell(folder, "table", print).answer(statement)
        assert "did you mean skill" in wrong.value.fix and len(wrong.value.fix) < 160


@pytest.mark.parametrize(
    "line", [".nothing", ".format", ".format xml", ".tables all", ".schema a b"]
)
def test_a_wrong_command_is_answered_with_the_right_ones(folder, line):
    with pytest.raises(UsageError, match="there is no command") as wrong:
        sql_shell.Shell(folder, "table", print).answer(line)
    assert ".schema [NAME]" in wrong.value.fix


def test_a_script_is_answered_statement_by_statement(folder):
    script = "SELECT kind FROM event\nORDER BY 1;\n.format csv\n-- the last\nSELECT 7 AS n"
    assert asked(folder, text=script).output.endswith("2 rows\nn\n7\n")


def test_a_script_stops_at_its_first_mistake(folder):
    done = asked(folder, text="SELECT 1 AS a; SELECT nothing; SELECT 2 AS b;")
    assert isinstance(done.exception, UsageError)
    assert "a\n-\n1" in done.output and "b" not in done.output


@pytest.mark.parametrize("text", ["", "\n  \n"])
def test_nothing_to_answer_is_said(folder, text):
    assert "there is no query" in str(asked(folder, text=text).exception)


def test_a_pipe_gets_every_text_whole_and_a_terminal_what_fits(folder, monkeypatch):
    long = "SELECT repeat('many words ', 30) AS text, 1 AS n"
    monkeypatch.delenv("COLUMNS", raising=False)
    assert asked(folder, long).output.count("many words") == 30
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, asked(folder, long).output.splitlines())) <= 60


def test_a_plan_is_drawn_as_duckdb_draws_it(folder):
    drawing = asked(folder, "EXPLAIN", "SELECT", "kind", "FROM", "event").output
    assert drawing.count("\n") > 3 and max(map(len, drawing.splitlines())) < 80


def test_no_form_of_the_command_writes(folder):
    for arguments, text in (((), "DELETE FROM event;"), (("DELETE", "FROM", "event"), None)):
        assert "only one SELECT" in str(asked(folder, *arguments, text=text).exception)
    assert "2" in asked(folder, "--format", "csv", "SELECT count(*) FROM event").output


def typed(folder, state, steps) -> tuple[str, int]:
    """What a terminal of 60 columns shows; the next keys are typed when the mark is seen."""
    terminal, inside = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 60, 0, 0))
    environment = {**os.environ, "XDG_STATE_HOME": str(state), "TERM": "dumb"}
    environment.pop("COLUMNS", None)
    child = subprocess.Popen(
        [sys.executable, "-m", "localism", "sql", "--run", str(folder)],
        stdin=inside, stdout=inside, stderr=inside, env=environment, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(inside)
    seen, place = "", 0

    def read_until(mark: str, keys: bytes = b"") -> None:
        nonlocal seen, place
        end = time.monotonic() + 30
        while mark not in seen[place:] and time.monotonic() < end:
            ready = select.select([terminal], [], [], 1)[0]
            if not ready and keys == b"\x03":  # Python misses one just before it reads a line
                os.write(terminal, keys)
            if ready:
                try:
                    seen += os.read(terminal, 65536).decode()
                except OSError:  # the other side has ended
                    return
        assert mark in seen[place:], seen
        place = seen.index(mark, place) + len(mark)

    read_until("first> ")
    for keys, *marks in steps:
        os.write(terminal, keys)
        for mark in marks:
            read_until(mark, keys)
    code = child.wait(timeout=20)
    os.close(terminal)
    return seen, code


def test_the_prompt_takes_several_lines_survives_mistakes_and_ctrl_c_and_remembers(
    folder, tmp_path
):
    seen, code = typed(
        folder,
        tmp_path,
        [
            (b"SELECT kind,\n", "...> "),
            (b"1 AS n FROM event ORDER BY kind;\n", "2 rows", "first> "),
            (b"FROM evnt;\n", "did you mean event", "first> "),
            (SLOW, ";\r\n"),
            (b"\x03", "first> "),
            (b"SELECT half", "half"),
            (b"\x03", "first> "),
            (b".format csv\n", "first> "),
            (b"SELECT 41 + 1 AS answer;\n", "answer\r\n42", "first> "),
            (b"\x04", "\n"),
        ],
    )
    assert code == 0 and "Traceback" not in seen
    history = (tmp_path / "localism" / "sql_history").read_text()
    assert "1 AS n FROM event ORDER BY kind;" in history
    again, code = typed(
        folder, tmp_path, [(b"\x10", "answer;"), (b"\n", "42", "> "), (b".quit\n", "\n")]
    )
    assert code == 0


def test_a_history_that_cannot_be_kept_is_no_obstacle(folder, tmp_path):
    (tmp_path / "file").touch()
    seen, code = typed(
        folder, tmp_path / "file", [(b"SELECT 42 AS n;\n", "1 row", "> "), (b"\x04", "\n")]
    )
    assert code == 0 and "Traceback" not in seen
