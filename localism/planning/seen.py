"""What an earlier run took for each unit of each stage, and what a trial of it measured.

Calls and tokens of a stage are those until its last end: what came after, as benchmarks do, is not
counted. Calls that a fork brought are its parent's, and stand apart.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localism import reader, stage_time
from localism.config import Config
from localism.errors import ConfigError, UsageError
from localism.models_toml import validate
from localism.planning.work import units
from localism.power import Power
from localism.recipe import frozen_recipe

_STAGES = f"""
WITH timed AS ({stage_time.STAGES}), asked AS (
    SELECT stage, count(*) AS calls, sum(prompt_tokens)::BIGINT AS prompt_tokens,
           sum(completion_tokens)::BIGINT AS completion_tokens
    FROM turn ANTI JOIN event e ON e.kind = 'forked' AND turn.finished_at <= e.happened_at
    JOIN timed USING (stage) WHERE finished_at <= ended GROUP BY stage
), engine AS (                            -- one that died or was interrupted was started again
    SELECT stage, detail->>'role' AS role, sum((detail->>'seconds')::DOUBLE) AS every_start,
           avg((detail->>'seconds')::DOUBLE) AS one_start
    FROM event JOIN timed USING (stage)
    WHERE kind = 'engine_started' AND happened_at <= ended GROUP BY stage, role
), starts AS (
    SELECT stage, sum(every_start) AS every_start, sum(one_start) AS one_start
    FROM engine GROUP BY stage
)
SELECT stage, seconds, predicted, basis, coalesce(every_start, 0) AS every_start,
       coalesce(one_start, 0) AS one_start, coalesce(calls, 0) AS calls,
       coalesce(prompt_tokens, 0) AS prompt_tokens,
       coalesce(completion_tokens, 0) AS completion_tokens
FROM timed LEFT JOIN asked USING (stage) LEFT JOIN starts USING (stage)
WHERE ended IS NOT NULL AND stage NOT IN (
    SELECT stage FROM event WHERE kind IN ('stage_finished', 'stage_reopened')
    GROUP BY stage HAVING arg_max(kind, happened_at) = 'stage_reopened'
)
"""
_CALLS = """
SELECT turn.stage, turn.finished_at <= coalesce(e.happened_at, '-infinity') AS carried,
       count(*) AS calls
FROM turn LEFT JOIN event e ON e.kind = 'forked' GROUP BY ALL
"""
_FORKED = "SELECT detail FROM event WHERE kind = 'forked'"
_CALIBRATED = "SELECT detail FROM event WHERE kind = 'calibrated' ORDER BY happened_at DESC LIMIT 1"


@dataclass(frozen=True)
class StageTook:
    """What a finished stage took in all."""

    seconds: float | None
    """Of work; None: not known."""
    calls: float
    """Model calls that it made."""
    prompt_tokens: float
    """Sent with them."""
    completion_tokens: float
    """Written by them."""
    predicted: float | None = None
    """Seconds that were noted as expected before it began."""
    basis: str | None = None
    """What that rested on."""
    every_start: float = 0.0
    """Of the seconds, those in which its engines loaded, each time that they did."""
    one_start: float = 0.0
    """What one start of each of its engines takes."""


@dataclass(frozen=True)
class Calibrated:
    """What a trial of stage generate measured."""

    config: Config
    """Of the run that was tried."""
    tokens_per_second: float
    """Completion tokens that the teacher writes when it is full."""
    calls: float
    """Of one example."""
    prompt_tokens: float
    """Sent for one example."""
    completion_tokens: float
    """Written for one example."""
    end_seconds: float
    """More at the end of a stage, when the engine runs empty."""
    start_seconds: float
    """Of the engine; 0 where it ran already."""
    spread: tuple[float, float]
    """Bounds of the 95% interval of the time, as shares of it."""
    power: Power
    """Of this machine, as measured or given."""


def calibrated(config: Config, facts: dict[str, Any]) -> Calibrated | None:
    """What generate_trial.calibrate found; None where it had nothing to try."""
    if "trial" not in facts:
        return None
    each, (value, low, high) = facts["each"], facts["left"]["seconds"]
    return Calibrated(
        config,
        facts["tokens_per_second"],
        # A trial of before the calls were noted: as if no turn were ever left out.
        facts["calls_each"] if "calls_each" in facts else len(facts["each_turn"]),
        each["prompt_tokens"],
        each["completion_tokens"],
        each["seconds"] / 2,
        facts["trial"]["engine_start_seconds"],
        (low / value, high / value) if value else (1.0, 1.0),
        Power(**facts["power"]),
    )


@dataclass(frozen=True)
class Fork:
    """What a run was forked from, as it was then."""

    parent: str
    """Name of the parent run."""
    config: Config
    """Its recipe."""
    assets: dict[str, list[str]]
    """Fingerprints of what it took from outside, by role."""
    done: frozenset[str]
    """Stages that it had finished."""


def fork_of(detail: dict[str, Any]) -> Fork | None:
    """What event `forked` says; None for a fork of before it said so much."""
    try:
        config = validate(detail["config"], "event forked")
        return Fork(detail["parent"], config, detail["assets"], frozenset(detail["done"]))
    except (KeyError, ConfigError):
        return None


@dataclass(frozen=True)
class Seen:
    """An earlier run."""

    name: str
    """Of its folder."""
    config: Config
    """Its recipe."""
    took: dict[str, StageTook]
    """Finished stages."""
    corpus_bytes: int
    """Size of its corpus."""
    calls: int
    """In its ledger."""
    calibrated: Calibrated | None
    """Its latest trial."""
    begun: dict[str, int]
    """Calls of its own in stages that are not finished."""
    carried: dict[str, int]
    """Calls that a fork brought, by stage."""
    fork: Fork | None
    """Where they come from, if that is known."""

    def done(self, config: Config) -> dict[str, StageTook]:
        """Finished stages of which `config`, this run's as it is asked for now, wants no more."""
        wanted, had = units(config), units(self.config)
        return {
            stage: took
            for stage, took in self.took.items()
            if wanted.get(stage, 0) <= had.get(stage, 0)
        }

    def each(self, stage: str) -> StageTook | None:
        """What one unit of a stage took, as fractions; None where it was not finished.

        Its seconds are without the starts of engines, which are as long for many units as for few.
        A stage of a fork that found most of its answers in the ledger shows no unit's cost either.
        """
        took, count = self.took.get(stage), units(self.config).get(stage, 0)
        if not took or not count or self.carried.get(stage, 0) > took.calls:
            return None
        working = None if took.seconds is None else max(0.0, took.seconds - took.every_start)
        return StageTook(
            None if working is None else working / count,
            took.calls / count,
            took.prompt_tokens / count,
            took.completion_tokens / count,
            one_start=took.one_start,
        )


def look(folder: Path) -> Seen:
    """Read a run, also while it works. UsageError for one without a corpus."""
    corpus = folder / reader.CORPUS
    if not corpus.exists():
        raise UsageError(
            "this run has nothing to learn from",
            where=str(corpus),
            fix="name a run that has finished at least one stage",
        )
    return gather(folder, frozen_recipe(folder), lambda sql: reader.read(folder, sql).as_dicts())


def gather(folder: Path, config: Config, read: Callable[[str], list[dict[str, Any]]]) -> Seen:
    """What the corpus of a run folder says, through a function that takes SQL."""
    took = {row.pop("stage"): StageTook(**row) for row in read(_STAGES)}
    trials = read(_CALIBRATED)
    trial = calibrated(config, json.loads(trials[0]["detail"])) if trials else None
    corpus_bytes = (folder / reader.CORPUS).stat().st_size
    calls, forks = read(_CALLS), read(_FORKED)
    return Seen(
        folder.name,
        config,
        took,
        corpus_bytes,
        sum(row["calls"] for row in calls),
        trial,
        begun={
            row["stage"]: row["calls"]
            for row in calls
            if not row["carried"] and row["stage"] not in took
        },
        carried={row["stage"]: row["calls"] for row in calls if row["carried"]},
        fork=fork_of(json.loads(forks[0]["detail"])) if forks else None,
    )
