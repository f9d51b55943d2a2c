"""Trainings side by side, of one run or of several: scores on test, and differences by prompt.

A difference is paired: the mean over the prompts that both were judged on, with the same reference
and the same rule, and a bootstrap over those prompts. Trainings of one run share all their prompts;
runs share those whose mix, instruction and reference are the same, as a fork's mostly are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localism import reader
from localism.errors import UsageError
from localism.training.sets import MAIN

COLUMNS = (
    "training", "set", "seed", "examples", "epoch", "win_rate", "low", "high", "lc_win_rate",
    "characters", "difference", "difference_low", "difference_high", "prompts",
)  # fmt: skip
SEED = 0


@dataclass(frozen=True)
class Entry:
    """A training whose pick was measured on test."""

    label: str
    """As it is shown."""
    facts: dict[str, Any]
    """Set, seed, examples, epoch and scores."""
    preferences: dict[str, float]
    """Prompt (a hash of mix, instruction, reference and judging) -> preference, 0 to 1."""


def compare(names: Sequence[str], own: Path, folder_of: Callable[[str], Path]) -> reader.Table:
    """A row for each name, the differences against the first; all trainings of `own` if no name.

    A name is a training of run `own`, or a run, or RUN:TRAINING. Raises UsageError for a name that
    is neither, or that has not been measured.
    """
    entries = [_entry(name, own, folder_of) for name in names or _measured(own)]
    if not entries:
        raise UsageError(
            "no training of this run has been measured on test",
            where=str(own),
            fix=f"localism evaluate --run {own.name}",
        )
    return reader.Table(list(COLUMNS), [_row(entry, entries[0]) for entry in entries])


def _measured(folder: Path) -> list[str]:
    """Trainings with a measured pick, the run's own first."""
    rows = reader.read(
        folder,
        "SELECT DISTINCT c.training FROM checkpoint c JOIN score s ON s.model_id = c.checkpoint_id"
        " WHERE c.picked AND s.split = 'test' ORDER BY c.training <> 'main', c.training",
    ).rows
    return [row[0] for row in rows]


def _entry(name: str, own: Path, folder_of: Callable[[str], Path]) -> Entry:
    if name in _measured(own):
        return _load(own, name, name)
    run_name, _, training = name.partition(":")
    try:
        folder = folder_of(run_name)
    except UsageError:
        raise UsageError(
            f"{name!r} is no measured training of run {own.name}, and no run",
            where=f"--run {own.name}",
            fix=f"name some of: {', '.join(_measured(own)) or 'none here'}; or runs, or"
            " RUN:TRAINING; localism evaluate --on SET measures a training",
        ) from None
    training = training or MAIN
    if training not in _measured(folder):
        raise UsageError(
            f"{training!r} of run {folder.name} has not been measured on test",
            where=name,
            fix=f"name some of: {', '.join(_measured(folder)) or 'none there'}",
        )
    return _load(folder, training, name)


def _load(folder: Path, training: str, label: str) -> Entry:
    (facts,) = reader.read(folder, FACTS.format(training=_quoted(training))).as_dicts()
    rows = reader.read(folder, PREFERENCES.format(training=_quoted(training))).rows
    return Entry(label, facts, {prompt: value for prompt, value in rows if value is not None})


def _quoted(text: str) -> str:
    return text.replace("'", "''")


FACTS = """
WITH test AS (SELECT * FROM score WHERE split = 'test')
SELECT coalesce(t.set_name, 'accepted') AS set,
       coalesce(t.seed, (SELECT any_value(recipe->>'$.seed')::BIGINT FROM run)) AS seed,
       CASE WHEN coalesce(t.set_name, 'accepted') = 'accepted'
            THEN (SELECT count(*) FROM candidate JOIN mix USING (mix_id)
                  WHERE status = 'accepted' AND split = 'train')
            ELSE (SELECT count(*) FROM set_example e
                  WHERE e.set_name = t.set_name AND e.status = 'accepted') END AS examples,
       c.epoch, w.value AS win_rate, w.low, w.high, l.value AS lc_win_rate,
       n.value AS characters
FROM checkpoint c LEFT JOIN training t ON t.name = c.training
LEFT JOIN test w ON w.model_id = c.checkpoint_id AND w.metric = 'win_rate'
LEFT JOIN test l ON l.model_id = c.checkpoint_id AND l.metric = 'lc_win_rate'
LEFT JOIN test n ON n.model_id = c.checkpoint_id AND n.metric = 'mean_length'
WHERE c.picked AND c.training = '{training}'
"""

# Half a pair of orders would bring the advantage of a position in; see judging.pairwise.battles.
PREFERENCES = """
WITH rule AS (
    SELECT any_value(recipe->>'$.judge.kind') AS kind,
           CASE WHEN bool_or(recipe->>'$.pick.both_orders' = 'false'
                             OR recipe->>'$.judge.kind' = 'likelihood') THEN 1 ELSE 2 END AS orders
    FROM run
)
SELECT md5(concat_ws(chr(0), a.mix_id, d.instruction, d.response, kind, orders)) AS prompt,
       CASE WHEN count(j.preference) = any_value(orders) THEN avg(j.preference) END AS preference
FROM rule, checkpoint c JOIN answer a ON a.model_id = c.checkpoint_id AND a.split = 'test'
JOIN candidate d USING (mix_id) LEFT JOIN judgment j USING (answer_id)
WHERE c.picked AND c.training = '{training}' AND d.status = 'accepted'
GROUP BY ALL ORDER BY prompt
"""


def _row(entry: Entry, first: Entry) -> list[Any]:
    facts = {name: _rounded(value) for name, value in entry.facts.items()}
    return [entry.label, *facts.values(), *_difference(entry, first)]


def _difference(entry: Entry, first: Entry) -> list[Any]:
    """Value, low, high, prompts; nothing for the first itself, or where no prompt is shared."""
    import numpy as np

    from localism.judging.picking import paired_difference

    shared = sorted(entry.preferences.keys() & first.preferences.keys())
    if entry is first or not shared:
        return [None, None, None, len(shared)]
    mine, other = (np.array([one.preferences[p] for p in shared]) for one in (entry, first))
    found = paired_difference(mine, other, seed=SEED)
    return [_rounded(found.value), _rounded(found.low), _rounded(found.high), found.n]


def _rounded(value: Any) -> Any:
    return round(value, 1) + 0.0 if isinstance(value, float) else value  # no -0.0
