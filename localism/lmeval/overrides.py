"""Task files for the harness: its own, included unchanged, with staged data in place of the Hub's.

Written for each evaluation rather than when data are staged, since they name the place of the
harness and of the data on this machine.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from localism.lmeval.staging import StagedTask
from localism.lmeval.tasks import TASKS, Task

SAMPLES_A_PROBLEM = 10
"""Answers behind pass@10."""
TAG = "!function"
# The harness loads every split that a task names; those that are not staged must not be named.
UNUSED = {"training_split": None, "validation_split": None, "test_split": None}


def write(staged: StagedTask, harness: Path, folder: Path) -> tuple[str, ...]:
    """Write the files of one task into `folder`; returns what to ask the harness for.

    `harness` is the folder of the installed package lm_eval.
    """
    task = TASKS[staged.name]
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, template in task.templates.items():
        config = name.removeprefix("mmlu_") if task.subjects else task.config
        if config in staged.missing:
            continue
        _dump(
            folder / f"{name}.yaml",
            _override(task, staged, name, config, harness / "tasks" / template),
        )
        names.append(name)
    if not task.subjects:
        return tuple(names)
    _dump(folder / f"{task.name}.yaml", _group(task.name, names))
    return (task.name,)


def _override(
    task: Task, staged: StagedTask, name: str, config: str | None, template: Path
) -> dict[str, Any]:
    files = {
        part.split: str((staged.folder / part.file).resolve())
        for part in staged.parts
        if part.config == config
    }
    split = "test_split" if task.split == "test" else "validation_split"
    return {
        "include": str(template),
        "task": name,
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files},
        **UNUSED,
        split: task.split,
        "fewshot_split": task.shots,
        **(_ten_samples() if name == "humaneval_10" else {}),
    }


def _ten_samples() -> dict[str, Any]:
    """Of the harness's humaneval_64, with its temperature, what pass@10 takes."""
    metric = {
        "metric": _Function("lm_eval.tasks.humaneval.utils.pass_at_k"),
        "aggregation": "mean",
        "higher_is_better": True,
        "k": [SAMPLES_A_PROBLEM],
    }
    return {"repeats": SAMPLES_A_PROBLEM, "metric_list": [metric]}


def _group(name: str, members: Sequence[str]) -> dict[str, Any]:
    """The harness's own group names all subjects; this one those that are staged, no others."""
    return {
        "group": name,
        "task": list(members),
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
        "metadata": {"version": 2},
    }


class _Function(str):
    """The name of a function of the harness: a tag in its files, not a text."""


def _dump(file: Path, content: Mapping[str, Any]) -> None:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Knows the harness's tag."""

    Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar(TAG, name))
    file.write_text(yaml.dump(dict(content), Dumper=Dumper, sort_keys=False))
