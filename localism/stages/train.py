"""Stage train: accepted examples -> one checkpoint an epoch.  Alone: localism train --run NAME

Any other training set of the corpus is trained in the same way, with --on SET; each training has a
folder, a loss curve and checkpoints of its own (training.sets).

The training itself is TRL's and happens in a process of its own (localism.training.sft), so that
torch's memory, threads and failures stay out of this one and the GPUs are free when it ends. This
side writes train/{train,dev}.jsonl and train/job.json, starts the child, follows train/log.jsonl
and records what comes out. A checkpoint is whole when its folder is called epoch-NN.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from localism.context import Context
from localism.errors import OutOfTime, StageError
from localism.stages.train_child import record_checkpoints, supervise
from localism.stages.train_plan import check, check_disk, plan
from localism.tables import number_of
from localism.training.job import (
    RESUME,
    Checkpoint,
    Job,
    drop_resume_states,
    log_lines,
    settle,
    whole_checkpoints,
)
from localism.training.saving import is_sharded
from localism.training.sets import Training, accepted, examples, main_training

__all__ = ["check", "run"]


def run(context: Context, trainings: Sequence[Training] = ()) -> str:
    """Train for the configured epochs, or for those that are missing; returns a summary.

    One training after the other; none named is the run's own.
    """
    chosen = trainings or [main_training(context.config)]
    return "\n".join(_run_one(context, training) for training in chosen)


def _run_one(context: Context, training: Training) -> str:
    if context.time_left() <= 0:
        raise OutOfTime(f"not begun for {training.name}")
    count = write_data(context, training)
    work = work_folder(context, training)
    job, derived = plan(context, training, work, count)
    _check_same_training(context, work, job)
    context.store.add("training", **asdict(training))
    checkpoints = Path(job.checkpoints)
    done = whole_checkpoints(checkpoints)
    if not done or done[-1].epoch < job.epochs:
        last = settle(job)
        _check_resumable(job, last)
        job = replace(job, resume_from=str(last.folder / RESUME) if last else None)
        check_disk(job, last.epoch if last else 0)
        job.write(work / "job.json")
        if last:
            derived += f"; goes on after epoch {last.epoch} of {job.epochs}"
        context.progress.say(training.named(derived))
        context.store.event("recipe", "train", training=training.name, derived=derived)
        supervise(context, training, job, work / "job.json")
    drop_resume_states(checkpoints)
    record_checkpoints(context, training, job, set())
    return training.named(_summary(job, count))


def _check_same_training(context: Context, work: Path, job: Job) -> None:
    """Checkpoints of other data or another recipe must not be continued or taken for this one's."""
    earlier = work / "job.json"
    if not earlier.exists() or not whole_checkpoints(Path(job.checkpoints)):
        return
    # Not Job.read: an older version's job has the identity, but not every field.
    if json.loads(earlier.read_text())["identity"] != job.identity:
        raise StageError(
            "the checkpoints here were trained on other data, another base model or other settings",
            where=job.checkpoints,
            fix=f"`localism fork {context.folder.name} NEW` trains anew in a run of its own",
        )


def _check_resumable(job: Job, last: Checkpoint | None) -> None:
    """The trainer's state of one process and that of sharded ones are not each other's."""
    if last and is_sharded(last.folder / RESUME) != job.sharded:
        was, now = ("one GPU", "several GPUs")[:: 1 if job.sharded else -1]
        raise StageError(
            f"epochs 1 to {last.epoch} were trained on {was}, and on {now} they can't be continued",
            where=str(last.folder / RESUME),
            fix=f"train on {was} again, or move {job.checkpoints} away to start from the first",
        )


# ---- data ----------------------------------------------------------------------------------


def work_folder(context: Context, training: Training) -> Path:
    """Where a training's data, job and log lie."""
    folder = (training.home(context.folder) / "train").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_data(context: Context, training: Training) -> int:
    """The set's examples as prompt and completion; returns how many there are to train on."""
    data = {
        "train": examples(context.store, training.set_name),
        "dev": accepted(context.store, "dev"),
    }
    for split, rows in data.items():
        text = "".join(json.dumps(_conversation(row), ensure_ascii=False) + "\n" for row in rows)
        (work_folder(context, training) / f"{split}.jsonl").write_text(text, encoding="utf-8")
    if not data["train"]:
        raise StageError(
            "no example was accepted, so there is nothing to train on",
            where=f"training set {training.set_name}",
            fix='see why: localism sql "FROM rejections"',
        )
    return len(data["train"])


def _conversation(row: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """As messages, so that the chat template decides how it reads."""
    return {
        "prompt": [{"role": "user", "content": row["instruction"]}],
        "completion": [{"role": "assistant", "content": row["response"]}],
    }


def _summary(job: Job, count: int) -> str:
    done = whole_checkpoints(Path(job.checkpoints))
    base = next((line for line in log_lines(Path(job.log)) if line.get("step") == 0), {})
    text = f"{number_of(len(done), 'checkpoint')} from {number_of(count, 'example')}"
    if base.get("dropped"):
        text += f" ({base['dropped']} had no room for a response and were left out)"
    if base.get("cut"):
        text += f" ({base['cut']} cut at {job.max_length:,} tokens)"
    if done[-1].dev_loss is not None and base.get("dev_loss") is not None:
        text += f"; dev loss {base['dev_loss']:.2f} -> {done[-1].dev_loss:.2f}"
    return text
