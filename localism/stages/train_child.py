"""The training process as the stage sees it: started, followed, stopped; what its death means.

Its log, a JSON line a step, becomes progress for people and events of the corpus; a checkpoint is a
row as soon as its folder has its name.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from localism import errors, weights
from localism.context import GRACE_SECONDS, Context
from localism.errors import LocalismError, OutOfTime, StageError
from localism.offline import child_environment
from localism.records import stable_id
from localism.store import now
from localism.training.job import CHECKPOINTS, Job, whole_checkpoints
from localism.training.sets import Training

POLL_SECONDS = 0.2
STOP_SECONDS = 5.0
LOG_LINES = 6


def supervise(context: Context, training: Training, job: Job, file: Path) -> None:
    """Run the child of a job file to its end, following its log; raises what it ended with."""
    environment = child_environment(context.folder) | {"OMP_NUM_THREADS": str(job.threads)}
    log = context.folder / "logs" / "train.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "localism.training.sft", str(file)]
    follower = Follower(context, training, job)
    limit = TimeLimit(context, job)
    with log.open("ab") as output:
        start = output.tell()
        # A session of its own: Ctrl-C reaches this process alone, which then ends the child.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                follower.read()
                limit.check(follower)
                time.sleep(POLL_SECONDS)
        finally:
            _stop(child)
    follower.read()
    if child.returncode or follower.error:
        raise follower.error or explain(job, child.returncode, log, start)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the child and its workers, if it has not ended by itself."""
    if child.poll() is not None:
        return
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


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
            happened_at=now(),
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
            packed = f", packed into {line['rows']:,} rows" if self._job.packing else ""
            text = f"{line['examples']:,} examples{packed}, attention: {line['attention']}"
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
        return OutOfTime(f"{done} of {self._job.epochs} epochs")


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


def explain(job: Job, code: int, log: Path, start: int) -> StageError:
    """What a child that did not explain itself most likely died of."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    last = [line for line in text.splitlines() if line.strip()][-LOG_LINES:]
    where = "\n       ".join([str(log), *last])
    again = "the same command then goes on from the last whole checkpoint"
    lowered = text.lower()
    out_of_memory = "out of memory" in lowered or "can't allocate memory" in lowered
    if out_of_memory or code == -signal.SIGKILL:
        problem = "training ran out of memory" if out_of_memory else "training was killed"
        smaller = "a smaller micro_batch" if job.micro_batch > 1 else "a smaller max_length"
        more = "" if job.gradient_checkpointing else " and gradient_checkpointing = true"
        fix = f"in [train], {smaller}{more}; {again}"
        if not out_of_memory:
            fix = f"most often the machine's memory was full: {fix}"
        return StageError(problem, where=where, fix=fix)
    return StageError(
        f"training ended with exit code {code}", where=where, fix=f"read {log}; {again}"
    )
