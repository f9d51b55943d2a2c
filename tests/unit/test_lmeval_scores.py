"""The harness's task files as we write them, and its results as rows with intervals and notes."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from localism.lmeval import overrides
from localism.lmeval.code_eval import pass_at
from localism.lmeval.scores import not_run, scores
from localism.lmeval.staging import SAMPLES, StagedTask, stage
from localism.lmeval.tasks import TASKS


class Loader(yaml.SafeLoader):
    """Reads the harness's tag as text."""


Loader.add_constructor("!function", lambda loader, node: f"!function {node.value}")


def staged(tmp_path: Path, name: str) -> StagedTask:
    return stage(SAMPLES, tmp_path / "staged", [name]).staged[0]


def written(tmp_path: Path, name: str) -> tuple[tuple[str, ...], dict[str, dict[str, Any]]]:
    """What to ask the harness for, and the files by name."""
    folder = tmp_path / "tasks"
    asked = overrides.write(staged(tmp_path, name), Path("/harness"), folder)
    files = {path.stem: path.read_text() for path in folder.iterdir()}
    return asked, {key: yaml.load(text, Loader) for key, text in files.items()}


def test_a_task_file_includes_the_harness_own_and_changes_only_where_the_data_are(tmp_path):
    asked, files = written(tmp_path, "arc_challenge")
    assert asked == ("arc_challenge",)
    data = tmp_path / "staged/arc_challenge/ARC-Challenge/test.parquet"
    assert files == {
        "arc_challenge": {
            "include": "/harness/tasks/arc/arc_challenge.yaml",
            "task": "arc_challenge",
            "dataset_path": "parquet",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "training_split": None,
            "validation_split": None,
            "test_split": "test",
            "fewshot_split": None,
        }
    }
    assert data.exists()


@pytest.mark.parametrize(
    ("name", "evaluated", "shots"),
    [("hellaswag", "validation", None), ("gsm8k", "test", "train"), ("race", "test", None)],
)
def test_only_staged_splits_are_named(tmp_path, name, evaluated, shots):
    _, files = written(tmp_path, name)
    named = {files[name][f"{kind}_split"] for kind in ("training", "validation", "test")}
    assert named - {None} == {evaluated}
    assert files[name]["fewshot_split"] == shots
    assert set(files[name]["dataset_kwargs"]["data_files"]) == {evaluated, shots} - {None}


def test_the_group_of_mmlu_has_the_staged_subjects_and_no_others(tmp_path):
    asked, files = written(tmp_path, "mmlu")
    assert asked == ("mmlu",)
    assert set(files) == {"mmlu", "mmlu_anatomy", "mmlu_astronomy"}
    assert files["mmlu"]["task"] == ["mmlu_anatomy", "mmlu_astronomy"]
    assert files["mmlu"]["aggregate_metric_list"] == [{"metric": "acc", "weight_by_size": True}]


def test_ten_samples_a_problem_are_asked_for_beside_the_greedy_one(tmp_path):
    asked, files = written(tmp_path, "humaneval")
    assert asked == ("humaneval", "humaneval_10")
    assert "repeats" not in files["humaneval"]
    assert files["humaneval_10"]["repeats"] == 10
    (metric,) = files["humaneval_10"]["metric_list"]
    assert metric["k"] == [10]
    assert metric["metric"] == "!function lm_eval.tasks.humaneval.utils.pass_at_k"


@pytest.mark.parametrize(("k", "total", "passed"), [(1, 4, 1), (2, 5, 2), (3, 6, 6), (10, 12, 1)])
def test_pass_at_k_is_the_chance_over_all_draws(k, total, passed):
    draws = list(combinations(range(total), k))
    wins = sum(any(one < passed for one in draw) for draw in draws)
    assert pass_at(k, total, passed) == pytest.approx(wins / len(draws), abs=1e-12)
    assert pass_at(k, total, 0) == 0


def result(values: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "results": values,
        "versions": {name: 1.0 for name in values},
        "n-shot": {name: 0 for name in values},
        "outcomes": {},
        "answer_tokens": None,
        "made_with": {"backend": "hf", "device": "cpu"},
        "sandboxed": True,
    } | more


def test_values_are_percent_with_the_interval_of_the_standard_error(tmp_path):
    values = {
        "name": "gsm8k",
        "alias": "gsm8k",
        "sample_len": 100,
        "exact_match,strict-match": 0.4,
        "exact_match_stderr,strict-match": 0.05,
        "exact_match,flexible-extract": 0.99,
        "exact_match_stderr,flexible-extract": 0.02,
    }
    found = result({"gsm8k": values}, **{"n-shot": {"gsm8k": 5}, "versions": {"gsm8k": 3.0}})
    strict, flexible = scores(staged(tmp_path, "gsm8k"), found, None)
    assert (strict.metric, strict.part, strict.value, strict.n) == (
        "exact_match strict", "gsm8k", 40, 100,
    )  # fmt: skip
    assert (strict.low, strict.high) == pytest.approx((30.2, 49.8), abs=0.01)
    assert (flexible.metric, flexible.high) == ("exact_match flexible", 100)
    assert strict.note == (
        "task version 3.0, 5-shot, lm-eval 0.4.13; hf on cpu; "
        "20 items of localism's own, not the benchmark"
    )


@pytest.mark.parametrize("error", ["N/A", 0.0, None])
def test_no_interval_is_made_up_where_the_standard_error_tells_nothing(tmp_path, error):
    values = {"sample_len": 1, "acc,none": 1.0, "acc_stderr,none": error}
    (row,) = scores(staged(tmp_path, "race"), result({"race": values}), 1)
    assert (row.value, row.low, row.high) == (100, None, None)
    assert "the first 1 item;" in row.note


def test_mmlu_has_a_row_for_the_whole_before_those_of_its_subjects(tmp_path):
    values = {
        name: {"sample_len": 20, "acc,none": 0.5, "acc_stderr,none": 0.1}
        for name in ("mmlu_astronomy", "mmlu", "mmlu_anatomy")
    }
    rows = list(scores(staged(tmp_path, "mmlu"), result(values), 3))
    assert [row.part for row in rows] == ["mmlu", "mmlu_anatomy", "mmlu_astronomy"]
    assert "the first 3 items of each subject" in rows[0].note


def humaneval() -> dict[str, Any]:
    values = {
        "humaneval": {"sample_len": 20, "pass@1,create_test": 0.5},
        "humaneval_10": {"sample_len": 20, "pass@10,create_test": 0.75},
    }
    ended = {"passed": 110, "failed": 108, "timed out": 2}
    return result(values, outcomes=ended, answer_tokens=512)


def test_humaneval_is_one_part_and_its_note_says_where_the_code_was_run(tmp_path):
    task = staged(tmp_path, "humaneval")
    one, ten = scores(task, humaneval(), None)
    assert [(row.metric, row.part, row.value) for row in (one, ten)] == [
        ("pass@1", "humaneval", 50),
        ("pass@10", "humaneval", 75),
    ]
    assert "run in the sandbox: of all programs 108 failed, 110 passed, 2 timed out" in one.note
    assert "10 answers to each, temperature 0.2, top_p 0.95" in ten.note
    assert "10 answers" not in one.note
    assert "at most 512 tokens, half the model's context" in one.note
    (one, _) = scores(task, humaneval() | {"sandboxed": False}, None)
    assert "run WITHOUT a sandbox" in one.note


@pytest.mark.parametrize(("limit", "unscored"), [(None, 20), (5, 5), (50, 20)])
def test_code_that_was_not_run_is_unscored_and_counted(tmp_path, limit, unscored):
    rows = list(not_run(staged(tmp_path, "humaneval"), limit, "unshare: not permitted"))
    assert [(row.metric, row.value, row.n, row.unscored) for row in rows] == [
        ("pass@1", None, 0, unscored),
        ("pass@10", None, 0, unscored),
    ]
    assert "unshare: not permitted" in rows[0].note


def test_the_table_names_each_task_once_and_every_split_it_needs():
    assert len(TASKS) == 9
    assert {task.name for task in TASKS.values() if task.runs_code} == {"humaneval"}
    assert TASKS["mmlu"].splits == ("test", "dev")
    assert len(TASKS["mmlu"].configs) == 57
