"""lm-evaluation-harness for the models of a call: staged tasks, a process a model, rows of scores.

Alone: localism evaluate --run NAME --suite lm-eval
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from localism.config import Served
from localism.context import Context
from localism.errors import UsageError
from localism.gpus import Gpus, find_gpus
from localism.lmeval import running, staging
from localism.lmeval.running import Evaluation, Settings
from localism.lmeval.tasks import TASKS
from localism.offline import child_environment
from localism.paths import embedded
from localism.records import SuiteOptions, stable_id
from localism.serving.handover import Handover
from localism.serving.memory import needed
from localism.serving.placement import place
from localism.stages.pick import Contestant
from localism.suites import rows
from localism.suites.known import LM_EVAL
from localism.suites.records import SuiteScore


def staged_tasks(context: Context, asked: SuiteOptions) -> tuple[Path, list[str], bool]:
    """The folder of staged tasks, their names, and whether they are the samples that ship.

    UsageError where nothing is staged and samples may not be taken.
    """
    folder = Path(context.config.evaluate.staged) / LM_EVAL
    names = [name for name in TASKS if (folder / name / staging.MANIFEST).exists()]
    if names:
        return folder, names, False
    if not (asked.may_sample or context.config.is_rehearsal()):
        raise UsageError(
            "no task of lm-eval is staged",
            where=str(folder),
            fix="localism evaluate stage --suite lm-eval --from DIR brings tasks in "
            "(docs/lm-eval.md); --sample takes the few items of our own",
        )
    folder = context.folder / LM_EVAL / "samples"
    return folder, [one.name for one in staging.stage(staging.SAMPLES, folder).staged], True


def check(context: Context, asked: SuiteOptions) -> None:
    """Raise what run would for a harness or data that are not there, before hours are spent."""
    running.installed_harness()
    staged_tasks(context, asked)


def run(context: Context, asked: SuiteOptions, contestants: Sequence[Contestant]) -> str:
    """Evaluate each model on every staged task; a line for each model."""
    folder, names, is_sample = staged_tasks(context, asked)
    gpus = find_gpus(child_environment(context.folder))
    settings = Settings(
        limit=asked.limit,
        threads=context.config.train.threads or 1,
        tensor_parallel=sharing(context.config.student, gpus),
        gpu_memory=context.config.student.gpu_memory_utilization,
        allow_unsandboxed_code=asked.allow_unsandboxed_code,
    )
    said = []
    taken = gpus.part(0, settings.tensor_parallel)
    memory = Handover(context, "evaluate", "lm-eval", taken, settings.gpu_memory)
    memory.begin_and_block()
    for number, one in enumerate(contestants):

        def watch(detail: str, number: int = number, model: str = one.model_id) -> None:
            context.progress.update(
                number, len(contestants), unit="models", detail=f"{model}: {detail}"
            )

        found = running.run(
            one.folder, folder, names, _home(context, one), context.folder, settings, watch
        )
        _note(context, found, folder, names, asked.limit, is_sample=is_sample)
        scores = [SuiteScore(one.model_id, **vars(score)) for score in found.scores]
        rows.replace_scores(context.store, LM_EVAL, "", scores)
        if found.refused:
            context.warn("evaluate", found.refused.problem)
        said.append(_summary(one.model_id, found))
    memory.end_and_block()
    sample = " (samples, not the benchmarks)" if is_sample else ""
    return "\n".join(f"lm-eval{sample} {line}" for line in said)


def sharing(student: Served, gpus: Gpus) -> int:
    """GPUs that the harness shares a model between, as an engine of ours would."""
    if student.endpoints or not gpus.number:
        return student.tensor_parallel or 1
    return place(needed(embedded(student.path), student), student, gpus, "student").tensor


def _home(context: Context, one: Contestant) -> Path:
    """Where this model's results lie; its id as a folder name."""
    return context.folder / LM_EVAL / re.sub(r"[^\w.-]+", "_", one.model_id)


def _note(
    context: Context,
    found: Evaluation,
    folder: Path,
    names: Sequence[str],
    limit: int | None,
    *,
    is_sample: bool,
) -> None:
    store = context.store
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    store.execute("DELETE FROM suite WHERE suite = ?", [LM_EVAL])
    store.add(
        "suite",
        suite=LM_EVAL,
        protocol=LM_EVAL,
        source="localism" if is_sample else str(folder),
        fingerprint=stable_id(found.fingerprint),
        items=sum(
            min(limit or one.items, one.items) for one in map(partial(staging.load, folder), names)
        ),
        is_sample=is_sample,
        note=("a sample that ships with localism, not the benchmarks; " if is_sample else "")
        + versions,
    )


def _summary(model_id: str, found: Evaluation) -> str:
    """epoch-06: arc_challenge acc 35.1, gsm8k exact_match strict 4.0, ..."""
    shown: dict[str, str] = {}
    for score in found.scores:
        if score.part in TASKS and score.part not in shown:
            value = "–" if score.value is None else f"{score.value:.1f}"
            shown[score.part] = f"{score.part} {score.metric} {value}"
    return f"{model_id}: {', '.join(shown.values())}"
