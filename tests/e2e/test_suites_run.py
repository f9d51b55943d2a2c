"""Benchmarks evaluated on a finished run, in one command and with two engine starts."""

import json
import shutil
import subprocess

import netns
import pytest
from pipeline import command

from localism import offline
from localism.reader import read
from localism.suites.known import LM_EVAL, PROTOCOLS

ITEMS = 2
SUITES = (*PROTOCOLS, LM_EVAL)
ASKED = [part for name in SUITES for part in ("--suite", name)]


@pytest.fixture(scope="module")
def evaluated(finished, tmp_path_factory):
    """Every suite on the picked model and the base, in one command."""
    folder = tmp_path_factory.mktemp("suites") / "small"
    shutil.copytree(finished.folder, folder)
    words = command(folder, "evaluate", *ASKED, "--limit", str(ITEMS), "--plain")
    if netns.reason_not_permitted() is None:
        words = netns.isolated(words)
    done = subprocess.run(words, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return folder, done.stdout + done.stderr


def rows(folder, sql):
    return read(folder, sql).rows


def test_every_suite_has_answers_judgments_and_a_score_of_both_models(evaluated):
    folder, _ = evaluated
    found = rows(
        folder,
        "SELECT suite, count(DISTINCT model_id), count(DISTINCT metric) > 0 FROM evaluations"
        " GROUP BY suite ORDER BY suite",
    )
    assert found == [[name, 2, True] for name in sorted(SUITES)]
    asked = rows(
        folder, "SELECT suite, count(DISTINCT item_id) FROM suite_answer GROUP BY ALL ORDER BY ALL"
    )
    assert asked == [[name, ITEMS] for name in sorted(PROTOCOLS)]


def test_what_was_not_scored_has_its_reason(evaluated):
    folder, _ = evaluated
    assert rows(
        folder, "SELECT count(*) FROM suite_judgment WHERE value IS NULL AND reason IS NULL"
    ) == [[0]]


def test_scores_count_what_they_left_out(evaluated):
    folder, _ = evaluated
    # As WildBench's mean over tasks, when two items do not reach all of them.
    unexplained = "value IS NULL AND n > 0 AND note IS NULL"
    assert rows(folder, f"SELECT count(*) FROM suite_score WHERE {unexplained}") == [[0]]
    assert rows(folder, "SELECT min(n + unscored) > 0 FROM suite_score WHERE part = ''") == [[True]]


def test_all_suites_share_two_engine_starts(evaluated):
    folder, _ = evaluated
    started = rows(
        folder,
        "SELECT count(*) FROM event WHERE kind = 'engine_started' AND happened_at >"
        " (SELECT min(happened_at) FROM event WHERE kind = 'stage_finished' AND stage = 'report')",
    )
    assert started == [[2]]


def test_the_summary_calls_a_sample_a_sample(evaluated):
    _, output = evaluated
    assert output.count("(sample, not the benchmark)") == len(PROTOCOLS)
    assert output.count("(samples, not the benchmarks)") == 2  # a line for each model


def test_what_lm_eval_measured_has_its_versions_and_the_code_ran_in_the_sandbox(evaluated):
    folder, _ = evaluated
    found = dict(rows(folder, "SELECT metric, any_value(note) FROM evaluations GROUP BY metric"))
    assert "lm-eval 0.4.13" in found["arc_challenge acc"]
    assert "the model's code was run in the sandbox" in found["humaneval pass@1"]


def test_nothing_tried_to_leave_the_machine(evaluated):
    folder, _ = evaluated
    assert offline.refused_connections(folder) == []


def test_the_same_command_again_asks_no_model(evaluated):
    folder, _ = evaluated
    calls = rows(folder, "SELECT count(*) FROM turn")
    scores = rows(folder, "FROM suite_score ORDER BY ALL")
    again = command(folder, "evaluate", *ASKED, "--limit", str(ITEMS), "--plain")
    done = subprocess.run(again, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert rows(folder, "SELECT count(*) FROM turn") == calls
    assert rows(folder, "FROM suite_score ORDER BY ALL") == scores


def test_a_model_folder_of_ones_own_is_named_after_its_folder(evaluated, tmp_path):
    folder, _ = evaluated
    mine = tmp_path / "my-model"
    path = rows(folder, "SELECT path FROM checkpoint ORDER BY epoch LIMIT 1")[0][0]
    shutil.copytree(folder / path, mine)
    words = command(folder, "evaluate", "--suite", "alpacaeval", "--limit", str(ITEMS), "--plain")
    # The judge beside the student, as on a machine with GPUs for both.
    words += ["--set", "pick.beside=yes", "--model", str(mine)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    models = rows(folder, "SELECT DISTINCT model_id FROM evaluations WHERE suite = 'alpacaeval'")
    assert ["my-model"] in models and len(models) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--suite", "alpaca"], "did you mean alpacaeval?"),
        (["--suite", "alpacaeval", "--model", "epoch-99"], "no model 'epoch-99'"),
        (["--suite", "alpacaeval", "--judge", "/nowhere"], "/nowhere"),
    ],
)
def test_a_mistake_is_told_before_an_engine_starts(evaluated, arguments, says):
    folder, _ = evaluated
    words = command(folder, "evaluate", *arguments, "--plain")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode in (2, 3)
    assert says in done.stderr and "Traceback" not in done.stderr


def test_the_report_is_made_again_with_the_suites(evaluated):
    folder, output = evaluated
    assert "[9/9] report" in output
    page = (folder / "report.html").read_text()
    assert "alpacaeval" in page and "not the benchmark" in page
    facts = subprocess.run(
        command(folder, "status", "--json"), capture_output=True, text=True, timeout=60
    )
    assert json.loads(facts.stdout)
