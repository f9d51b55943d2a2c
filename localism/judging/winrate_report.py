"""A CSV of judgments -> one plain object a model, for `localism winrate FILE.csv`.

localism winrate preferences.csv --json
"""

from pathlib import Path
from typing import Any

import numpy as np

from localism.errors import ConfigError, UsageError
from localism.judging.alpacaeval import CompatScores, compat_length_controlled
from localism.judging.alpacaeval_files import read_difficulty_csv, read_gamed, read_preferences_csv
from localism.judging.picking import RESAMPLES, Comparison, compare, model_scores, pick
from localism.judging.winrate import Battles

STEEPEST_SLOPE = 20.0
COMPAT_NOTE = "AlpacaEval 2's own formula: it holds for that set's items, judge and baseline only"
STAND_IN_NOTE = "no gamed rows were given: a Gaussian prior on the slopes stands in for them"


def winrate_report(
    path: Path | str,
    *,
    compat: bool = False,
    difficulty: Path | str | None = None,
    gamed: Path | str | None = None,
    gamed_lengths: Path | str | None = None,
    phi_calibrated: float | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[dict[str, Any]]:
    """Score every model of a preferences file; objects in order of first appearance, JSON-ready.

    All scores are percent points or None. low and high bound lc_win_rate at 95%; best and tied are
    the pick and its 90% tie set. compat: AlpacaEval's formula, which needs difficulty, and takes
    gamed with gamed_lengths. phi_calibrated: the judge's own length slope, for the joint estimator.
    Raises UsageError for options that do not go together, ConfigError for a bad file.
    """
    if not compat and (difficulty or gamed or gamed_lengths):
        raise _misused(
            "--difficulty, --gamed and --gamed-lengths belong to --compat", "add --compat"
        )
    if compat and not difficulty:
        raise _misused("--compat needs the items' difficulties", "add --difficulty FILE.csv")
    if compat and phi_calibrated is not None:
        raise _misused("--compat has no use for --length-slope", "leave the slope out")
    if phi_calibrated is not None and not abs(phi_calibrated) <= STEEPEST_SLOPE:  # nor NaN
        raise _misused(
            f"--length-slope {phi_calibrated} is no slope of a judge",
            "give a number between -20 and 20; GPT-4's is about -1.75",
        )
    if bool(gamed) != bool(gamed_lengths):
        raise _misused("--gamed and --gamed-lengths go together", "give both or neither")
    battles = read_preferences_csv(path)
    if difficulty:
        comparison = _compare_compat(
            battles, Path(path), Path(difficulty), gamed, gamed_lengths, seed, resamples
        )
    else:
        comparison = compare(battles, seed=seed, resamples=resamples, phi_calibrated=phi_calibrated)
    return _plain(comparison)


def _misused(problem: str, fix: str) -> UsageError:
    return UsageError(problem, where="localism winrate", fix=fix)


def _compare_compat(
    battles: Battles,
    path: Path,
    difficulty_path: Path,
    gamed: Path | str | None,
    gamed_lengths: Path | str | None,
    seed: int,
    resamples: int,
) -> Comparison:
    """AlpacaEval's formula in the joint estimator's clothes."""
    by_index = read_difficulty_csv(difficulty_path)
    absent = [item for item in battles.items if item not in by_index]
    if absent:
        raise ConfigError(
            f"{len(absent)} of {len(battles.items)} indices have no difficulty, as {absent[0]!r}",
            where=f"{difficulty_path}, for {path}",
            fix="add them, or leave out --compat, which needs no difficulties",
        )
    block = read_gamed(gamed, gamed_lengths, by_index) if gamed and gamed_lengths else None
    of_items = np.array([by_index[item] for item in battles.items])
    scores: CompatScores = compat_length_controlled(
        battles, of_items, block, seed=seed, resamples=resamples
    )
    return Comparison(
        scores=model_scores(battles, scores.values, scores.resampled),
        pick=pick(battles, scores.values, scores.resampled),
        approximate=block is None,
        notes=(COMPAT_NOTE,) if block else (COMPAT_NOTE, STAND_IN_NOTE),
    )


def _plain(comparison: Comparison) -> list[dict[str, Any]]:
    """The comparison as JSON types."""
    return [
        {
            "model": score.model,
            "win_rate": score.win_rate.value,
            "standard_error": score.win_rate.standard_error,
            "lc_win_rate": score.lc_win_rate,
            "low": score.lc_interval.low,
            "high": score.lc_interval.high,
            "lc_standard_error": score.lc_standard_error,
            "win_rate_low": score.win_rate_interval.low,
            "win_rate_high": score.win_rate_interval.high,
            "n": score.win_rate.n,
            "unscored": score.win_rate.unscored,
            "best": m == comparison.pick.best,
            "tied": m in comparison.pick.tied,
            "approximate": comparison.approximate,
            "notes": list(comparison.notes),
        }
        for m, score in enumerate(comparison.scores)
    ]
