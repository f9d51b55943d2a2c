"""Benchmarks, judges and trainings: rows of the corpus as blocks that the page shows."""

from pathlib import Path
from typing import Any

from localism import compare
from localism.reader import Table
from localism.store import Row, Store

# How to read what is known of a judge; a metric that is not here is shown without.
CHECKS = {
    "agreement": "how often it prefers what people or references prefer",
    "position_bias": "how much the place of an answer moves it; 0 is none",
    "position_advantage": "points that the first place is worth; 0 is none",
    "position_flips": "percent of pairs whose winner changes with the order; 0 is best",
    "length_slope": "logits for length alone; below 0 it likes length",
    "self_preference": "how much it favours its own answers; 0 is none",
    "retest": "how often it says the same again",
    "injection": "how often an answer that gives it orders wins by that",
}
# Axes that people know; the first that holds all values is taken.
SCALES = ((0.0, 1.0), (0.0, 10.0), (0.0, 100.0), (-100.0, 100.0))
LENGTHS = ("mean_length", "mean_tokens")


def scale(rows: list[Row], keys: tuple[str, ...] = ("value", "low", "high")) -> list[float]:
    """The ends of an axis that holds every value and interval of the rows."""
    ends = [float(row[key]) for row in rows for key in keys if row[key] is not None]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    for left, right in SCALES:
        if left <= low and high <= right:
            return [left, right]
    pad = 0.06 * (high - low or abs(high) or 1.0)
    return [0.0 if low >= 0 else low - pad, high + pad]


# Of lm-eval the tasks are whole, in view evaluations; subjects of MMLU are its parts.
_PARTS = """
SELECT * FROM suite_score
WHERE part <> '' AND (suite <> 'lm-eval' OR part LIKE 'mmlu\\_%' ESCAPE '\\')
ORDER BY suite, metric, judge, part, model_id
"""


def suites(store: Store, judges: dict[str, list[Row]]) -> list[dict[str, Any]]:
    """A block a suite: what it is, a leaderboard a metric and judge, parts, and its judges."""
    about = {row["suite"]: row for row in store.query("SELECT * FROM suite")}
    whole, parts = store.query("SELECT * FROM evaluations"), store.query(_PARTS)
    names = sorted(about.keys() | {row["suite"] for row in whole + parts})

    def of(name: str, rows: list[Row]) -> list[Row]:
        return [row for row in rows if row["suite"] == name]

    return [
        _suite(name, about.get(name), of(name, whole), of(name, parts), judges) for name in names
    ]


def _suite(
    name: str,
    about: Row | None,
    whole: list[Row],
    parts: list[Row],
    judges: dict[str, list[Row]],
) -> dict[str, Any]:
    asked = sorted({row["judge"] for row in whole + parts if row["judge"]})
    return {
        "suite": name,
        "about": about,
        "boards": [_board(rows) for rows in _groups(whole, ("metric", "judge"))],
        "parts": [_parts(rows) for rows in _groups(parts, ("metric", "judge"))],
        "judges": [{"name": judge, "checks": judges.get(judge, [])} for judge in asked],
        "is_sample": bool(about and about["is_sample"]),
    }


def _groups(rows: list[Row], keys: tuple[str, ...]) -> list[list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return list(found.values())


def _board(rows: list[Row]) -> dict[str, Any]:
    """One metric by one judge, best model first."""
    return {
        "metric": rows[0]["metric"],
        "judge": rows[0]["judge"],
        "rows": rows,
        "scale": scale(rows),
    }


def _parts(rows: list[Row]) -> dict[str, Any]:
    """One metric by categories (rows) and models (columns)."""
    models = sorted({row["model_id"] for row in rows}, key=lambda name: (name == "base", name))
    cells = {(row["part"], row["model_id"]): row for row in rows}
    parts = sorted({row["part"] for row in rows})
    return {
        "metric": rows[0]["metric"],
        "judge": rows[0]["judge"],
        "models": models,
        "rows": [
            {"part": part, "cells": [cells.get((part, model)) for model in models]}
            for part in parts
        ],
        "scale": scale(rows),
    }


def judges(store: Store, role: str) -> dict[str, list[Row]]:
    """What is known of each judge: stage pick's measures of the run's own, and judge check's.

    `role` is what the run's own judge is called on the page.
    """
    found: dict[str, list[Row]] = {}
    own = store.query("SELECT * FROM score WHERE model_id = 'judge' ORDER BY metric")
    if own:
        found[role] = [{**row, "source": f"on {row['split']}, by pick"} for row in own]
    for row in store.query("SELECT * FROM judge_check ORDER BY judge, metric"):
        found.setdefault(row["judge"], []).append({**row, "source": "judge check"})
    return found


def trainings(store: Store, folder: Path) -> dict[str, Any] | None:
    """Every measured training beside the run's own, and the paper's tables that they fill.

    None where there is no other.
    """
    if len(compare.measured(store.query)) < 2:
        return None
    rows = compare.side_by_side(store.query, folder).as_dicts()
    keys = ("difference", "difference_low", "difference_high")
    return {
        "rows": rows,
        "scale": _around_zero(rows, keys),
        "bases": sorted({row["basis"] for row in rows if row["basis"]}),
        "paper": [
            {"about": about, "columns": _columns(compare.condensed(table))}
            for about, table in compare.paper_tables([("", store.query)])
        ],
    }


def _columns(table: Table) -> list[dict[str, Any]]:
    """Name, cells, and whether they are numbers; numbers that are all whole without a fraction."""
    found = []
    for name, cells in zip(table.columns, zip(*table.rows, strict=True), strict=True):
        known = [cell for cell in cells if cell is not None]
        is_number = all(isinstance(cell, int | float) for cell in known)
        if is_number and all(float(cell).is_integer() for cell in known):
            cells = tuple(None if cell is None else int(cell) for cell in cells)
        found.append({"name": name, "cells": cells, "is_number": is_number})
    return found


def _around_zero(rows: list[Row], keys: tuple[str, ...]) -> list[float]:
    """An axis that holds no difference too, with some room on both sides."""
    ends = [0.0, *(row[key] for row in rows for key in keys if row[key] is not None)]
    room = 0.1 * ((max(ends) - min(ends)) or 1.0)
    return [min(ends) - room, max(ends) + room]
