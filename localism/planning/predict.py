"""Hours and tokens of a run, stage by stage, each with what the figure rests on.

A stage that is done shows what it took, and beside it what was predicted. What lies ahead rests on
the best that there is:

- a trial of stage generate (`--calibrate`): its rate for generate, with the interval of the trial;
- an earlier run: unit by unit, and once the start of each engine; its seconds hold for the same
  models on the same machine, and are scaled by parameters where another model takes its place;
- a trial, for other stages that ask a model: calls and tokens are counted from the recipe, and go
  at the trial's pace, by parameters;
- nothing: calls and tokens are counted from the recipe, and seconds follow from an assumed use of
  the hardware (planning/hardware.py). Take these as good to a factor of three or four.

Calls that are in the ledger (planning/ledger.py) are not made again. They take the time in which
they are looked up, and a stage that finds all of its calls there starts no engine.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from localism.config import Config
from localism.planning.hardware import (
    Machine,
    busy_gpus,
    call_seconds,
    call_work,
    parameters,
    role_of,
    start_seconds,
    train_seconds,
)
from localism.planning.ledger import Held, held, todo
from localism.planning.seen import Calibrated, Seen, StageTook
from localism.planning.work import (
    UNITS,
    assumed_calls,
    assumed_example,
    assumed_output,
    assumed_prompt,
    units,
)

# Of a reply that is taken from the ledger (docs/log.md, a million turns).
LOOK_UP_SECONDS = 0.0043
NOTHING = StageTook(0.0, 0, 0, 0)


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
    """Model calls that are made, beside those in the ledger."""
    prompt_tokens: float
    """Sent."""
    output_tokens: float
    """Written."""
    hours: float | None
    """Wall time; None: nothing says how large the model is that answers."""
    gpu_hours: float | None
    """Hours times the GPUs of this machine that work."""
    basis: str
    """done, calibrated, the run that it was scaled from, or assumed."""
    low_hours: float | None = None
    """95% interval of a calibrated figure, from the spread of lengths alone."""
    high_hours: float | None = None
    predicted_hours: float | None = None
    """Of a stage that is done: what was predicted before it began, else what would have been."""
    predicted_basis: str | None = None
    """What that rested on."""
    in_ledger: int = 0
    """Calls that need not be made, for their replies are there."""
    perhaps_in_ledger: int = 0
    """Calls of a parent run of which some may be asked for again; none is counted on."""
    unless: str = ""
    """What speaks against it."""


def rows(
    config: Config,
    machine: Machine,
    own: Seen | None,
    like: Seen | None,
    trial: Calibrated | None = None,
) -> Iterator[Row]:
    """A row for each stage that asks a model or trains one.

    own: this run as far as it is; like: an earlier run to scale from; trial: of this configuration,
    where it is not own's.
    """
    trial = trial or (own.calibrated if own else None)
    in_ledger, done = held(config, own), own.done(config) if own else {}
    for stage in UNITS:
        known = in_ledger.get(stage, Held())
        ahead = replace(
            _ahead(config, machine, stage, like, trial, known),
            perhaps_in_ledger=known.perhaps,
            unless=known.unless,
        )
        took = done.get(stage)
        if took is None:
            yield ahead
            continue
        # What was noted is what was seen; with a run that is named, its prediction is asked for.
        predicted, basis = ahead.hours, ahead.basis
        if took.predicted is not None and like is None:
            predicted, basis = took.predicted / 3600, took.basis or ""
        row = _row(config, machine, stage, took, "done")
        yield replace(row, predicted_hours=predicted, predicted_basis=basis)


def _ahead(
    config: Config,
    machine: Machine,
    stage: str,
    like: Seen | None,
    trial: Calibrated | None,
    known: Held,
) -> Row:
    left = todo(units(config)[stage], assumed_calls(config)[stage], known)
    if known.is_all(units(config)[stage]):
        return _row(config, machine, stage, NOTHING, "the ledger", left.in_ledger)
    if trial and stage == "generate":
        return _calibrated(config, machine, trial, known)
    if like and (each := like.each(stage)):
        return _scaled(config, machine, stage, like, each, known)
    trial = trial or (like.calibrated if like else None)
    if trial and stage == "generate":
        return _calibrated(config, machine, trial, known)
    took = _counted(config, stage, left.units)
    if trial and took.calls and (seconds := _at_pace(config, machine, stage, took, trial)):
        took = replace(took, seconds=seconds)
        return _row(config, machine, stage, took, "calibrated, by parameters", left.in_ledger)
    took = replace(took, seconds=_assumed_seconds(config, machine, stage, took))
    return _row(config, machine, stage, took, "assumed", left.in_ledger)


def _row(
    config: Config, machine: Machine, stage: str, took: StageTook, basis: str, in_ledger: int = 0
) -> Row:
    hours: float | None = None
    gpu_hours: float | None = None
    if took.seconds is not None:
        hours = (took.seconds + in_ledger * LOOK_UP_SECONDS) / 3600
        gpu_hours = took.seconds / 3600 * busy_gpus(config, machine, stage)
    return Row(
        stage, units(config)[stage], UNITS[stage], took.calls, took.prompt_tokens,
        took.completion_tokens, hours, gpu_hours, basis, in_ledger=in_ledger,
    )  # fmt: skip


# ---- from an earlier run -------------------------------------------------------------------


def _scaled(
    config: Config, machine: Machine, stage: str, like: Seen, each: StageTook, known: Held
) -> Row:
    left, factor = (
        todo(units(config)[stage], each.calls, known),
        _factor(config, like.config, stage),
    )
    took = StageTook(
        None if each.seconds is None else each.seconds * left.units * factor + each.one_start,
        each.calls * left.units,
        each.prompt_tokens * left.units,
        each.completion_tokens * left.units,
    )
    said = f"run {like.name}" + (f", seconds x {factor:.2g} by parameters" if factor != 1 else "")
    return _row(config, machine, stage, took, said, left.in_ledger)


def _factor(config: Config, other: Config, stage: str) -> float:
    """How much longer a token takes here, by the parameters of the models that write it."""
    here, there = parameters(role_of(config, stage)), parameters(role_of(other, stage))
    return here / there if here and there else 1.0


# ---- from a trial --------------------------------------------------------------------------


def _calibrated(config: Config, machine: Machine, trial: Calibrated, known: Held) -> Row:
    """Stage generate, at the rate that was measured."""
    left = todo(units(config)["generate"], trial.calls, known)
    tokens = trial.completion_tokens * left.units
    writing = tokens / trial.tokens_per_second + trial.end_seconds
    writing *= _factor(config, trial.config, "generate")
    start = start_seconds(config, machine, "generate", trial.start_seconds)
    took = StageTook(
        writing + start,
        trial.calls * left.units,
        trial.prompt_tokens * left.units,
        trial.completion_tokens * left.units,
    )
    row = _row(config, machine, "generate", took, "calibrated", left.in_ledger)
    low, high = ((row.hours or 0.0) - writing * (1 - share) / 3600 for share in trial.spread)
    return replace(row, low_hours=low, high_hours=high)


def _at_pace(
    config: Config, machine: Machine, stage: str, took: StageTook, trial: Calibrated
) -> float | None:
    """Seconds of a stage whose model does as much a second as the trial's did, on as many GPUs."""
    ours, theirs = role_of(config, stage), trial.config.teacher
    sizes = parameters(ours), parameters(theirs)
    if None in sizes and (ours.path, ours.endpoints) != (theirs.path, theirs.endpoints):
        return None
    larger = (sizes[0] or 1) / (sizes[1] or 1)
    one = trial.completion_tokens / trial.tokens_per_second  # seconds of an example
    per_work = one / call_work(trial.prompt_tokens, trial.completion_tokens)
    fewer = max(1, busy_gpus(trial.config, machine, "generate")) / max(
        1, busy_gpus(config, machine, stage)
    )
    work = call_work(took.prompt_tokens, took.completion_tokens)
    start = start_seconds(config, machine, stage, trial.start_seconds)
    return work * per_work * larger * fewer + start


# ---- from the recipe alone -----------------------------------------------------------------


def _counted(config: Config, stage: str, count: float) -> StageTook:
    """Calls and tokens of so many units, without seconds."""
    calls = assumed_calls(config)[stage] * count
    written = assumed_output(config)[stage] * count
    return StageTook(None, calls, calls * assumed_prompt(config), written)


def _assumed_seconds(config: Config, machine: Machine, stage: str, took: StageTook) -> float | None:
    if stage == "train":
        return train_seconds(config, machine, units(config)[stage] * assumed_example(config))
    seconds = call_seconds(config, machine, stage, took.prompt_tokens, took.completion_tokens)
    if not took.calls or seconds is None:
        return None if took.calls else 0.0
    return seconds + start_seconds(config, machine, stage)
