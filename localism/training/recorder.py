"""What the trainer tells while it works -> the log, TensorBoard's files, whole checkpoints."""

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from localism.errors import ConfigError, StageError
from localism.training.job import CHECKPOINT_FACTS, Job, drop_resume_states, log_lines
from localism.training.saving import lay_out
from localism.training.tokens import IGNORED
from localism.training.trainer import Built

DIVERGED_NATS = 1.0
DIVERGED_STEPS = 10
PROBE = 64  # tokens that show whether packed examples are kept apart
LEAK = 0.05  # share of the logits' own spread; bf16 rounds by less, another text changes far more


def append(job: Job, line: dict[str, Any]) -> None:
    """Add a line to the log that the stage follows."""
    with Path(job.log).open("a") as file:
        file.write(json.dumps(line) + "\n")


class Recorder:
    """Writes the log and turns what TRL saves into whole checkpoints."""

    def __init__(self, job: Job, built: Built) -> None:
        self._job, self._built, self._trainer = job, built, built.trainer
        self._started = time.monotonic()
        lines = [line for line in log_lines(Path(job.log)) if line.get("step")]
        # TRL counts from zero again when it resumes.
        self._tokens_before = lines[-1]["tokens"] if lines else 0
        self._losses = [line["loss"] for line in lines]
        self._epoch_begins = len(self._losses)
        self._board: Any = None

    def begin(self, state: Any) -> None:
        """Before the first step: what is trained on, and how well the base model does on dev."""
        if self._job.packing:
            first = self._built.train.table["input_ids"][0].as_py()
            check_boundaries(self._trainer, first[-PROBE:])
        if state.is_world_process_zero:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(self._job.tensorboard, purge_step=state.global_step + 1)
        self._started = time.monotonic()
        if state.global_step:
            return
        loss = dev_loss(self._trainer)
        if state.is_world_process_zero:
            data = self._built.train
            line = {"step": 0, "steps": state.max_steps, "epoch": 0.0, "dev_loss": loss}
            line |= {"examples": data.table.num_rows, "dropped": data.dropped, "cut": data.cut}
            line |= {"rows": len(self._trainer.train_dataset), "attention": self._built.attention}
            append(self._job, line)

    def step(self, state: Any, logs: dict[str, float]) -> None:
        """After each step. Raises StageError when the loss is no number any more, or runs away."""
        self._losses.append(logs["loss"])
        check_loss(self._losses, state.global_step, self._job.learning_rate)
        if not state.is_world_process_zero:
            return
        tokens = int(logs["num_tokens"])
        seconds = time.monotonic() - self._started
        line = {
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "tokens_per_second": tokens / seconds,
            "memory_gb": memory_gb(self._job.device),
        }
        for name, value in line.items():
            self._board.add_scalar(f"train/{name}", value, state.global_step)
        where = {"step": state.global_step, "steps": state.max_steps}
        where["epoch"] = round(state.epoch, 6)
        append(self._job, where | line | {"tokens": self._tokens_before + tokens})

    def save(self, state: Any) -> None:
        """After TRL has written checkpoint-STEP: measure, complete it, and give it its name.

        The rename comes last and is atomic, so that a folder called epoch-NN is always whole.
        """
        job, folder, epoch = self._job, Path(self._job.checkpoints), round(state.epoch)
        loss = dev_loss(self._trainer)
        losses = self._losses[self._epoch_begins :]
        self._epoch_begins = len(self._losses)
        self._trainer.accelerator.wait_for_everyone()  # each process writes a file of its own
        if state.is_world_process_zero:
            written = folder / f"checkpoint-{state.global_step}"
            new = written.with_name(f"{written.name}.whole")
            lay_out(written, new, job, self._trainer.model, resumable=epoch < job.epochs)
            facts = {"epoch": epoch, "step": state.global_step}
            facts |= {"train_loss": sum(losses) / len(losses), "dev_loss": loss}
            (new / CHECKPOINT_FACTS).write_text(json.dumps(facts) + "\n")
            place(new, folder / f"epoch-{epoch:02d}")
            if loss is not None:
                self._board.add_scalar("dev/loss", loss, state.global_step)
            self._board.flush()
        self._trainer.accelerator.wait_for_everyone()


def place(new: Path, whole: Path) -> None:
    """Give a finished folder its name, in one step; older ones lose what resuming needed."""
    for path in [*new.rglob("*"), new]:
        sync(path)
    shutil.rmtree(whole, ignore_errors=True)
    new.rename(whole)
    sync(whole.parent)
    drop_resume_states(whole.parent, keep=whole)


def sync(path: Path) -> None:
    """Have the disk take a file or a folder's names before what follows."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_loss(losses: list[float], step: int, learning_rate: float) -> None:
    """Raise StageError when training can't be saved any more.

    That is a loss that is no number, or ten steps in a row that are worse on average, by a nat a
    token, than the worst of the first three: nothing is learned from there.
    """
    problem = ""
    recent = sum(losses[-DIVERGED_STEPS:]) / DIVERGED_STEPS
    if not math.isfinite(losses[-1]):
        problem = f"the loss is {losses[-1]} at step {step}"
    elif len(losses) > DIVERGED_STEPS and recent > max(losses[:3]) + DIVERGED_NATS:
        problem = f"the loss runs away: {losses[0]:.2f} at first, {recent:.2f} at step {step}"
    if problem:
        raise StageError(
            f"{problem}; checkpoints before it are kept",
            where=f"[train].learning_rate = {learning_rate:g}",
            fix="a smaller learning_rate, in a fork of this run",
        )


def memory_gb(device: str) -> float:
    """Most memory that this process has held: of its GPU, or of the machine where there is none."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


# ---- measured on the model -----------------------------------------------------------------


def dev_loss(trainer: Any) -> float | None:
    """Mean cross-entropy in nats of a response token on dev; None without dev examples.

    Each example on its own, so that padding and batches play no part; every process takes its
    share. The trainer's own evaluation would average over batches instead of tokens.
    """
    import torch

    rows, model = trainer.eval_dataset, trainer.model
    if rows is None:
        return None
    rank, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes
    sums = torch.zeros(2, dtype=torch.float64, device=trainer.args.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for first in range(0, len(rows), processes):
            # Sharded weights are gathered by all processes at once: none may skip a turn.
            row = rows[min(first + rank, len(rows) - 1)]
            tokens = torch.tensor([row["input_ids"]], device=trainer.args.device)
            labels = torch.tensor([row["labels"]], device=trainer.args.device)
            counted = (labels[:, 1:] != IGNORED).sum()
            # TRL's output layer, as in training: it never holds all logits of an example.
            loss = model(input_ids=tokens, labels=labels, fused_lm_head=True).loss
            if first + rank < len(rows):
                sums += torch.stack((loss * counted, counted)).double()
    model.train(was_training)
    total, count = trainer.accelerator.reduce(sums, "sum").tolist()
    return total / count if count else None


def check_boundaries(trainer: Any, ids: list[int]) -> None:
    """Raise ConfigError if an example in a packed row is seen by the one behind it.

    Measured on this model and its attention rather than believed: `ids`, the tokens of a text, must
    come out the same, whatever stands before them in the row.
    """
    import torch

    length, model = len(ids), trainer.model
    logits = []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for before in (ids, ids[::-1]):
            row = {"input_ids": [*before, *ids], "seq_lengths": [length, length]}
            batch = trainer.data_collator([row])
            del batch["labels"]
            inputs = {
                name: value.to(trainer.args.device) if torch.is_tensor(value) else value
                for name, value in batch.items()
            }
            logits.append(model(**inputs, use_cache=False).logits[0, length : 2 * length].float())
    model.train(was_training)
    if (logits[0] - logits[1]).abs().max() > LEAK * logits[0].std():
        raise ConfigError(
            "this model's attention does not keep packed examples apart",
            where="[train].packing = true",
            fix="packing = false, in a fork of this run",
        )
