"""kill -9 at random moments: the same command completes the run, nothing lost, nothing twice."""

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from pipeline import LIMIT_SECONDS, command, kill_repeatedly, run_all

from localism import reader

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # the first test of each pays for a run

KILLS = 4
# Tables whose every row must come out the same when the ledger is replayed.
REPLAYED = [
    "topic",
    "query_type",
    "skill_label",
    "skill",
    "cluster",
    "mix",
    "mix_skill",
    "candidate",
    "verdict",
    "checkpoint",
    "answer",
    "judgment",
    "score",
]


def table(folder, name):
    found = reader.read(folder, f"SELECT * FROM {name} ORDER BY ALL")
    return found.columns, found.rows


@pytest.fixture(scope="module")
def battered(finished, tmp_path_factory):
    """A run killed KILLS times at random moments, then completed."""
    folder = tmp_path_factory.mktemp("kill") / "runs" / "battered"
    moments = kill_repeatedly(folder, KILLS, 0.8 * finished.seconds / KILLS, random.Random(11))
    assert len(moments) == KILLS
    done = subprocess.run(run_all(folder), capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_the_books_balance_after_kills(battered):
    for book in reader.read(battered, "FROM books").as_dicts():
        assert book["planned"] == book["accepted"] + book["rejected"] + book["failed"], book
        assert book["pending"] == 0


def test_every_mix_has_one_candidate_and_one_conversation(battered):
    (row,) = reader.read(
        battered,
        """
        SELECT (SELECT count(*) FROM mix) AS mixes, (SELECT count(*) FROM candidate) AS candidates,
               (SELECT count(*) FROM turn WHERE stage = 'generate') AS turns""",
    ).as_dicts()
    assert row["candidates"] == row["mixes"] == 38
    assert row["turns"] == 3 * row["mixes"]


def test_no_process_is_left_behind(battered):
    assert left_behind(battered) == []


def left_behind(folder):
    """Processes whose environment names the run: engines and trainers are started with it."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in environment.read_bytes():
                found.append(environment.parent.name)
        except OSError:
            pass  # it ended meanwhile
    return found


def test_what_does_not_depend_on_a_model_equals_the_uninterrupted_run(battered, finished):
    for query in (
        "SELECT * FROM seed_example ORDER BY ALL",
        "SELECT * FROM asset ORDER BY ALL",
        "SELECT ordinal, k, split FROM mix ORDER BY ALL",
        "SELECT ordinal, position FROM mix JOIN mix_skill USING (mix_id) ORDER BY ALL",
        "SELECT epoch FROM checkpoint ORDER BY ALL",
    ):
        assert reader.read(battered, query) == reader.read(finished.folder, query)


def test_replaying_the_ledger_gives_every_row_again_without_asking_a_model(battered):
    again = battered.parent / "again"
    forked = subprocess.run(
        [*command(battered, "fork")[:3], "fork", str(battered), str(again)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert forked.returncode == 0, forked.stderr
    done = subprocess.run(
        command(again, "run-all", "--plain"), capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert table(again, "turn") == table(battered, "turn")
    for name in REPLAYED:
        assert table(again, name) == table(battered, name), name


def test_ctrl_c_ends_everything_within_seconds_and_says_how_to_continue(tmp_path):
    folder = tmp_path / "runs" / "stopped"
    child = subprocess.Popen(
        run_all(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    engine = folder / "logs" / "engine-teacher.json"
    deadline = time.monotonic() + 60
    while not engine.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)  # the engine is loading
    child.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = child.communicate(timeout=60)
    assert time.monotonic() - started < 20
    assert child.returncode == 130
    assert "the same command continues" in errors
    assert "Traceback" not in errors
    assert left_behind(folder) == []
