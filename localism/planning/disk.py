"""How much disk a run takes at most, and what stays of it: one figure for plans and the doctor.

Counted are the weights of every checkpoint, for all lie there until one is picked; the states that
training resumes from; the corpus; and what is made for others: the set as files, and the picked
model as `localism export` copies it.
"""

from typing import NamedTuple

from localism.config import Config
from localism.gpus import Gpus
from localism.paths import embedded
from localism.planning.hardware import parameters
from localism.planning.seen import Seen
from localism.planning.work import assumed_calls, units
from localism.stages.train_plan import (
    derive_epochs,
    resume_bytes,
    served_dtype,
    shape_of,
    weight_bytes,
)
from localism.tables import gigabytes, number_of

# A call with its share of the other tables: 1.1 kB with short replies (docs/scaling.md), 3.5 kB in
# the miniature, whose small file is half empty; replies of thousands of tokens take more.
CALL_BYTES = 6_000
# A line of the trainer's JSONL takes 2.2 kB; the set lies there once more as JSONL and Parquet.
EXAMPLE_BYTES = 6_000
# Of the largest part: what takes less is not worth a change of the recipe.
MUCH = 0.25


class Disk(NamedTuple):
    """Bytes by what they are for."""

    epochs: int
    """Checkpoints, one an epoch."""
    checkpoints: float
    """Their weights."""
    states: float
    """Optimizer and weights in training precision, of two checkpoints; gone after training."""
    corpus: float
    """The ledger and all that was made of it."""
    exports: float
    """The training set as files, and a copy of the picked model."""
    kept: float
    """Weights that [train].keep leaves once one is picked."""

    @property
    def most(self) -> float:
        """What has to be free."""
        return self.checkpoints + self.states + self.corpus + self.exports

    @property
    def stays(self) -> float:
        """Of that, what is there in the end."""
        return self.kept + self.corpus + self.exports

    def smaller_by(self) -> str:
        """What to change in the recipe, for what takes most of it; what takes much comes next."""
        model = self.checkpoints / max(1, self.epochs)
        takes = {
            "fewer examples ([mix].train)": self.corpus + self.exports - model,
            "a smaller student" if self.epochs <= 1 else "fewer [train].epochs": self.checkpoints,
            "[train].method = 'lora', which has no states": self.states,
        }
        ways = sorted(takes, key=lambda way: takes[way], reverse=True)
        much = takes[ways[0]] * MUCH
        return ", or ".join(way for way in ways if takes[way] >= much)

    def said(self) -> str:
        """8 checkpoints 71.4 MB, two states to resume from 35.7 MB, corpus ..., exports ..."""
        return (
            f"{number_of(self.epochs, 'checkpoint')} {gigabytes(self.checkpoints)}, states to "
            f"resume from {gigabytes(self.states)}, corpus {gigabytes(self.corpus)}, exports "
            f"{gigabytes(self.exports)}"
        )


def needed(
    config: Config, gpus: Gpus, calls: float | None = None, like: Seen | None = None
) -> Disk:
    """Of a whole run.

    calls: model calls, where more is known of them than the recipe says; like: a run whose corpus
    says what a call takes.
    """
    train, mix = config.train, config.mix
    size, base = parameters(config.student) or 0, embedded(config.student.path)
    dtype = served_dtype(config, shape_of(base))
    epochs = derive_epochs(train, mix.train)[0]
    is_sharded = gpus.number * (train.nodes or 1) > 1
    one = size * weight_bytes(dtype)
    counted = sum(assumed_calls(config)[stage] * count for stage, count in units(config).items())
    a_call = like.corpus_bytes / like.calls if like and like.calls else CALL_BYTES
    return Disk(
        epochs=epochs,
        checkpoints=epochs * one,
        states=size * min(2, epochs) * resume_bytes(train.method, dtype, is_sharded),
        corpus=a_call * (counted if calls is None else calls),
        exports=one + EXAMPLE_BYTES * (mix.train + mix.dev + mix.test),
        kept=one * (1 if train.keep == "best" else epochs),
    )
