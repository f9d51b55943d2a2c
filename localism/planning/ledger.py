"""What a run need not ask any more: calls of its own, of a stage that goes on, and a fork's.

A call is found in the ledger by all that it depends on (serving/client.py), and only a stage itself
knows what it will ask. But a stage of which nothing has changed, neither in the recipe nor in what
comes from outside, since the parent run asked for it, asks the same again. Where something has, its
calls are counted as if none were there; and so are those about checkpoints, for a training that is
repeated need not come out the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from localism import assets
from localism.config import Config
from localism.planning.seen import Fork, Seen
from localism.planning.work import UNITS, units
from localism.recipe import differences
from localism.records import STAGES

# The first stage that asks otherwise when a table of the recipe changes; other tables are stages.
TABLES = {
    "seed": "extract",
    "teacher": "extract",
    "prompts": "extract",
    "embedder": "cluster",
    "judge": "curate",
    "student": "train",
}
# The same of what comes from outside, by its role in table asset.
OUTSIDE = TABLES | {
    "student": "curate",  # its tokenizer counts what the gates measure
    "taxonomy": "extract",
    "seeds": "extract",
    "benchmarks": "curate",
}
# A longer or shorter plan is the same at its beginning.
SIZES = ("mix.train", "mix.dev", "mix.test")


class Held(NamedTuple):
    """Calls of a stage that are in the ledger."""

    begun: int = 0
    """Of the run's own, which will be asked for again."""
    carried: int = 0
    """Brought by a fork, or of a stage that was finished and has more to do; asked for again."""
    units: int | None = None
    """Units that these are all of; None where the parent had not finished the stage."""
    perhaps: int = 0
    """Brought by a fork, and nobody can say yet whether they are asked for."""
    unless: str = ""
    """What speaks against it."""

    def is_all(self, count: int) -> bool:
        """Whether so many units need nothing else."""
        return self.units is not None and self.units >= count


def held(config: Config, own: Seen | None) -> Mapping[str, Held]:
    """What the ledger of a run has for each stage that is not done."""
    if own is None:
        return {}
    done = own.done(config)
    ahead = [stage for stage in UNITS if stage not in done]
    is_asked = own.fork and any(own.carried.get(stage) for stage in ahead)
    changed = list(_changes(config, own.fork)) if own.fork and is_asked else []
    return {stage: _held(own, stage, changed) for stage in ahead}


def _held(own: Seen, stage: str, changed: Sequence[tuple[str, str]]) -> Held:
    if took := own.took.get(stage):  # finished, before the run was made longer
        return Held(carried=round(took.calls), units=units(own.config)[stage])
    begun, carried = own.begun.get(stage, 0), own.carried.get(stage, 0)
    if not carried:
        return Held(begun)
    if own.fork is None:
        return Held(begun, perhaps=carried, unless="nothing else is known of the parent run")
    if why := _unless(own.fork, stage, changed):
        return Held(begun, perhaps=carried, unless=why)
    is_done = stage in own.fork.done
    return Held(begun, carried, units(own.fork.config)[stage] if is_done else None)


def _unless(fork: Fork, stage: str, changed: Sequence[tuple[str, str]]) -> str:
    """Why a parent's calls of a stage may not be asked for again; empty where they will be."""
    if STAGES.index(stage) > STAGES.index("train"):
        return "checkpoints may come out otherwise"
    earlier = STAGES[: STAGES.index(stage) + 1]
    keys = [key for key, first in changed if first in earlier and key not in SIZES]
    verb = "is" if len(keys) == 1 else "are"
    return f"{', '.join(keys)} {verb} not as in run {fork.parent}" if keys else ""


def _changes(config: Config, fork: Fork) -> Iterator[tuple[str, str]]:
    """What is not as in the parent run, and the first stage that asks otherwise for it."""
    for change in sorted(differences(fork.config.recipe(), config.recipe())):
        table = change.key.partition(".")[0]
        yield change.key, TABLES.get(table, table)
    now = assets.fingerprints(config)
    for role, first in OUTSIDE.items():
        # Behind endpoints a model cannot be seen from here: it is taken for the same.
        if role in now and now[role] != fork.assets.get(role):
            yield f"[{role}]" if role in TABLES else role, first
    for role in ("teacher", "judge"):
        if bool(config.served(role).endpoints) != bool(fork.config.served(role).endpoints):
            yield f"{role}.endpoints", TABLES[role]


class Todo(NamedTuple):
    """What is left of a stage."""

    units: float
    """That are still to be paid for."""
    in_ledger: int
    """Calls that the others will find there."""


def todo(count: int, each: float, known: Held) -> Todo:
    """Of so many units with so many calls each; a shorter plan needs fewer than there are."""
    if known.units is None and not each:
        return Todo(count, 0)
    there = known.carried / each if known.units is None else known.units
    begun = known.begun / each if each else 0.0
    share = min(1.0, count / there) if there else 0.0
    in_ledger = round(known.carried * share) + min(known.begun, round(count * each))
    return Todo(max(0.0, count - there - begun), in_ledger)
