"""--budget-hours and --calibrate as a user types them: what is refused, and what is said."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from engines import NewContext, embedded_config
from stubs import Stub, stub

from localism import progress, run, status
from localism.cli.main import cli
from localism.prompting.packs import packaged
from localism.stages import generate_trial
from localism.stages.generate import outcome
from localism.store import now

__all__ = ["stub"]


@pytest.mark.parametrize("hours", ["-1", "0", "nan", "inf", "soon", ""])
@pytest.mark.parametrize("command", ["run-all", "generate", "report"])
def test_hours_that_are_no_time_are_refused(command: str, hours: str) -> None:
    result = CliRunner().invoke(cli, [command, "--budget-hours", hours])
    assert result.exit_code == 2
    assert "is not a number above 0" in result.output


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--calibrate", "--seconds", "0"], "is not a number above 0"),
        (["--calibrate", "--watts", "-5"], "is not a number above 0"),
        (["--seconds", "60"], "belong to --calibrate"),
        (["--json"], "belong to --calibrate"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(options: list[str], problem: str) -> None:
    result = CliRunner().invoke(cli, ["generate", *options])
    assert result.exit_code == 2 and problem in result.output


def localism(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "localism", *arguments, "--run", str(folder / "run"), "--plain"],
        capture_output=True,
        text=True,
        cwd=folder,
    )


def test_a_budget_that_is_over_at_once_says_what_is_left_and_exits_with_6(tmp_path: Path) -> None:
    done = localism(
        tmp_path, "run-all", "--budget-hours", "1e-9", "--models", str(packaged("models.toml"))
    )
    assert done.returncode == 6
    last = done.stderr.splitlines()[-1]
    assert last == (
        "the time is up: extract not done; then cluster, mix, generate, curate, train, pick,"
        " evaluate, report. The same command continues."
    )
    assert "Traceback" not in done.stderr


def test_a_trial_without_a_plan_names_the_stage_that_is_missing(tmp_path: Path) -> None:
    done = localism(tmp_path, "generate", "--calibrate", "--models", str(packaged("models.toml")))
    assert done.returncode == 5
    assert "fix:   localism extract" in done.stderr and "Traceback" not in done.stderr


def test_a_trial_shows_its_seconds_and_what_was_done_in_them(
    new_context: NewContext, stub: Callable[..., Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_trial, "MADE_UP_MIXES", 50)
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.05)
    server = stub(lambda *_: (200, 0.05))
    behind = {"path": "", "endpoints": (server.url,)}
    context = new_context(embedded_config(teacher=behind, generate={"requests_in_flight": 2}))
    seen = io.StringIO()
    context = replace(context, progress=progress.Progress(seen, plain=True))
    generate_trial.made_up_plan(context)
    facts = generate_trial.calibrate(context, 2.0, None)
    text = seen.getvalue()
    assert re.search(r" 1 of 2 s   \d+ turns?, [1-9]\d* conversations? finished ", text), text
    assert " / 50" not in text and "%" not in text, "it is no beginning of the whole plan"
    assert f" {facts['trial']['finished']:,} of them finished" in text.splitlines()[-1]


def test_what_is_left_is_counted_in_the_units_of_the_books(new_context: NewContext) -> None:
    context = new_context()
    store = context.store
    for number in range(5):
        store.add("mix", mix_id=str(number), ordinal=number, k=2, query_type_id=None, split="train")
    for number in range(2):
        store.add("candidate", mix_id=str(number), status="written", reason=None, turn_id=None)
    for stage in ("extract", "cluster", "mix"):
        store.event("stage_finished", stage, summary="")
    store.close()
    assert status.left(context.folder, run.STAGES) == (
        "the time is up: extract, cluster, mix done; generate 2 of 5 mixes, 3 left;"
        " then curate, train, pick, evaluate, report. The same command continues."
    )
    assert status.left(context.folder, ["generate"], "half-way") == (
        "the time is up: generate half-way. The same command continues."
    )
    # Stages of which another training than the run's own is left.
    assert status.left(context.folder, ["mix"], "1 of 3 epochs") == (
        "the time is up: mix 1 of 3 epochs. The same command continues."
    )


def ask(store, turn_id: str, after: float, seconds: float) -> None:
    """A turn of stage generate that began so many seconds from now, with 100 tokens."""
    store.add(
        "turn", turn_id=turn_id, stage="generate", role="teacher", template="draft", prompt="",
        prompt_hash="", model_fingerprint="", sampling="{}", sample=0, text="",
        finish_reason="stop", prompt_tokens=10, completion_tokens=100, seconds=seconds,
        finished_at=now() + timedelta(seconds=after + seconds),
    )  # fmt: skip


def test_a_prediction_is_compared_with_the_time_in_which_something_was_asked(
    new_context: NewContext,
) -> None:
    store = new_context().store
    store.add("mix", mix_id="m", ordinal=0, k=2, query_type_id=None, split="train")
    ask(store, "in the trial", -50.0, 20.0)
    assert outcome(store) == ""
    left = {"seconds": [70.0, 60.0, 80.0], "completion_tokens": [390.0, 380.0, 400.0]}
    store.event("calibrated", "generate", mixes=1, mixes_left=1, left=left)
    # Two that overlap, one inside another, and one after a night in which the run was stopped.
    ask(store, "a", 1.0, 20.0)
    ask(store, "b", 11.0, 20.0)
    ask(store, "c", 12.0, 5.0)
    ask(store, "d", 40_000.0, 30.0)
    assert outcome(store) == (
        "after the trial, predicted 1m10s and 390 completion tokens; took 1m00s and 400"
    )
    checked = json.loads(store.value("SELECT detail FROM event WHERE kind = 'prediction_checked'"))
    # Each row is dated by a clock that goes on.
    assert checked["actual"]["seconds"] == [pytest.approx(60.0, abs=0.5)]
    assert checked["predicted"]["completion_tokens"] == [390.0, 380.0, 400.0]


def test_a_prediction_of_another_plan_is_compared_with_nothing(new_context: NewContext) -> None:
    store = new_context().store
    store.add("mix", mix_id="m", ordinal=0, k=2, query_type_id=None, split="train")
    left = {"seconds": [70.0] * 3, "completion_tokens": [390.0] * 3}
    store.event("calibrated", "generate", mixes=900, mixes_left=1, left=left)
    ask(store, "a", 1.0, 20.0)
    assert outcome(store) == ""
