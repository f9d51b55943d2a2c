"""Results of the harness -> rows with intervals, and the notes that belong beside them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from localism.lmeval.overrides import SAMPLES_A_PROBLEM
from localism.lmeval.staging import StagedTask
from localism.lmeval.tasks import HARNESS, TASKS
from localism.tables import number_of

# 97.5% quantile of the normal distribution.
Z = 1.959964
METRICS = {
    "exact_match,strict-match": "exact_match strict",
    "exact_match,flexible-extract": "exact_match flexible",
}
"""What the harness calls them by metric and filter -> what we do; else the metric alone."""


@dataclass(frozen=True)
class TaskScore:
    """A row of table suite_score but for suite, model and judge."""

    metric: str
    """acc, acc_norm, exact_match strict or flexible, pass@1, pass@10."""
    part: str
    """The task; of mmlu also each subject, as mmlu_anatomy."""
    value: float | None
    """Percent; None when it was not run."""
    low: float | None
    """Lower end of the 95% interval; None where all items came out alike, which tells of none."""
    high: float | None
    """Upper end."""
    n: int
    """Items behind the value."""
    unscored: int
    """Items that should be behind it and are not."""
    note: str
    """Version, examples in the prompt, harness, data, and whether and where code was run."""


def scores(staged: StagedTask, result: Mapping[str, Any], limit: int | None) -> Iterator[TaskScore]:
    """The rows of one task, the task's own before those of its subjects."""
    own = sorted(result["results"], key=lambda name: (name != staged.name, name))
    for name in own:
        values = result["results"][name]
        note = "; ".join(_notes(staged, result, name, limit))
        for key, value in values.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            low, high = _interval(value, values.get(f"{metric}_stderr,{filtered}"))
            yield TaskScore(
                METRICS.get(key, metric), _part(staged, name), 100 * value, low, high,
                values["sample_len"], 0, note,
            )  # fmt: skip


def not_run(staged: StagedTask, limit: int | None, reason: str) -> Iterator[TaskScore]:
    """The rows of a task that runs code where that was refused: unscored, and counted."""
    count = min(limit or staged.items, staged.items)
    note = f"not run, for there is no sandbox here: {reason}"
    for metric in ("pass@1", f"pass@{SAMPLES_A_PROBLEM}"):
        yield TaskScore(metric, staged.name, None, None, None, 0, count, note)


def _part(staged: StagedTask, name: str) -> str:
    """humaneval_10 is how the harness is asked for pass@10, not another benchmark."""
    return name if TASKS[staged.name].subjects else staged.name


def _interval(value: float, error: Any) -> tuple[float | None, float | None]:
    if not isinstance(error, int | float) or not error > 0:
        return None, None
    return max(0.0, 100 * (value - Z * error)), min(100.0, 100 * (value + Z * error))


def _notes(
    staged: StagedTask, result: Mapping[str, Any], name: str, limit: int | None
) -> Iterator[str]:
    task = TASKS[staged.name]
    shots = result["n-shot"].get(name, 0)
    yield f"task version {result['versions'].get(name)}, {shots}-shot, lm-eval {HARNESS}"
    yield f"{result['made_with']['backend']} on {result['made_with']['device']}"
    if limit:
        first = number_of(limit, "item")
        yield f"the first {first}" + (" of each subject" if task.subjects else "")
    if staged.note:
        yield staged.note
    if name == f"humaneval_{SAMPLES_A_PROBLEM}":
        yield f"{SAMPLES_A_PROBLEM} answers to each, temperature 0.2, top_p 0.95"
    if task.runs_code:
        where = "in the sandbox" if result["sandboxed"] else "WITHOUT a sandbox"
        ended = ", ".join(f"{count:,} {how}" for how, count in sorted(result["outcomes"].items()))
        yield f"the model's code was run {where}: of all programs {ended}"
    if result["answer_tokens"]:
        yield f"answers of at most {result['answer_tokens']} tokens, half the model's context"
