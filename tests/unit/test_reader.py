"""Outside readers see a corpus while a run writes it, and can neither change nor stall it."""

import csv
import io
import json
import signal
import subprocess
import sys
import time

import pytest

from localism import reader, tables
from localism.errors import ConfigError, StageError, UsageError
from localism.store import Store, now

OPEN = """
import sys
from pathlib import Path
from localism import reader
from localism.store import Store
folder = Path(sys.argv[1])
with Store(folder / reader.CORPUS) as store, reader.answering(store, folder):
    for number in range(50):
        store.event("tick", n=number)
    print("open", flush=True)
    sys.stdin.readline()
"""

ASK = """
import sys
from pathlib import Path
from localism import reader
try:
    reader.read(Path(sys.argv[1]), sys.argv[2])
except KeyboardInterrupt:
    pass
"""


@pytest.fixture
def running(tmp_path):
    """A run folder whose corpus another process holds open for writing."""
    folder = tmp_path / ("deep" * 12) / ("er" * 40)  # longer than a socket path may be
    folder.mkdir(parents=True)
    child = subprocess.Popen(
        [sys.executable, "-c", OPEN, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"open\n"
    yield folder, child
    if child.poll() is None:
        child.communicate(b"\n")


def test_a_query_is_answered_while_another_process_writes(running):
    folder, _ = running
    table = reader.read(folder, "SELECT count(*) AS n, max(detail->>'n') AS top FROM event")
    assert table.as_dicts() == [{"n": 50, "top": "9"}]


def test_a_query_reads_the_file_once_the_process_has_ended(running):
    folder, child = running
    child.communicate(b"\n")
    assert reader.read(folder, "SELECT count(*) FROM event").rows == [[50]]
    assert not (folder / reader.SOCKET).exists()


def test_a_socket_left_by_a_killed_process_does_not_hinder_reading(running):
    folder, child = running
    child.kill()
    child.wait()
    assert (folder / reader.SOCKET).exists()
    assert reader.read(folder, "SELECT 1").rows == [[1]]
    with Store(folder / reader.CORPUS) as store, reader.answering(store, folder):
        assert reader.read(folder, "SELECT 2").rows == [[2]]


WRITES = [
    "DELETE FROM event",
    "INSERT INTO topic VALUES ('a', 'b', 1, NULL)",
    "UPDATE event SET kind = 'x'",
    "DROP TABLE event",
    "CREATE TABLE t (a INT)",
    "ROLLBACK; DELETE FROM event",
    "SELECT 1; DELETE FROM event",
    "COPY event TO '/tmp/x.csv'",
    "COPY event FROM '/etc/passwd'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_text('http://192.0.2.1/x')",
    "ATTACH '/tmp/other.duckdb'",
    "EXPORT DATABASE '/tmp/x'",
    "SET enable_external_access = true",
    "PRAGMA enable_external_access",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CHECKPOINT",
    "CALL pragma_version()",
    "EXPLAIN ANALYZE DELETE FROM event",
]


@pytest.mark.parametrize("statement", WRITES)
def test_no_statement_writes_or_leaves_the_file(running, statement):
    folder, child = running
    with pytest.raises(UsageError):
        reader.read(folder, statement)
    assert reader.read(folder, "SELECT count(*) FROM event").rows == [[50]]
    child.communicate(b"\n")
    if statement != "CALL pragma_version()":
        with pytest.raises(UsageError):
            reader.read(folder, statement)
    assert reader.read(folder, "SELECT count(*) FROM event").rows == [[50]]


@pytest.mark.parametrize(
    "statement",
    [
        "SHOW TABLES",
        "DESCRIBE event",
        "FROM event LIMIT 1",
        "WITH a AS (SELECT 1) FROM a",
        "EXPLAIN SELECT 1",
    ],
)
def test_looking_around_is_allowed(running, statement):
    assert reader.read(running[0], statement).rows


def test_a_slow_query_is_ended_and_the_writer_lives(running):
    folder, _ = running
    started = time.monotonic()
    with pytest.raises(UsageError, match="longer than"):
        reader.read(
            folder,
            "SELECT sum(a.range * b.range) FROM range(9000000) a, range(9000000) b",
            time_limit=1.0,
        )
    assert time.monotonic() - started < 10
    assert reader.read(folder, "SELECT count(*) FROM event").rows == [[50]]


@pytest.mark.parametrize("statement", ["SELEC 1", "SELECT * FROM nothing", "", "SELECT foo"])
def test_wrong_sql_is_an_error_with_a_fix(running, statement):
    with pytest.raises(UsageError) as caught:
        reader.read(running[0], statement)
    assert "docs/sql.md" in caught.value.fix


HINTS = [
    ("FROM evnt", "did you mean event or judgment? `localism sql .tables`"),
    ("FROM skill_covrage", "did you mean skill_coverage"),
    ("FROM zzz", "`localism sql .tables` lists what there is"),
    ("SELECT knd FROM event", 'columns like it: "kind"'),
    ("SELECT e.knd FROM event e", 'columns like it: "kind"'),
    ("SELECT cuont(*) FROM event", 'Did you mean "count"?'),
    ("SELECT kind, count(*) FROM event", "Either add it to the GROUP BY list"),
]


def interrupt(child: subprocess.Popen) -> None:
    """Ctrl-C until it ends: one that comes while Python imports something may be lost."""
    for _ in range(40):
        child.send_signal(signal.SIGINT)
        try:
            child.wait(timeout=0.5)
            return
        except subprocess.TimeoutExpired:
            pass
    raise AssertionError("it did not end")


def test_a_run_ends_in_good_order_while_a_long_query_is_at_work(running):
    folder, child = running
    slow = "SELECT sum(x + y) FROM range(10000000000) t(x), range(1000) u(y)"
    asked = subprocess.Popen(
        [sys.executable, "-c", ASK, str(folder), slow], stderr=subprocess.PIPE, text=True
    )
    time.sleep(3)
    child.communicate(b"\n", timeout=20)
    assert child.returncode == 0
    interrupt(asked)  # it went on by itself on the file
    assert "Traceback" not in asked.communicate()[1]


def test_the_query_of_an_asker_who_leaves_ends_at_once(running):
    folder, child = running

    def used() -> int:
        with open(f"/proc/{child.pid}/stat") as stat:
            return sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13]))

    slow = "SELECT sum(x + y) FROM range(10000000000) t(x), range(1000) u(y)"
    asked = subprocess.Popen([sys.executable, "-c", ASK, str(folder), slow])
    before = used()
    while used() < before + 20:  # ticks of a hundredth of a second: it is at work
        time.sleep(0.05)
    interrupt(asked)
    deadline, rests = time.monotonic() + 15, False  # the query itself would take a minute
    while not rests and time.monotonic() < deadline:
        after = used()
        time.sleep(0.5)
        rests = used() - after < 10
    assert rests
    assert reader.read(folder, "SELECT count(*) FROM event").rows == [[50]]


def test_sums_are_whole_where_they_are_sorted_and_filtered_by_a_subquery(tmp_path):
    """DuckDB 2.0 gave 171,302 as 40,230 for this; the setting in store.SETTINGS is the cure."""
    rows = [{"n": 120 + number % 9, "at": number} for number in range(1400)]
    with Store(tmp_path / reader.CORPUS) as store:
        for row in rows:
            store.add(
                "turn", turn_id=str(row["at"]), stage="generate", role="teacher", template="t",
                prompt="", prompt_hash="", model_fingerprint="", sampling="{}", sample=0, text="",
                finish_reason="stop", prompt_tokens=row["n"], completion_tokens=1, seconds=0.1,
                finished_at=now(),
            )  # fmt: skip
        for kind in ("answered", "stage_started", "warning"):  # 'forked' lies between them
            store.event(kind)
    answer = reader.read(
        tmp_path,
        "SELECT stage, sum(prompt_tokens)::BIGINT AS n FROM turn WHERE finished_at > coalesce("
        "(SELECT max(happened_at) FROM event WHERE kind = 'forked'), '-infinity'::TIMESTAMP)"
        " GROUP BY stage ORDER BY min(finished_at)",
    )
    total = sum(row["n"] for row in rows)
    assert answer.rows == [["generate", total]]
    assert reader.read(tmp_path, "SELECT prompt_tokens FROM tokens").rows == [[total]]


def test_wrong_sql_is_told_what_was_probably_meant(running):
    folder, child = running

    def refused(statement: str) -> UsageError:
        with pytest.raises(UsageError) as caught:
            reader.read(folder, statement)
        return caught.value

    beside = [refused(statement) for statement, _ in HINTS]
    child.communicate(b"\n")
    for (statement, hint), error in zip(HINTS, beside, strict=True):
        assert hint in error.fix == refused(statement).fix
        assert "\n" not in error.problem + error.fix


def test_lists_and_structs_are_json_in_csv_and_in_tables(running):
    sql = "SELECT ['it''s', 'b'] AS names, {'a': 1.5, 'b': NULL} AS pair, '{\"x\": 1}'::JSON AS raw"
    table = reader.read(running[0], sql)
    (row,) = csv.DictReader(io.StringIO(tables.render(table, "csv")))
    assert json.loads(row["names"]) == ["it's", "b"]
    assert json.loads(row["pair"]) == {"a": 1.5, "b": None}
    assert json.loads(row["raw"]) == {"x": 1}
    assert '["it\'s", "b"]' in tables.render(table, "table")


@pytest.mark.parametrize(("rows", "end"), [(0, "0 rows"), (1, "1 row"), (2000, "2,000 rows")])
def test_a_table_ends_with_how_many_rows_it_has(rows, end):
    table = reader.Table(["n"], [[n] for n in range(rows)])
    assert tables.render(table, "table").splitlines()[-1] == end


def test_values_come_as_json_can_carry_them(running):
    row = reader.read(
        running[0],
        "SELECT [1, 2], {'a': 1.5::DECIMAL(4,1)}, NULL, DATE '2026-01-02', 'x'::BLOB, 1e400,"
        " 'nan'::DOUBLE, TIMESTAMPTZ '2026-01-02 03:04:05+00'",
    ).rows[0]
    assert row[:4] == [[1, 2], {"a": 1.5}, None, "2026-01-02"]
    assert row[5:7] == [None, None] and row[7].startswith("2026-01-02 03:04:05")


def test_a_folder_without_a_corpus_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no corpus"):
        reader.read(tmp_path, "SELECT 1")


def test_a_file_that_is_no_corpus_is_said_to_be_damaged(tmp_path):
    (tmp_path / reader.CORPUS).write_bytes(b"x" * 9999)
    with pytest.raises(StageError, match="cannot be opened"):
        reader.read(tmp_path, "SELECT 1")
    with pytest.raises(StageError, match="cannot be opened"):
        Store(tmp_path / reader.CORPUS)
