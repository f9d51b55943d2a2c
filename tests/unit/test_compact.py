"""The corpus gets smaller and loses nothing, whatever happens meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from localism import compact as compact_module
from localism import lock
from localism.cli.main import cli
from localism.compact import COPY, compact
from localism.errors import ConfigError, MachineError, StageError, UsageError
from localism.reader import CORPUS
from localism.records import stable_id
from localism.store import Store

ROOT = Path(__file__).parents[2]


def quiet(_: str) -> None:
    pass


@pytest.fixture
def run(tmp_path) -> Path:
    """A run whose candidates were written, failed, and written again: a file with holes."""
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text("{}")
    empty = {"status": "failed", "reason": "x", "turn_id": None, "completion_tokens": 0}
    with Store(folder / CORPUS) as store:
        for attempt in range(3):
            store.execute("DELETE FROM candidate")
            text = {"instruction": stable_id(attempt) * 20}
            store.add_rows(
                "candidate",
                [
                    {"mix_id": f"m{n}", "response": stable_id(n, attempt) * 30, **text, **empty}
                    for n in range(8_000)
                ],
            )
            store.execute("CHECKPOINT")
        store.event("stage_finished", "generate", summary="all")
    return folder


def rows(folder: Path) -> list[tuple]:
    with duckdb.connect(str(folder / CORPUS), read_only=True) as connection:
        return connection.execute("FROM candidate ORDER BY ALL").fetchall()


def test_the_file_gets_smaller_and_every_row_and_view_is_as_it_was(run):
    before = rows(run)
    done = compact(run, quiet)
    assert done.after < 0.7 * done.before
    assert done.after == (run / CORPUS).stat().st_size and done.rows == 8_001
    assert rows(run) == before
    with Store(run / CORPUS) as store:  # keys and views came along
        store.add("candidate", mix_id="m1", instruction=None, response=None, status="failed",
                  reason=None, turn_id=None, completion_tokens=0)  # fmt: skip
        assert store.value("SELECT count(*) FROM candidate") == 8_000
        assert store.query("SELECT * FROM books")


def test_the_command_says_what_came_of_it(run, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    said = CliRunner().invoke(cli, ["compact", "--run", "first"])
    assert "8,001 rows of" in said.output and "each as it was" in said.output
    again = CliRunner().invoke(cli, ["compact", "--run", "first", "--json"])
    facts = json.loads(again.output.splitlines()[-1])
    assert facts["rows"] == 8_001 and facts["after"] <= facts["before"]


def test_a_run_that_is_being_worked_on_is_refused(run):
    with lock.held(run, quiet), pytest.raises(UsageError, match="already being worked on"):
        compact(run, quiet)


def test_a_run_without_a_corpus_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no corpus yet"):
        compact(tmp_path, quiet)


def test_without_room_for_a_copy_nothing_is_begun(run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(MachineError, match="no room for a copy"):
        compact(run, quiet)
    assert not (run / COPY).exists()


def test_a_copy_that_lost_a_row_is_noticed_and_thrown_away(run, monkeypatch):
    before, copied = rows(run), compact_module._copy

    def lossy(corpus: Path, copy: Path) -> None:
        copied(corpus, copy)
        with duckdb.connect(str(copy)) as connection:
            connection.execute("UPDATE candidate SET response = 'other' WHERE mix_id = 'm7'")

    monkeypatch.setattr(compact_module, "_copy", lossy)
    with pytest.raises(StageError, match="not what was copied") as caught:
        compact(run, quiet)
    assert "candidate" in caught.value.where
    assert rows(run) == before and not (run / COPY).exists()


KILLED = """
import sys, time
from pathlib import Path
from localism import compact

def wait(*_):
    print("copied", flush=True)
    time.sleep(60)

setattr(compact, sys.argv[2], wait)
compact.compact(Path(sys.argv[1]), lambda _: None)
"""


@pytest.mark.parametrize("step", ["_verify", "_swap"])
def test_kill_9_leaves_the_old_file_whole_and_the_next_call_starts_anew(run, step):
    before = rows(run)
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(run), step], env=here, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"copied\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (run / COPY).exists() and rows(run) == before
    done = compact(run, quiet)
    assert done.rows == 8_001 and rows(run) == before and not (run / COPY).exists()


WRITER = """
import sys, time
from pathlib import Path
from localism.store import Store
store = Store(Path(sys.argv[1]))
store.event("late")
store.flush()
print("written", flush=True)
time.sleep(60)
"""


def test_what_a_killed_run_left_in_its_log_is_in_the_copy(run):
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(run / CORPUS)], env=here, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"written\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (run / f"{CORPUS}.wal").exists()
    assert compact(run, quiet).rows == 8_002
    with Store(run / CORPUS) as store:
        assert store.value("SELECT count(*) FROM event WHERE kind = 'late'") == 1
