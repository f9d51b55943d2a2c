"""The real harness on the embedded student and the samples, where there is no network.

This file is also a program: what runs in the namespace, and what a test stops.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import netns
import pytest

from localism.errors import ConfigError, MachineError, StageError, UsageError
from localism.lmeval import running, sandbox
from localism.lmeval.job import Job
from localism.lmeval.running import Settings, run
from localism.lmeval.staging import SAMPLES, stage
from localism.lmeval.tasks import ALL, SUBJECTS, TASKS
from localism.paths import embedded

pytestmark = pytest.mark.component

STUDENT = embedded("embedded:student")
LIMIT = 2


def evaluate(folder: Path, *tasks: str, **settings: Any) -> running.Evaluation:
    """The student on the samples below this folder, which are staged first."""
    stage(SAMPLES, folder / "staged", tasks)
    return run(
        STUDENT, folder / "staged", tasks, folder / "evaluation", folder,
        Settings(limit=LIMIT, **settings),
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All tasks, in a namespace whose only interface is loopback where that is permitted."""
    folder = tmp_path_factory.mktemp("lm-eval")
    command = [sys.executable, __file__, str(folder)]
    if netns.reason_not_permitted() is None:
        command = netns.isolated(command)
    environment = os.environ | {"PYTHONPATH": str(Path(netns.__file__).parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def rows(evaluation: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["part"], row["metric"]): row for row in evaluation["scores"]}


def test_every_task_gives_its_metrics_without_a_network(evaluated) -> None:
    found = rows(evaluated[1])
    expected = {
        "arc_challenge": ["acc", "acc_norm"],
        "winogrande": ["acc"],
        "piqa": ["acc", "acc_norm"],
        "mmlu": ["acc"],
        "mmlu_anatomy": ["acc"],
        "mmlu_astronomy": ["acc"],
        "truthfulqa_mc1": ["acc"],
        "gsm8k": ["exact_match flexible", "exact_match strict"],
        "race": ["acc"],
        "hellaswag": ["acc", "acc_norm"],
        "humaneval": ["pass@1", "pass@10"],
    }
    assert sorted(found) == sorted(
        (part, metric) for part, metrics in expected.items() for metric in metrics
    )
    assert found["mmlu", "acc"]["n"] == 2 * LIMIT
    assert found["race", "acc"]["n"] == LIMIT
    for row in found.values():
        assert row["unscored"] == (LIMIT if row["value"] is None else 0)


def test_nothing_tried_to_leave_this_machine(evaluated) -> None:
    assert not (evaluated[0] / "egress.jsonl").exists()


def test_versions_shots_and_the_harness_are_on_record(evaluated) -> None:
    found, versions = rows(evaluated[1]), evaluated[1]["versions"]
    assert versions["lm_eval"] == "0.4.13"
    assert (versions["backend"], versions["device"], versions["dtype"]) == ("hf", "cpu", "float32")
    assert found["race", "acc"]["note"].startswith("task version 3.0, 0-shot, lm-eval 0.4.13; hf")
    assert found["gsm8k", "exact_match strict"]["note"].startswith("task version 3.0, 5-shot")
    assert found["mmlu", "acc"]["note"].startswith("task version 2, 0-shot")


def samples(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "evaluation/samples" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_prompt_and_answer_is_kept_and_scores_are_their_means(evaluated) -> None:
    folder, evaluation = evaluated
    for (part, metric), row in rows(evaluation).items():
        if part == "mmlu" or row["value"] is None:
            continue
        kept = samples(folder, "humaneval_10" if metric == "pass@10" else part)
        key, _, wanted = metric.partition(" ")
        ours = [one for one in kept if one["filter"].startswith(wanted)]
        assert len(ours) == LIMIT
        assert row["value"] == pytest.approx(100 * sum(one[key] for one in ours) / LIMIT)
        assert all(one["arguments"] and one["resps"] for one in ours)


def test_prompts_are_the_harness_own_around_our_rows(evaluated) -> None:
    (first, *_) = samples(evaluated[0], "piqa")
    goal = first["doc"]["goal"]
    assert first["arguments"][0] == [f"Question: {goal}\nAnswer:", " " + first["doc"]["sol1"]]
    (shots, *_) = samples(evaluated[0], "gsm8k")
    assert shots["arguments"][0][0].count("Question: ") == 6  # five worked ones and the asked one
    (ten, *_) = samples(evaluated[0], "humaneval_10")
    assert len(ten["resps"][0]) == 10


def test_what_the_model_wrote_was_run_in_the_sandbox(evaluated) -> None:
    row = rows(evaluated[1])["humaneval", "pass@10"]
    if row["value"] is None:
        pytest.skip("no sandbox here: " + row["note"])
    assert f"run in the sandbox: of all programs {11 * LIMIT} failed" in row["note"]
    assert "at most 512 tokens, half the model's context" in row["note"]


def test_nothing_but_results_is_left_behind(evaluated) -> None:
    assert sorted(path.name for path in (evaluated[0] / "evaluation").iterdir()) == [
        "job.json", "log.txt", "results", "samples", "tasks",
    ]  # fmt: skip


def test_what_is_done_is_not_run_again_and_what_differs_is(evaluated, tmp_path) -> None:
    folder, evaluation = evaluated
    log = folder / "evaluation/log.txt"
    written = log.stat().st_mtime_ns
    again = evaluate(folder, *TASKS)
    assert json.loads(json.dumps([asdict(row) for row in again.scores])) == evaluation["scores"]
    assert log.stat().st_mtime_ns == written
    keys = Job.read(folder / "evaluation/job.json").keys
    (staged,) = stage(SAMPLES, tmp_path, ["piqa"]).staged
    other = running._job(STUDENT, [staged], tmp_path, Settings(limit=LIMIT + 1), None).keys
    assert keys["piqa"] not in other.values()


class Enough(Exception):
    """What a test stops an evaluation with."""


def test_an_evaluation_that_is_stopped_goes_on_where_it_was(tmp_path, monkeypatch) -> None:
    """Here without a sandbox, by leave: on a machine that has no program unshare."""
    tasks = ("piqa", "humaneval")
    sandbox.find.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    stage(SAMPLES, tmp_path / "staged", tasks)
    folder = tmp_path / "evaluation"
    done = folder / "results/piqa.json"
    seen: list[str] = []

    def watch(text: str) -> None:
        seen.append(text)
        if done.exists():
            raise Enough

    settings = Settings(limit=LIMIT, allow_unsandboxed_code=True)
    where = (STUDENT, tmp_path / "staged", tasks, folder, tmp_path, settings)
    with pytest.raises(Enough):
        run(*where, watch)
    assert seen[0] == "piqa (1 of 2), loading"
    assert not (folder / "results/humaneval.json").exists()
    assert running_children(folder) == []
    written = done.stat().st_mtime_ns
    found = {(row.part, row.metric): row for row in run(*where).scores}
    assert done.stat().st_mtime_ns == written
    assert list(Job.read(folder / "job.json").tasks) == ["humaneval"]
    assert "run WITHOUT a sandbox: of all programs 22 failed" in found["humaneval", "pass@1"].note
    sandbox.find.cache_clear()


def running_children(folder: Path) -> list[str]:
    """Command lines of living processes that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
            except OSError:
                continue
    return [command for command in found if str(folder) in command]


def test_code_is_not_run_without_a_sandbox_unless_that_is_allowed(tmp_path, monkeypatch) -> None:
    sandbox.find.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    started = time.monotonic()
    evaluation = evaluate(tmp_path, "humaneval")
    assert time.monotonic() - started < 5  # no child was started for nothing
    assert [(row.metric, row.value, row.unscored) for row in evaluation.scores] == [
        ("pass@1", None, LIMIT), ("pass@10", None, LIMIT),
    ]  # fmt: skip
    assert evaluation.refused is not None
    assert "--allow-unsandboxed-code" in evaluation.refused.fix
    sandbox.find.cache_clear()


def test_a_child_that_dies_is_an_error_with_its_last_words(tmp_path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in STUDENT.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "no-such-model"}))
    stage(SAMPLES, tmp_path / "staged", ["piqa"])
    with pytest.raises(StageError) as died:
        run(model, tmp_path / "staged", ["piqa"], tmp_path / "evaluation", tmp_path)
    assert died.value.problem == "the evaluation ended with exit code 1"
    assert "log.txt" in died.value.where
    assert "no-such-model" in died.value.where


def test_wrong_input_is_refused_before_anything_is_started(tmp_path, monkeypatch) -> None:
    where = (tmp_path / "staged", ["piqa"], tmp_path / "evaluation", tmp_path)
    with pytest.raises(ConfigError, match="task piqa is not staged"):
        run(STUDENT, *where)
    stage(SAMPLES, tmp_path / "staged", ["piqa"])
    with pytest.raises(UsageError, match="no task 'pica' here; is it piqa?"):
        run(STUDENT, where[0], ["pica"], *where[2:])
    with pytest.raises(ConfigError, match="model folder does not exist"):
        run(tmp_path / "absent", *where)
    with pytest.raises(MachineError, match="vllm backend needs vLLM's build for GPUs"):
        if running._installed("vllm"):
            pytest.skip("the build for GPUs is here")
        run(STUDENT, *where, Settings(backend="vllm"))
    monkeypatch.setattr(running, "HARNESS", "0.0.1")
    with pytest.raises(MachineError, match="lm-evaluation-harness 0.0.1 is not installed") as other:
        run(STUDENT, *where)
    assert "has 0.4.13" in other.value.where
    assert "pip install 'localism[lm-eval]'" in other.value.fix
    assert not (tmp_path / "evaluation").exists()


def test_the_table_of_tasks_is_what_the_installed_harness_has() -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    folder = running.installed_harness() / "tasks"
    for task in ALL:
        for name, template in task.templates.items():
            own = load_yaml(folder / template, resolve_func=False)
            assert own["dataset_path"] == task.hub
            config = name.removeprefix("mmlu_") if task.subjects else task.config
            # Of humaneval the harness takes the only configuration that there is.
            assert own.get("dataset_name") == (None if task.runs_code else config)
            evaluated = own.get("test_split") or own.get("validation_split")
            assert evaluated == task.split
            assert (own.get("fewshot_split") or None) == task.shots
            assert bool(own.get("num_fewshot")) == (task.name == "gsm8k")
            assert bool(own.get("unsafe_code")) == task.runs_code
            assert (own.get("generation_kwargs") or {}).get("max_gen_toks") == task.longest_answer
    assert len(SUBJECTS) == 57


def test_a_folder_that_save_to_disk_wrote_is_staged(tmp_path) -> None:
    import datasets

    file = str(SAMPLES / "gsm8k/main/{}.jsonl")
    data = {name: datasets.Dataset.from_json(file.format(name)) for name in ("train", "test")}
    datasets.DatasetDict(data).save_to_disk(tmp_path / "in/gsm8k")
    (staged,) = stage(tmp_path / "in", tmp_path / "out").staged
    plain = stage(SAMPLES, tmp_path / "plain", ["gsm8k"]).staged[0]
    assert staged.fingerprint == plain.fingerprint
    (next((tmp_path / "in/gsm8k/test").glob("*.arrow"))).unlink()
    with pytest.raises(ConfigError, match="a dataset folder lacks data-00000-of-00001.arrow"):
        stage(tmp_path / "in", tmp_path / "out")


if __name__ == "__main__":
    evaluation = evaluate(Path(sys.argv[1]), *TASKS)
    found = {"scores": [asdict(row) for row in evaluation.scores], "versions": evaluation.versions}
    print(json.dumps(found))
