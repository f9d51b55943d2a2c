"""What the two sides of training share: the job, and the checkpoints on disk.

The stage writes the job and reads the checkpoints; training.sft, in a process of its own, does the
reverse. A whole checkpoint is a folder epoch-NN that any engine can serve. The latest also has a
folder resume/, with what the trainer needs to go on from there.
"""

import json
import math
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

CHECKPOINTS = "checkpoints"
CHECKPOINT_FACTS = "checkpoint.json"
"""In every whole checkpoint: its epoch, step and losses."""
RESUME = "resume"
"""Folder of a checkpoint with the trainer's own state: weights in training precision, optimizer."""
ADAPTER = "adapter"
"""Folder of a checkpoint with the LoRA matrices alone."""
REMOVED = "removed"
"""In place of a checkpoint's path, in its row: its weights are gone ([train].keep)."""
TORN = "checkpoint-*"
"""TRL's own name for a checkpoint, which it keeps until the child has found it whole."""


@dataclass(frozen=True)
class Job:
    """What the child is told: everything it does follows from this."""

    identity: str
    """Hash of data, base model, template and recipe: what the weights depend on."""
    model: str
    """Folder of the base model."""
    train_file: str
    """JSONL of prompt and completion, in training order before shuffling."""
    dev_file: str
    """The same for the loss that is measured every epoch."""
    checkpoints: str
    """Folder that gets one epoch-NN an epoch."""
    log: str
    """JSONL that gets a line a step."""
    chat_template: str | None
    """File to use in place of the template that the base model lacks."""
    resume_from: str | None
    """Trainer's state to go on from: folder resume of a whole checkpoint."""
    tensorboard: str
    """Folder that gets event files."""
    parent: int
    """Process whose end ends the child."""
    device: str
    """cpu or cuda."""
    machines: int
    """How many train together; all see this file, the data and the checkpoints."""
    silence_seconds: int
    """How long one of them may give no sign of life (training.beats)."""
    processes: int
    """One for each GPU of all machines."""
    sharded: bool
    """Weights, gradients and optimizer are spread over the processes (FSDP2)."""
    threads: int
    """CPU threads of each process."""
    method: str
    """full or lora."""
    lora_rank: int
    """Inner size of the added matrices."""
    lora_alpha: float
    """Their product counts alpha / rank."""
    lora_targets: tuple[str, ...]
    """Names of the layers that get them; empty is every linear layer but the last."""
    packing: bool
    """Several examples in one row, each of which sees itself alone."""
    weights_dtype: str
    """Of the weights in a checkpoint: what the engine will load them as."""
    epochs: int
    """Passes over the data."""
    learning_rate: float
    """Peak."""
    micro_batch: int
    """Examples a process and forward pass."""
    accumulation: int
    """Forward passes a step; processes x micro_batch x accumulation is the batch."""
    warmup: float
    """Share of the steps."""
    weight_decay: float
    """AdamW's."""
    max_length: int
    """Tokens of prompt and response together."""
    gradient_checkpointing: bool
    """Less memory, more time."""
    seed: int
    """Of the order of the examples."""
    trust_remote_code: bool
    """Run Python code that lies in the model folder."""

    def write(self, path: Path) -> None:
        """Store as JSON."""
        temporary = path.with_name(f"{path.name}.new")
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n")
        os.replace(temporary, path)  # a torn job file would stop every later call

    @classmethod
    def read(cls, path: Path) -> "Job":
        """What write stored."""
        stored = json.loads(path.read_text())
        return cls(**stored | {"lora_targets": tuple(stored["lora_targets"])})


class Checkpoint(NamedTuple):
    """A whole checkpoint on disk."""

    folder: Path
    epoch: int
    step: int
    train_loss: float | None
    dev_loss: float | None


def whole_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints that were written to the end, by epoch."""
    found = [
        Checkpoint(path.parent, **json.loads(path.read_text()))
        for path in folder.glob(f"epoch-*/{CHECKPOINT_FACTS}")
    ]
    return sorted(found, key=lambda checkpoint: checkpoint.epoch)


def settle(job: Job) -> Checkpoint | None:
    """Forget what came after the last checkpoint that can be resumed; returns that checkpoint."""
    folder, log = Path(job.checkpoints), Path(job.log)
    folder.mkdir(parents=True, exist_ok=True)
    for torn in folder.glob(TORN):
        shutil.rmtree(torn)
    resumable = [c for c in whole_checkpoints(folder) if (c.folder / RESUME).exists()]
    last = resumable[-1] if resumable else None
    kept = [line for line in log_lines(log) if last and line.get("step", math.inf) <= last.step]
    # Beside it and renamed: a disk that fills up now must not take the lines that there are.
    new = log.with_name(log.name + ".new")
    new.write_text("".join(json.dumps(line) + "\n" for line in kept))
    os.replace(new, log)
    return last


def drop_resume_states(checkpoints: Path, keep: Path | None = None) -> None:
    """Remove what resuming needs from every checkpoint but one; from all once training is over."""
    for state in checkpoints.glob(f"epoch-*/{RESUME}"):
        if state.parent != keep:
            shutil.rmtree(state)


def log_lines(log: Path) -> list[dict[str, Any]]:
    """The whole lines of the child's log; a torn last one is left out."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
