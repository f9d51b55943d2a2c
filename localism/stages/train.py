"""Stage train: accepted examples -> one checkpoint an epoch.  Alone: localism train --run NAME

Any other training set of the corpus is trained in the same way, with --on SET; each training has a
folder, a loss curve and checkpoints of its own (training.sets).

The training itself is TRL's and happens in a process of its own (localism.training.sft), so that
torch's memory, threads and failures stay out of this one and the GPUs are free when it ends. This
side writes train/{train,dev}.jsonl and train/job.json, starts the child, follows train/log.jsonl
and records what comes out. A checkpoint is whole when its folder is called epoch-NN.
"""

import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from localism import errors, weights
from localism.config import Config
from localism.context import GRACE_SECONDS, Context
from localism.errors import ConfigError, LocalismError, MachineError, OutOfTime, StageError
from localism.offline import child_environment
from localism.paths import embedded
from localism.records import stable_id
from localism.store import now
from localism.training.job import CHECKPOINTS, Job, log_lines, settle, whole_checkpoints
from localism.training.sets import Training, accepted, examples, main_training

TEMPLATE = Path(__file__).parent.parent / "templates" / "alpaca.jinja"
POLL_SECONDS = 0.2
STOP_SECONDS = 5.0
LOG_LINES = 6
WEIGHT_BYTES = 4  # checkpoints are float32, whatever the base was stored in
OPTIMIZER_BYTES = 8  # AdamW: two float32 a parameter


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
    job = plan(context, training)
    _check_same_training(context, training, job)
    context.store.add("training", **asdict(training))
    done = whole_checkpoints(Path(job.checkpoints))
    if not done or done[-1].epoch < job.epochs:
        last = settle(job)
        job = replace(job, resume_from=str(last.folder) if last else None)
        _check_disk(job, last.epoch if last else 0)
        job.write(_work(context, training) / "job.json")
        _train(context, training, job)
    _record_checkpoints(context, training, job, set())
    return training.named(_summary(job, count))


def chat_template_file(context: Context) -> Path | None:
    """The template that an engine must be given for the student's base model, or None.

    None means that the base model brings its own. Checkpoints always carry theirs.
    """
    return None if weights.has_chat_template(embedded(context.config.student.path)) else TEMPLATE


# ---- the job -------------------------------------------------------------------------------


def plan(context: Context, training: Training) -> Job:
    """The job for this machine, from the start; ConfigError when the batch can't be divided."""
    config, section = context.config, context.config.train
    environment = child_environment(context.folder)
    gpus = gpu_count(environment)
    processes = max(1, gpus)
    accumulation = accumulation_steps(config, processes)
    cores = section.threads or len(os.sched_getaffinity(0))
    base, work = embedded(config.student.path), _work(context, training)
    template = chat_template_file(context)
    return Job(
        identity=_identity(config, training, work, base, template),
        model=str(base),
        train_file=str(work / "train.jsonl"),
        dev_file=str(work / "dev.jsonl"),
        checkpoints=str((training.home(context.folder) / CHECKPOINTS).resolve()),
        log=str(work / "log.jsonl"),
        chat_template=str(template) if template else None,
        resume_from=None,
        parent=os.getpid(),
        device="cuda" if gpus else "cpu",
        processes=processes,
        threads=max(1, cores // processes),
        epochs=section.epochs,
        learning_rate=section.learning_rate,
        micro_batch=section.micro_batch,
        accumulation=accumulation,
        warmup=section.warmup,
        weight_decay=section.weight_decay,
        max_length=min(section.max_length, _positions(base) or section.max_length),
        gradient_checkpointing=section.gradient_checkpointing,
        seed=training.seed,
        trust_remote_code=config.student.trust_remote_code,
    )


def accumulation_steps(config: Config, processes: int) -> int:
    """Forward passes a step, so that all processes together see `batch` examples."""
    batch, micro_batch = config.train.batch, config.train.micro_batch
    at_once = processes * micro_batch
    if batch % at_once:
        whole = [m for m in range(1, micro_batch + 1) if batch % (processes * m) == 0]
        fix = (
            f"micro_batch = {whole[-1]}"
            if whole
            else f"CUDA_VISIBLE_DEVICES with fewer than {processes} devices"
        )
        raise ConfigError(
            f"a batch of {batch} can't be divided over {processes} devices x {micro_batch}",
            where=f"[train].batch = {batch}, [train].micro_batch = {micro_batch}",
            fix=f"a multiple of {at_once} as batch, or {fix}",
        )
    return batch // at_once


def gpu_count(environment: Mapping[str, str]) -> int:
    """GPUs that the child can use, without importing torch: 0 with the CPU build of torch."""
    if importlib.metadata.version("torch").endswith("+cpu"):
        return 0
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return sum(1 for device in visible.split(",") if device.strip() not in ("", "-1"))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def _identity(
    config: Config, training: Training, work: Path, base: Path, template: Path | None
) -> str:
    data = [_sha256(work / f"{split}.jsonl") for split in ("train", "dev")]
    text = template.read_text() if template else None
    recipe = config.recipe()["train"]
    return stable_id(data, weights.fingerprint(base), text, recipe, training.seed)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _positions(base: Path) -> int | None:
    """The longest text that the base model was made for, where its configuration says."""
    config = json.loads((base / "config.json").read_text())
    positions: int | None = config.get("text_config", config).get("max_position_embeddings")
    return positions


def _check_same_training(context: Context, training: Training, job: Job) -> None:
    """Checkpoints of other data or another recipe must not be continued or taken for this one's."""
    earlier = _work(context, training) / "job.json"
    if not earlier.exists() or not whole_checkpoints(Path(job.checkpoints)):
        return
    if Job.read(earlier).identity != job.identity:
        raise StageError(
            "the checkpoints here were trained on other data, another base model or other settings",
            where=job.checkpoints,
            fix=f"`localism fork {context.folder.name} NEW` trains anew in a run of its own",
        )


def _check_disk(job: Job, epochs_done: int) -> None:
    """Refuse to start what can't be stored: float32 weights an epoch, optimizer state of two."""
    parameters = weights.parameter_count(Path(job.model))
    left = job.epochs - epochs_done
    # While a checkpoint is written, the one before still has its optimizer state.
    states = 1 if epochs_done else min(2, left)
    needed = parameters * (left * WEIGHT_BYTES + states * OPTIMIZER_BYTES)
    free = shutil.disk_usage(job.checkpoints).free
    if needed > free:
        raise MachineError(
            f"{left} checkpoints need {_gigabytes(needed)} and {_gigabytes(free)} are free",
            where=job.checkpoints,
            fix=f"free {_gigabytes(needed - free)}, use a larger disk, or train fewer epochs",
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"


# ---- data ----------------------------------------------------------------------------------


def _work(context: Context, training: Training) -> Path:
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
        (_work(context, training) / f"{split}.jsonl").write_text(text, encoding="utf-8")
    if not data["train"]:
        raise StageError(
            "no example was accepted, so there is nothing to train on",
            where=f"training set {training.set_name}",
            fix='see why: localism sql "FROM rejections"',
        )
    return len(data["train"])


def _conversation(row: Mapping[str, Any]) -> dict[str, list[dict[str, str]]]:
    """In TRL's prompt and completion form the loss is on the completion alone."""
    return {
        "prompt": [{"role": "user", "content": row["instruction"]}],
        "completion": [{"role": "assistant", "content": row["response"]}],
    }


def _record_checkpoints(context: Context, training: Training, job: Job, recorded: set[str]) -> None:
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


# ---- the child -----------------------------------------------------------------------------


def _train(context: Context, training: Training, job: Job) -> None:
    """Run the child to its end, following its log; raises what it ended with."""
    environment = child_environment(context.folder) | {"OMP_NUM_THREADS": str(job.threads)}
    log = context.folder / "logs" / "train.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "localism.training.sft",
        str(_work(context, training) / "job.json"),
    ]
    follower = Follower(context, training, job)
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
                follower.check_time()
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
        self._recorded: set[str] = set()
        _record_checkpoints(context, training, job, self._recorded)
        self._log_start = self._log.stat().st_size  # a training that goes on keeps its log
        self._epoch_began = self._epoch_seconds = 0.0
        self._is_between = False
        context.progress.update(0, unit="steps", detail="loading the student")

    def read(self) -> None:
        """Take in what was written since the last call."""
        with self._log.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))
        before = len(self._recorded)
        if whole:
            _record_checkpoints(self._context, self._training, self._job, self._recorded)
        if self._offset > self._log_start:
            self._note_epoch(is_over=len(self._recorded) > before)

    def _note_epoch(self, *, is_over: bool) -> None:
        moment, self._is_between = time.monotonic(), is_over
        if is_over:
            self._epoch_seconds = moment - self._epoch_began
        if is_over or not self._epoch_began:
            self._epoch_began = moment

    def check_time(self) -> None:
        """Raise OutOfTime between two epochs when the next would not fit, and after the grace."""
        left, done = self._context.time_left(), len(self._recorded)
        has_no_room = self._is_between and left < self._epoch_seconds
        if done < self._job.epochs and (has_no_room or left < -GRACE_SECONDS):
            raise OutOfTime(f"{done} of {self._job.epochs} epochs")

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
                detail=f"loss {line['loss']:.3f}   epoch {math.ceil(line['epoch'])}/"
                f"{self._job.epochs}   {line['tokens_per_second']:,.0f} tokens/s",
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


def _summary(job: Job, count: int) -> str:
    done = whole_checkpoints(Path(job.checkpoints))
    base = next((line for line in log_lines(Path(job.log)) if line.get("step") == 0), {})
    text = f"{len(done)} checkpoints from {count:,} examples"
    if base.get("dropped"):
        text += f" ({base['dropped']} had no room for a response and were left out)"
    if base.get("cut"):
        text += f" ({base['cut']} cut at {job.max_length:,} tokens)"
    if done[-1].dev_loss is not None and base.get("dev_loss") is not None:
        text += f"; dev loss {base['dev_loss']:.2f} -> {done[-1].dev_loss:.2f}"
    return text
