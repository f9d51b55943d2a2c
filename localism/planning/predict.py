"""Hours, tokens, energy and disk of a run, stage by stage, each with what the figure rests on.

A stage that is done shows what it took, and beside it what would have been predicted. What lies
ahead is scaled from an earlier run, unit by unit; its seconds hold for the same models on the same
machine, and are scaled by parameters where another model takes its place. Without an earlier run
calls and tokens are counted from the recipe, and seconds follow from an assumed use of the
hardware: take these as good to a factor of three, and run `localism generate --calibrate`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from localism import weights
from localism.config import Config, Served
from localism.errors import LocalismError
from localism.gpus import Gpus
from localism.paths import embedded
from localism.planning.seen import Seen, StageTook
from localism.planning.work import (
    UNITS,
    assumed_calls,
    assumed_example,
    assumed_output,
    assumed_prompt,
    units,
)
from localism.serving.memory import needed
from localism.serving.placement import Placement, place
from localism.stages.train_plan import derive_epochs, weight_bytes

# Model floating-point operations that are done a second, of what a card could: an H100 in bf16 and
# a core of a CPU in float32; the shares are those of well-filled batches.
GPU_FLOPS, CPU_FLOPS = 0.9e15, 5e10
DECODE_SHARE, TRAIN_SHARE = 0.15, 0.35
ENGINE_START_SECONDS = {True: 120.0, False: 25.0}
CORPUS_BYTES_A_CALL = 6_000
GPU_WATTS = 700.0
ROLE = {"extract": "teacher", "generate": "teacher", "curate": "judge"}


@dataclass(frozen=True)
class Row:
    """What one stage takes."""

    stage: str
    """Its name."""
    units: int
    """How much there is to do."""
    unit: str
    """Of what."""
    calls: float
    """Model calls."""
    prompt_tokens: float
    """Sent."""
    output_tokens: float
    """Written."""
    hours: float
    """Wall time."""
    gpu_hours: float
    """Hours times the GPUs that work."""
    basis: str
    """done, the run that it was scaled from, or assumed."""
    predicted_hours: float | None = None
    """Of a stage that is done: what would have been predicted."""


@dataclass(frozen=True)
class Machine:
    """What the run has to work with."""

    gpus: Gpus
    """Those of this machine."""
    cores: int
    """Of the CPU."""

    def flops(self) -> float:
        """Of all GPUs, or of the CPU."""
        return self.gpus.number * GPU_FLOPS if self.gpus.number else self.cores * CPU_FLOPS


def rows(config: Config, machine: Machine, own: Seen | None, like: Seen | None) -> Iterator[Row]:
    """A row for each stage that asks a model or trains one.

    own: this run as far as it is; like: an earlier run to scale from.
    """
    for stage in UNITS:
        ahead = _ahead(config, machine, stage, like)
        took = own.took.get(stage) if own else None
        if took is None:
            yield ahead
        else:
            yield _row(config, machine, stage, took, "done", predicted=ahead.hours)


def _ahead(config: Config, machine: Machine, stage: str, like: Seen | None) -> Row:
    each = like.each(stage) if like else None
    if like and each:
        count, factor = units(config)[stage], _factor(config, like.config, stage)
        took = StageTook(
            each.seconds * count * factor,
            each.calls * count,
            each.prompt_tokens * count,
            each.completion_tokens * count,
        )
        said = f"run {like.name}" + (
            f", seconds x {factor:.2g} by parameters" if factor != 1 else ""
        )
        return _row(config, machine, stage, took, said)
    return _row(config, machine, stage, _assumed(config, machine, stage), "assumed")


def _row(
    config: Config,
    machine: Machine,
    stage: str,
    took: StageTook,
    basis: str,
    predicted: float | None = None,
) -> Row:
    hours = took.seconds / 3600
    gpus = _gpus(config, machine, stage)
    return Row(
        stage, units(config)[stage], UNITS[stage], took.calls, took.prompt_tokens,
        took.completion_tokens, hours, hours * gpus, basis, predicted,
    )  # fmt: skip


def _gpus(config: Config, machine: Machine, stage: str) -> int:
    """GPUs that a stage keeps busy."""
    if not machine.gpus.number or stage == "train":
        return machine.gpus.number
    return placement(config, machine.gpus, ROLE.get(stage, "student"), _at_once(config, stage)).gpus


def _at_once(config: Config, stage: str) -> int | None:
    """Conversations that a stage's engine is given together, where they may be few."""
    return {"pick": config.mix.dev, "evaluate": config.mix.test}.get(stage)


def placement(config: Config, gpus: Gpus, role: str, conversations: int | None) -> Placement:
    """Where a role's engine will lie; ConfigError, MachineError where it can't.

    Behind endpoints nobody knows: one GPU is counted.
    """
    section = config.served(role)
    if not section.path:
        return Placement()
    return place(needed(embedded(section.path), section), section, gpus, role, conversations)


# ---- scaled from a run ---------------------------------------------------------------------


def _factor(config: Config, other: Config, stage: str) -> float:
    """How much longer a token takes here, by the parameters of the models that write it."""
    role = ROLE.get(stage, "student")
    here, there = _parameters(config.served(role)), _parameters(other.served(role))
    return here / there if here and there else 1.0


def _parameters(section: Served) -> int | None:
    try:
        return weights.parameter_count(embedded(section.path)) if section.path else None
    except (LocalismError, OSError):
        return None


# ---- assumed -------------------------------------------------------------------------------


def _assumed(config: Config, machine: Machine, stage: str) -> StageTook:
    count = units(config)[stage]
    if stage == "train":
        parameters = _parameters(config.student) or 0
        operations = 6 * parameters * count * assumed_example(config)
        return StageTook(operations / (TRAIN_SHARE * machine.flops()), 0, 0, 0)
    calls, output = assumed_calls(config)[stage] * count, assumed_output(config)[stage] * count
    sent = calls * assumed_prompt(config)
    parameters = _parameters(config.served(ROLE.get(stage, "student"))) or 0
    gpus = _gpus(config, machine, stage)
    flops = gpus * GPU_FLOPS if gpus else machine.flops()
    # Prompts are read many tokens at once, at about the share of a training step.
    seconds = 2 * parameters * (output / (DECODE_SHARE * flops) + sent / (TRAIN_SHARE * flops))
    starts = 2 if stage in ("pick", "evaluate") else 1
    return StageTook(
        seconds + starts * ENGINE_START_SECONDS[bool(gpus)] if calls else 0.0, calls, sent, output
    )


# ---- disk and energy -----------------------------------------------------------------------


def disk_bytes(config: Config, total_calls: float, like: Seen | None) -> float:
    """Of checkpoints with the trainer's states, and of the corpus."""
    parameters = _parameters(config.student) or 0
    epochs = derive_epochs(config.train, config.mix.train)[0]
    kept = epochs if config.train.keep == "all" else 1
    stored = weight_bytes("float32" if config.student.dtype == "float32" else "bfloat16")
    a_call = CORPUS_BYTES_A_CALL
    if like and (calls := sum(took.calls for took in like.took.values())):
        a_call = int(like.corpus_bytes / calls)
    return parameters * (max(kept, min(epochs, 2)) * stored + 12) + total_calls * a_call


def watts(machine: Machine, given: float | None) -> float | None:
    """Of the whole machine: as given, else 700 for each GPU; None on a CPU that nobody measured."""
    if given is not None:
        return given
    return machine.gpus.number * GPU_WATTS or None
