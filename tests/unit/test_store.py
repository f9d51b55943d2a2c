"""The corpus keeps what it was given, once, and survives kill -9."""

import secrets
import signal
import subprocess
import sys
import time
from datetime import timedelta

import duckdb
import pytest
import tmpfs

from localism import reader
from localism import store as store_module
from localism.errors import MachineError, StageError
from localism.records import stable_id
from localism.store import Store


def verdict(number: int, **changes):
    row = {"mix_id": f"m{number}", "gate": "parsed", "passed": True, "reason": None, "value": 0.5}
    return row | changes


def test_rows_added_are_seen_by_the_next_query(tmp_path):
    with Store(tmp_path / "c.duckdb") as store:
        store.add_rows("verdict", [verdict(n) for n in range(300)])
        assert store.value("SELECT count(*) FROM verdict") == 300


def test_an_existing_key_wins(tmp_path):
    with Store(tmp_path / "c.duckdb") as store:
        store.add("verdict", **verdict(1, passed=True))
        store.add("verdict", **verdict(1, passed=False))
        store.flush()
        store.add("verdict", **verdict(1, passed=False))
        assert store.query("SELECT mix_id, passed FROM verdict") == [
            {"mix_id": "m1", "passed": True}
        ]


def test_rows_are_on_disk_within_two_seconds_without_a_flush(tmp_path):
    with Store(tmp_path / "c.duckdb") as store:
        store.add("verdict", **verdict(1))
        deadline = time.monotonic() + 10
        while store._buffered and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not store._buffered


def test_a_row_that_breaks_a_rule_fails_the_write_and_says_so(tmp_path):
    store = Store(tmp_path / "c.duckdb")
    store.add(
        "candidate",
        mix_id="m",
        instruction=None,
        response=None,
        status="nonsense",
        reason=None,
        turn_id=None,
    )
    with pytest.raises(duckdb.ConstraintException):
        store.flush()
    with pytest.raises(RuntimeError, match="write to the corpus failed"):
        store.close()


def test_a_failed_transaction_leaves_nothing(tmp_path):
    store = Store(tmp_path / "c.duckdb")
    store.add("verdict", **verdict(1))
    store.add(
        "candidate",
        mix_id="m",
        instruction=None,
        response=None,
        status="nonsense",
        reason=None,
        turn_id=None,
    )
    with pytest.raises(duckdb.ConstraintException):
        store.flush()
    with pytest.raises(RuntimeError, match="write to the corpus failed"):
        store.query("FROM verdict")  # what was added is not there
    with pytest.raises(RuntimeError, match="write to the corpus failed"):
        store.close()


def test_kill_nine_loses_at_most_what_was_not_flushed(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from localism.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "row = dict(gate='g', passed=True, reason=None, value=None)\n"
        "store.add_rows('verdict', [dict(mix_id=str(n), **row) for n in range(1000)])\n"
        "store.flush(); print('flushed', flush=True)\n"
        "store.add('verdict', mix_id='late', **row); time.sleep(60)\n"
    )
    path = tmp_path / "c.duckdb"
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"flushed\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    with Store(path) as store:
        ids = {row["mix_id"] for row in store.query("SELECT mix_id FROM verdict")}
    assert ids - {"late"} == {str(n) for n in range(1000)}


def test_a_second_writer_is_refused_with_the_process_that_holds_the_file(tmp_path):
    path = tmp_path / "c.duckdb"
    script = (
        "import sys; from pathlib import Path; from localism.store import Store\n"
        "store = Store(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    try:
        with pytest.raises(StageError) as caught:
            Store(path)
        assert str(child.pid) in caught.value.where
    finally:
        child.communicate()


def test_the_writer_itself_cannot_reach_other_files(tmp_path):
    with Store(tmp_path / "c.duckdb") as store:
        for statement in (
            "SELECT * FROM read_text('/etc/hostname')",
            f"COPY run TO '{tmp_path}/out.csv'",
            f"ATTACH '{tmp_path}/other.duckdb'",
            "SET enable_external_access = true",
            "INSTALL httpfs",
        ):
            with pytest.raises(duckdb.Error):
                store.query(statement)


def test_ids_depend_on_content_alone():
    assert stable_id("a", 1, {"x": 1, "y": 2}) == stable_id("a", 1, {"y": 2, "x": 1})
    assert stable_id("a", "b") != stable_id("ab")
    assert stable_id(1) != stable_id("1")


def test_the_id_contract_is_frozen():
    # Old corpora were written with these; a change here orphans every cached model call.
    assert stable_id("mix", 0, 2) == "ac00158eeb2f6cb7"


INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
from localism.store import Store, now

def warn():
    time.sleep(float(sys.argv[2]))
    os.kill(os.getpid(), signal.SIGINT)

added, row = 0, {"stage": None, "kind": "note", "detail": "{}"}
try:
    with Store(Path(sys.argv[1])) as store:
        threading.Thread(target=warn, daemon=True).start()
        while True:
            store.add("event", event_id=str(added), happened_at=now(), **row)
            added += 1
            if added % 7 == 0:
                store.flush()
except KeyboardInterrupt:
    print(added, flush=True)
"""


@pytest.mark.parametrize("after", [0.05, 0.11, 0.17, 0.23, 0.31, 0.42])
def test_an_interruption_in_the_middle_of_a_write_loses_no_row(tmp_path, after):
    path = tmp_path / "corpus.duckdb"
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(path), str(after)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    added = int(done.stdout)
    with Store(path) as store:
        # A signal that comes in add() leaves it open whether that row is there.
        assert store.value("SELECT count(*) FROM event") in (added, added + 1)
        assert store.value("SELECT max(event_id::INT) + 1 = count(*) FROM event")


# ---- the clock -----------------------------------------------------------------------------


def kinds_in_order(store):
    return [row["kind"] for row in store.query("SELECT kind FROM event ORDER BY happened_at")]


def test_events_stay_in_their_order_when_the_clock_is_set_back_or_forth(tmp_path, monkeypatch):
    path, real = tmp_path / "c.duckdb", store_module.now
    for kind, days in (("first", 0), ("second", 400), ("third", -400), ("fourth", 0)):
        shifted = timedelta(days=days)
        monkeypatch.setattr(store_module, "now", lambda shifted=shifted: real() + shifted)
        with Store(path) as store:
            store.event(kind)
            store.event(f"{kind} again")
    with Store(path) as store:
        order = [f"{name}{more}" for name in ("first", "second", "third", "fourth")
                 for more in ("", " again")]  # fmt: skip
        assert kinds_in_order(store) == order


def test_a_clock_that_jumps_while_a_corpus_is_open_moves_no_time(tmp_path, monkeypatch):
    with Store(tmp_path / "c.duckdb") as store:
        before = store.now()
        monkeypatch.setattr(store_module, "now", lambda: before + timedelta(days=9))
        assert timedelta() < store.now() - before < timedelta(hours=1)


# ---- the disk ------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 6 MiB, and a function that makes it larger."""
    folder = tmp_path / "small"
    folder.mkdir()
    with tmpfs.mounted(folder, "6m"):
        yield folder


def test_a_full_disk_is_told_and_what_was_written_is_there_when_it_has_room_again(small_disk):
    path = small_disk / reader.CORPUS
    store = Store(path)
    written = 0
    with pytest.raises(MachineError, match="the disk is full") as full:
        while True:
            rows = [verdict(written + n, reason=secrets.token_hex(2000)) for n in range(50)]
            store.add_rows("verdict", rows)
            store.flush()
            written += len(rows)
    assert full.value.where == str(path) and full.value.exit_code == 4
    for more in (lambda: store.event("late"), lambda: store.query("FROM verdict"), store.close):
        with pytest.raises(MachineError, match="the disk is full"):
            more()
    assert reader.read(small_disk, "SELECT count(*) FROM verdict").rows == [[written]]
    with pytest.raises(MachineError, match="the disk is full"):
        Store(path)
    tmpfs.resize(small_disk, "60m")
    with Store(path) as reopened:
        reopened.add_rows("verdict", [verdict(written + n) for n in range(50)])
        assert reopened.value("SELECT count(*) FROM verdict") == written + 50


def test_a_full_disk_is_told_to_a_run_that_only_adds(small_disk):
    """The write fails in the background; the next row says so."""
    store = Store(small_disk / "c.duckdb")
    with pytest.raises(MachineError, match="the disk is full"):
        for number in range(100_000):
            store.add("verdict", **verdict(number, reason=secrets.token_hex(2000)))
            time.sleep(0.001)
    with pytest.raises(MachineError):
        store.close()


def test_a_disk_that_is_read_only_is_told(small_disk):
    Store(small_disk / "c.duckdb").close()
    tmpfs.remount(small_disk, "ro")
    with pytest.raises(MachineError, match="read-only file system"):
        Store(small_disk / "c.duckdb")
