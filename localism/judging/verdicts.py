"""Verdicts of judges as the corpus has them, so that a check asks only what nobody asked before.

The run's own judge compared dev and test answers with the teacher's (table judgment). Benchmarks
(table suite_judgment) may have been judged by several; there a second judge's verdicts on the
run's own prompts are kept too, as suite 'run/dev', which is no name that a benchmark can have.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from localism.judging.checks import SideBySide, side_by_side
from localism.judging.newton import Array

Read = Callable[[str], list[dict[str, Any]]]
"""Runs a query on the corpus of one run."""
OWN_DEV = "run/dev"
SIDES = {True: "answer-first", False: "answer-second"}
"""Aspects of a pair that is shown in both orders, by answer_first."""
LIKELIHOOD = "likelihood"
LEVEL = 0.5
"""Of the answer that all others were compared with, where verdicts are preferences."""

_VERDICTS = """
WITH verdict AS (
    SELECT 'run/' || split AS suite, mix_id AS item_id, model_id, '{own}' AS judge,
           preference AS value, true AS is_preference,
           CASE WHEN '{kind}' = 'likelihood' THEN 'likelihood'
                WHEN answer_first THEN 'answer-first' ELSE 'answer-second' END AS aspect
    FROM judgment
    UNION ALL
    SELECT j.suite, item_id, model_id, judge, value,
           coalesce(protocol = 'alpacaeval', starts_with(j.suite, 'run/')) AS is_preference, aspect
    FROM suite_judgment j LEFT JOIN suite s ON s.suite = j.suite
)
"""


@dataclass(frozen=True)
class Corpus:
    """Where verdicts are read from."""

    read: Read
    """Runs a query."""
    own: str
    """What the run's own judge is called."""
    kind: str
    """How it compares: letter or likelihood."""

    def query(self, sql: str) -> list[dict[str, Any]]:
        """A query that may use the table `verdict` (suite, item_id, model_id, judge, ...)."""
        return self.read(_VERDICTS.format(own=quoted(self.own), kind=self.kind) + sql)


def quoted(text: str) -> str:
    """A text within single quotes of SQL."""
    return text.replace("'", "''")


def judges(corpus: Corpus) -> list[str]:
    """Who has judged anything here, the run's own judge first."""
    rows = corpus.query("SELECT DISTINCT judge FROM verdict ORDER BY judge")
    return sorted((row["judge"] for row in rows), key=lambda name: name != corpus.own)


def both_ways(corpus: Corpus, judge: str) -> tuple[Array, Array]:
    """A judge's preferences (N,) for all answers that it saw first and second, NaN = unscored."""
    rows = corpus.query(
        f"""
        SELECT max(value) FILTER (aspect = '{SIDES[True]}') AS first,
               max(value) FILTER (aspect = '{SIDES[False]}') AS second
        FROM verdict WHERE judge = '{quoted(judge)}' AND is_preference
        GROUP BY suite, item_id, model_id HAVING count(DISTINCT aspect) = 2
        ORDER BY suite, item_id, model_id
        """
    )
    columns = np.array([(row["first"], row["second"]) for row in rows], dtype=float)
    return (columns[:, 0], columns[:, 1]) if rows else (np.zeros(0), np.zeros(0))


# ---- two judges ----------------------------------------------------------------------------


@dataclass(frozen=True)
class SharedSuite:
    """What two judges made of the same answers."""

    suite: str
    """A benchmark, or run/dev, run/test."""
    models: tuple[str, ...]
    """Whose answers, the M rows."""
    items: tuple[str, ...]
    """To what, the N columns."""
    first: Array
    """(M, N) mean values by the one judge; NaN where it has none, or an aspect is unscored."""
    second: Array
    """(M, N) by the other."""
    is_preference: bool
    """Whether values are preferences over one reference answer."""

    def compared(self, *, seed: int, resamples: int) -> SideBySide:
        """How alike they are."""
        reference = LEVEL if self.is_preference else None
        return side_by_side(
            self.first, self.second, reference=reference, seed=seed, resamples=resamples
        )


def shared(corpus: Corpus, judge: str, other: str) -> list[SharedSuite]:
    """Every suite with answers that both judged, and those answers."""
    names = f"'{quoted(judge)}', '{quoted(other)}'"
    rows = corpus.query(
        f"""
        , of_answer AS (
            SELECT suite, item_id, model_id, judge, bool_and(is_preference) AS is_preference,
                   CASE WHEN count(*) = count(value) THEN avg(value) END AS value
            FROM verdict WHERE judge IN ({names}) GROUP BY suite, item_id, model_id, judge
        )
        SELECT a.suite, a.item_id, a.model_id, a.is_preference, a.value AS first, b.value AS second
        FROM of_answer a JOIN of_answer b USING (suite, item_id, model_id)
        WHERE a.judge = '{quoted(judge)}' AND b.judge = '{quoted(other)}'
        ORDER BY a.suite, a.model_id, a.item_id
        """
    )
    suites = dict.fromkeys(row["suite"] for row in rows)
    return [_shared(name, [row for row in rows if row["suite"] == name]) for name in suites]


def _shared(suite: str, rows: Sequence[dict[str, Any]]) -> SharedSuite:
    models = {
        model: place for place, model in enumerate(dict.fromkeys(r["model_id"] for r in rows))
    }
    items = {item: place for place, item in enumerate(sorted({row["item_id"] for row in rows}))}
    values = np.full((2, len(models), len(items)), np.nan)
    for row in rows:
        place = models[row["model_id"]], items[row["item_id"]]
        values[:, *place] = row["first"], row["second"]  # numpy reads None as NaN
    return SharedSuite(
        suite, tuple(models), tuple(items), values[0], values[1], rows[0]["is_preference"]
    )
