"""What an earlier run took for each unit of each stage: calls, tokens, seconds.

Wall time of a stage is the time until its end, without the hours in which nobody worked on it: a
stage that was cut off counts until the last thing that it wrote, and again from its next start.
What came after its end, as benchmarks do, is not counted.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localism import reader
from localism.config import Config
from localism.errors import UsageError
from localism.planning.work import units
from localism.recipe import frozen_recipe

# A gap between two finished calls of a stage that is longer than this is nobody's work.
IDLE_SECONDS = 600
_STAGES = f"""
WITH own AS (
    FROM turn ANTI JOIN event e ON e.kind = 'forked' AND turn.finished_at <= e.happened_at
), ended AS (
    SELECT stage, max(happened_at) AS moment FROM event WHERE kind = 'stage_finished' GROUP BY stage
), moments AS (
    SELECT stage, happened_at AS moment, kind = 'stage_started' AS is_start FROM event
    WHERE stage IS NOT NULL AND kind <> 'stage_reopened'
    UNION ALL
    SELECT stage, finished_at, false FROM own
), gaps AS (
    SELECT stage, moments.is_start,
           epoch(moments.moment - lag(moments.moment) OVER before) AS seconds
    FROM moments JOIN ended USING (stage) WHERE moments.moment <= ended.moment
    WINDOW before AS (PARTITION BY stage ORDER BY moments.moment)
), worked AS (
    SELECT stage, sum(seconds) FILTER (NOT is_start AND seconds < {IDLE_SECONDS}) AS seconds
    FROM gaps GROUP BY stage
), asked AS (
    SELECT stage, count(*) AS calls, sum(prompt_tokens) AS prompt_tokens,
           sum(completion_tokens) AS completion_tokens
    FROM own JOIN ended USING (stage) WHERE finished_at <= moment GROUP BY stage
)
SELECT stage, seconds, coalesce(calls, 0)::BIGINT AS calls,
       coalesce(prompt_tokens, 0)::BIGINT AS prompt_tokens,
       coalesce(completion_tokens, 0)::BIGINT AS completion_tokens
FROM worked LEFT JOIN asked USING (stage)
"""


@dataclass(frozen=True)
class StageTook:
    """What a finished stage took in all."""

    seconds: float
    """Of work."""
    calls: float
    """Model calls that it made."""
    prompt_tokens: float
    """Sent with them."""
    completion_tokens: float
    """Written by them."""


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

    def each(self, stage: str) -> StageTook | None:
        """What one unit of a stage took, as fractions; None where it was not finished."""
        took, count = self.took.get(stage), units(self.config).get(stage, 0)
        if not took or not count:
            return None
        return StageTook(
            took.seconds / count,
            took.calls / count,
            took.prompt_tokens / count,
            took.completion_tokens / count,
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
    rows: list[dict[str, Any]] = reader.read(folder, _STAGES).as_dicts()
    took = {
        row.pop("stage"): StageTook(**{**row, "seconds": float(row["seconds"] or 0)})
        for row in rows
    }
    return Seen(folder.name, frozen_recipe(folder), took, corpus.stat().st_size)
