"""`localism status --watch` beside a run: how its engines are, restarts, the end."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from localism import lock, run, status, worker
from localism.cli import runs
from localism.cli.main import cli
from localism.errors import MachineError
from localism.reader import CORPUS
from localism.store import Store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run that has begun."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "first"
    (folder / "logs").mkdir(parents=True)
    (folder / "recipe.json").write_text("{}")
    with Store(folder / CORPUS) as store:
        store.event("stage_started", "extract")
    return folder


def interrupt(_: float) -> None:
    raise KeyboardInterrupt


def finish(folder) -> None:
    with Store(folder / CORPUS) as store:
        for stage in run.STAGES:
            store.event("stage_finished", stage, summary="all")


def beat(folder, pid: int, seconds_ago: float = 0.0, **server) -> None:
    """A heartbeat as the process that works writes it."""
    facts = {"role": "teacher", "stage": "generate", "is_external": False, "pid": pid}
    path = folder / "logs" / "heartbeat-teacher.json"
    line = {"url": "http://127.0.0.1:1/v1", "state": "alive", "line": "alive, 812 tok/s", **server}
    path.write_text(json.dumps({**facts, "at": time.time() - seconds_ago, "servers": [line]}))


# ---- a machine that helps ------------------------------------------------------------------


def told_while_waiting(folder, monkeypatch) -> list[str]:
    """What `localism worker` says until it first falls asleep."""
    said: list[str] = []
    monkeypatch.setattr(worker.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        worker.serve(folder, said.append)
    return said


def test_a_worker_says_when_its_run_is_finished_or_rests(folder, monkeypatch):
    assert "nobody works on run first" in told_while_waiting(folder, monkeypatch)[1]
    with lock.held(folder, quiet):
        assert len(told_while_waiting(folder, monkeypatch)) == 1
    finish(folder)
    assert "run first is finished and calls nobody" in told_while_waiting(folder, monkeypatch)[1]


def test_a_worker_that_cannot_answer_ends_with_the_place_and_what_to_do():
    with pytest.raises(MachineError, match="permission denied|read-only") as refused:
        worker.serve(Path("/sys/kernel"), quiet)
    assert refused.value.where == "/sys/kernel" and "mount it writable" in refused.value.fix


def quiet(_: str) -> None:
    pass


def test_status_shows_how_engines_are_while_a_process_works_and_only_then(folder):
    beat(folder, os.getpid())
    with lock.held(folder, quiet):
        facts = status.facts(folder, run.STAGES)
        assert "engine teacher: alive, 812 tok/s\n" in status.render(facts)
        assert facts["engines"][0]["state"] == "alive"
        beat(folder, os.getpid(), seconds_ago=95)
        told = status.render(status.facts(folder, run.STAGES))
        assert re.search(r"\(said (9\d|1\d\d) s ago", told)  # the machine may be slow
        beat(folder, os.getpid() + 1)  # left by a process that was killed
        assert status.facts(folder, run.STAGES)["engines"] == []
    beat(folder, os.getpid())
    assert status.facts(folder, run.STAGES)["engines"] == []


def test_watching_survives_a_corpus_that_cannot_be_read_for_a_moment_and_ends_with_the_run(
    folder, monkeypatch
):
    kept = (folder / CORPUS).read_bytes()
    (folder / CORPUS).write_bytes(b"half a file")

    def meanwhile(_: float) -> None:
        (folder / CORPUS).write_bytes(kept)
        finish(folder)

    monkeypatch.setattr(runs.time, "sleep", meanwhile)
    said = CliRunner().invoke(cli, ["status", "--run", "first", "--watch"])
    assert said.exit_code == 0
    assert "looking again" in said.output and "[9/9] report     done" in said.output


def test_ctrl_c_ends_watching_without_a_word(folder, monkeypatch):
    monkeypatch.setattr(runs.time, "sleep", interrupt)
    said = CliRunner().invoke(cli, ["status", "--run", "first", "--watch"])
    assert said.exit_code == 0 and "[1/9] extract    interrupted" in said.output
