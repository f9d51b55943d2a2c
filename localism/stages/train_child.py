"""The training process as the stage sees it: started, followed, stopped; what its death means.

Its log, a JSON line a step, becomes progress for people and events of the corpus; a checkpoint is a
row as soon as its folder has its name.
"""

import json
import math
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localism import errors, weights
from localism.context import GRACE_SECONDS, Context
from localism.errors import LocalismError, OutOfTime, StageError
from localism.gpus import Gpus, find_gpus
from localism.offline import child_environment
from localism.processes import session_processes
from localism.records import stable_id
from localism.serving.handover import Handover
from localism.serving.keeper import LOG_BYTES, rotate
from localism.stages.train_machines import gathered
from localism.stages.train_plan import MEMORY_SHARE
from localism.tables import number_of
from localism.training import beats, launch
from localism.training.call import log_name
from localism.training.job import CHECKPOINTS, Job, whole_checkpoints
from localism.training.sets import Training

POLL_SECONDS = 0.2
LOG_LINES = 6
ERROR = re.compile(r"(\[rank\d+\]: )?[\w.]*(Error|Exception|Interrupt): ")


def supervise(context: Context, training: Training, job: Job, file: Path) -> None:
    """Run the child of a job file to its end, following its log; raises what it ended with."""
    environment = child_environment(context.folder, "train: trainer")
    environment["OMP_NUM_THREADS"] = str(job.threads)
    log = context.folder / "logs" / "train.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        rotate(log)  # between trainings: a trainer prints little, and holds its log open
    before = _sizes(log.parent)
    gpus = find_gpus(environment) if job.device == "cuda" else Gpus(0, None)
    memory = Handover(context, "train", "training", gpus, MEMORY_SHARE)
    memory.begin_and_block()
    beats.clear(file.parent)
    with gathered(context, job, file) as place:
        follower = Follower(context, training, job)
        limit = TimeLimit(context, job)
        watch = beats.Watch(file.parent, range(job.machines), job.silence_seconds)
        child = launch.start(file, log, environment, place)
        try:
            while child.poll() is None:
                follower.read()
                limit.check(follower)
                if silence := watch.silent():
                    raise fell_silent(silence)
                time.sleep(POLL_SECONDS)
        finally:
            launch.stop(child)
            left = session_processes(child.pid)
            context.store.event("training_ended", "train", code=child.returncode, left=left)
        follower.read()
        if child.returncode or follower.error:
            raise follower.error or explain(job, child.returncode, log, before)
    memory.end_and_block()


def _sizes(folder: Path) -> dict[str, int]:
    """How long the logs of trainings are now: what is written from here on is this one's."""
    return {path.name: path.stat().st_size for path in folder.glob("train*.log")}


class Follower:
    """Reads the child's log as it grows: progress for people, rows for the corpus."""

    def __init__(self, context: Context, training: Training, job: Job) -> None:
        self.error: LocalismError | None = None
        self._context, self._training, self._job = context, training, job
        self._log = Path(job.log)
        self._offset = 0
        self._old = self._log.stat().st_size  # a training that goes on keeps its log
        self._recorded: set[str] = set()
        record_checkpoints(context, training, job, self._recorded)
        context.progress.update(0, unit="steps", detail="loading the student")

    @property
    def epochs(self) -> int:
        """How many are done."""
        return len(self._recorded)

    @property
    def has_begun(self) -> bool:
        """The child has taken its first step, or measured the base model before it."""
        return self._offset > self._old

    def read(self) -> None:
        """Take in what was written since the last call."""
        with self._log.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))
        if whole:
            record_checkpoints(self._context, self._training, self._job, self._recorded)

    def _take(self, line: dict[str, Any]) -> None:
        if "error" in line:
            kind, texts = line["error"].pop("kind"), line["error"]
            self.error = getattr(errors, kind)(texts.pop("problem"), **texts)
            return
        self._context.store.add(
            "event",
            event_id=stable_id("train_step", self._training.name, line["step"]),
            happened_at=self._context.store.now(),
            stage="train",
            kind="train_step",
            detail=json.dumps({"training": self._training.name, **line}),
        )
        if line["step"]:
            self._context.progress.update(
                line["step"],
                line["steps"],
                unit="steps",
                detail=f"loss {line['loss']:.3f}   rate {line['learning_rate']:.1e}   "
                f"epoch {math.ceil(line['epoch'])}/{self._job.epochs}   "
                f"{line['tokens_per_second']:,.0f} tokens/s   {line['memory_gb']:.1f} GB",
            )
        else:
            packed = f", packed into {number_of(line['rows'], 'row')}" if self._job.packing else ""
            text = (
                f"{number_of(line['examples'], 'example')}{packed}, attention: {line['attention']}"
            )
            self._context.progress.say(self._training.named(text))


class TimeLimit:
    """Ends a training between two epochs when the next would not fit in the time left."""

    def __init__(self, context: Context, job: Job) -> None:
        self._context, self._job = context, job
        self._began: float | None = None
        self._done = 0

    def check(self, follower: Follower) -> None:
        """Raise OutOfTime where to stop: there, or wherever the child is when the grace is over."""
        left, now_done = self._context.time_left(), follower.epochs
        if now_done < self._job.epochs and left < -GRACE_SECONDS:
            raise self._over(now_done)
        if not follower.has_begun:
            return
        moment = time.monotonic()
        if self._began is not None and now_done > self._done:
            if now_done < self._job.epochs and left < moment - self._began:
                raise self._over(now_done)
            self._began = None
        if self._began is None:
            self._began, self._done = moment, now_done

    def _over(self, done: int) -> OutOfTime:
        return OutOfTime(f"{done} of {number_of(self._job.epochs, 'epoch')}")


def record_checkpoints(context: Context, training: Training, job: Job, recorded: set[str]) -> None:
    """A row for each whole checkpoint that is not among those recorded; adds them to it."""
    for checkpoint in whole_checkpoints(Path(job.checkpoints)):
        name = checkpoint.folder.name
        if name in recorded:
            continue
        recorded.add(name)
        context.store.add(
            "checkpoint",
            checkpoint_id=training.model_id(name),
            training=training.name,
            epoch=checkpoint.epoch,
            step=checkpoint.step,
            path=str(
                (training.home(context.folder) / CHECKPOINTS / name).relative_to(context.folder)
            ),
            fingerprint=weights.fingerprint(checkpoint.folder),
            train_loss=checkpoint.train_loss,
            dev_loss=checkpoint.dev_loss,
        )


def fell_silent(silence: beats.Silence) -> StageError:
    """A machine of the training gives no sign of life."""
    return StageError(
        f"machine {silence.host} fell silent: no sign of life for {silence.seconds:.0f} s",
        where=f"[train].silence_seconds, {silence.file}",
        fix="look whether it runs and sees the run's folder, or train with fewer [train].nodes; "
        "the same command then goes on from the last whole checkpoint",
    )


def explain(job: Job, code: int, log: Path, before: Mapping[str, int]) -> LocalismError:
    """What a child that did not explain itself most likely died of.

    `before`: sizes of the logs before it began, its own and those of helping machines beside it.
    """
    others = set(log.parent.glob(log_name("*"))) if job.machines > 1 else set()
    texts = {path: _text(path, before.get(path.name, 0)) for path in [log, *sorted(others)]}
    last = _last_words(texts[log])
    spoke = [str(path) for path, text in texts.items() if text] or [str(log)]
    where = "\n       ".join([*spoke, *last])
    again = "the same command then goes on from the last whole checkpoint"
    checkpoints = Path(job.checkpoints)
    written_to = checkpoints if checkpoints.exists() else log.parent
    if full := errors.of_a_full_disk("".join(texts.values()), written_to):
        return full
    lowered = "".join(texts.values()).lower()
    out_of_memory = "out of memory" in lowered or "can't allocate memory" in lowered
    if out_of_memory or code == -signal.SIGKILL:
        problem = "training ran out of memory" if out_of_memory else "training was killed"
        smaller = "a smaller micro_batch" if job.micro_batch > 1 else "a smaller max_length"
        more = "" if job.gradient_checkpointing else " and gradient_checkpointing = true"
        fix = f"in [train], {smaller}{more}; {again}"
        if not out_of_memory:
            fix = f"most often the machine's memory was full: {fix}"
        return StageError(problem, where=where, fix=fix)
    lost = "; perhaps another machine was lost" if job.machines > 1 else ""
    fix = f"read {log}; {again}"
    if job.machines > 1:
        fix += "; if the machines don't reach each other, name their network interface in "
        fix += "NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME"
    return StageError(f"training ended with exit code {code}{lost}", where=where, fix=fix)


def _last_words(text: str) -> list[str]:
    """The error that a log ends with; torch's launcher writes its own, which says less, behind."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR.match(line) and "ChildFailedError" not in line]
    return errors[-1:] or lines[-LOG_LINES:]


def _text(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")
