"""Which estimator picks the best checkpoint, and do its intervals and tie sets hold?

    python benchmarks/picking.py --repeats 150 --alpacaeval ../shared/data/alpacaeval

Made data of known truth: 15 checkpoints, items of different difficulty, a noisy judge with a taste
for length and for a position, seen in both orders. The taste acts on the ratio of lengths, not on
the term that the estimator uses, and the spreads are not those of its priors, so that it is not
flattered by data drawn from itself. Four worlds: lengths alike; worse checkpoints write more
(length confounds), also with a taste for the estimator's own term; checkpoints of nearly the same
quality. For 50, 100 and 200 instructions:
regret (points of true win rate lost by the pick), how often the best is found, the error of the
level; for the joint model also the coverage of its 95% intervals and how often the tie set holds
the true best. The calibrated slope is the true one with the error of a real calibration.

With --alpacaeval (public judgments of 12 models, absent from this repository): the published scores
recomputed, and picks among 11 of these models from 100 of the 805 instructions, with the official
score as truth. A table for people, then one line of JSON, also in benchmarks/results/picking.json.
"""

import argparse
import csv
import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit
from scipy.stats import spearmanr

from localism.judging.alpacaeval_files import read_preferences_csv
from localism.judging.calibration import TRANSFER_ERROR
from localism.judging.jointfit import Priors
from localism.judging.newton import Array
from localism.judging.picking import best_of, compare
from localism.judging.winrate import (
    Battles,
    length_controlled,
    length_terms,
    priors_for,
    win_rate,
)
from localism.judging.winrate_report import winrate_report

RESULT = Path(__file__).parent / "results" / "picking.json"
CHECKPOINTS = 15
INSTRUCTIONS = (50, 100, 200)
DIFFICULTY_SD = 1.7
TASTE = 0.9  # logits for an answer e^.5 times as long as the reference
TASTE_SD = 0.25  # of checkpoints
SPREAD_OF_TERM = 0.65  # of tanh over lengths as they are drawn here
POSITION = 0.7  # logits for the answer that is shown second
CERTAINTY = 1.5  # of one verdict: beta(p * CERTAINTY, (1 - p) * CERTAINTY)
CALIBRATION_ERROR = 0.3  # of the slope, from some 50 rewritten references
MISCALIBRATED_BY = 1.5  # where rewrites are judged otherwise than answers
POPULATION = 20_000
# Models whose judgments were gamed on purpose; facts of the leaderboard, not of an estimator.
GAMED = "gpt4_gamed"
# Table 10 of the paper: 15 epochs on 100 held-out prompts. The single judgments are unpublished.
TABLE_10 = {
    "lc": "20.7 20.4 27.8 28.2 37.0 35.2 45.5 44.1 45.6 39.5 52.8 42.8 45.6 38.5 44.1",
    "raw": "34.1 42.8 63.1 61.8 69.7 69.8 75.3 76.2 76.2 71.7 82.3 74.4 73.1 70.6 74.0",
    "ce": "1.21 1.18 1.19 1.23 1.30 1.43 1.61 1.78 1.97 2.11 2.19 2.23 2.24 2.24 2.24",
}


class World(NamedTuple):
    """What the checkpoints are like."""

    quality: Array
    """(M,) logits of winning at equal length against an item of average difficulty."""
    longer: Array
    """(M,) mean log of the ratio of lengths, answer over reference."""
    own_term: bool = False
    """The taste acts on the estimator's own length term rather than on the ratio of lengths."""


def worlds(rng: np.random.Generator) -> dict[str, World]:
    """One draw of each world; a quality that rises and levels off, with noise, as in training."""
    epochs = np.arange(CHECKPOINTS)
    rising = -1.6 + 1.5 * (1 - np.exp(-epochs / 3)) + rng.normal(0, 0.2, CHECKPOINTS)
    alike = rng.normal(-0.4, 0.12, CHECKPOINTS)
    any_length = rng.normal(0, 0.25, CHECKPOINTS)
    against = -0.5 * (rising - rising.mean()) / rising.std() + rng.normal(0, 0.15, CHECKPOINTS)
    return {
        "lengths alike": World(rising, rng.normal(0, 0.03, CHECKPOINTS)),
        "length confounds": World(rising, against),
        "confounds, own term": World(rising, against, own_term=True),
        "quality alike": World(alike, any_length),
    }


def judged(world: World, items: int, rng: np.random.Generator) -> Battles:
    """The judge's mean preferences over both orders, and the lengths."""
    shape = (CHECKPOINTS, items)
    difficulty = rng.normal(0, DIFFICULTY_SD, items)
    taste = rng.normal(TASTE, TASTE_SD, CHECKPOINTS)[:, None]
    log_ratio = rng.normal(world.longer[:, None], 0.4, shape)
    baseline = np.broadcast_to(np.round(rng.lognormal(7, 0.5, items)), shape)
    kinds = zip("ei", shape, strict=True)
    names = [tuple(f"{kind}{n}" for n in range(count)) for kind, count in kinds]
    blank = Battles(
        *names, np.zeros(shape), np.round(baseline * np.exp(log_ratio)), baseline.copy()
    )
    liking = np.clip(log_ratio / 0.5, -2, 2)
    if world.own_term:
        liking = -length_terms(blank) / SPREAD_OF_TERM
    logit = world.quality[:, None] + difficulty + taste * liking
    preference = np.zeros(shape)
    for shift in (POSITION, -POSITION):
        chance = expit(logit + shift)
        verdict = rng.beta(chance * CERTAINTY + 1e-3, (1 - chance) * CERTAINTY + 1e-3)
        preference += verdict / 2
    return replace(blank, preference=preference)


def true_scores(world: World) -> Array:
    """(M,) win rate at equal length over the whole population of items, in percent."""
    difficulty = DIFFICULTY_SD * np.random.default_rng(0).normal(size=POPULATION)
    logit = world.quality[:, None] + difficulty
    return 50 * sum(expit(logit + shift).mean(axis=1) for shift in (POSITION, -POSITION))


def judges_slope() -> float:
    """The judge's slope in the estimator's own units, as a perfect calibration would find it.

    Checkpoints of equal quality and any length, on more items than a run has.
    """
    rng = np.random.default_rng(1)
    world = World(np.zeros(CHECKPOINTS), np.linspace(-0.5, 0.5, CHECKPOINTS))
    priors = Priors(1e-3, 2.5, 0.0, 5.0, 0.3)
    slope = length_controlled(judged(world, 2000, rng), priors=priors).phi_mean
    assert slope is not None
    return slope


# ---- estimators ----------------------------------------------------------------------------


def raw(battles: Battles) -> Array:
    """The mean preference."""
    return np.array([win_rate(row).value for row in battles.preference])


def each_alone(battles: Battles, priors: Priors) -> Array:
    """One fit a model, nothing shared."""
    values = []
    for m, name in enumerate(battles.models):
        rows = [
            array[[m]] for array in (battles.preference, battles.len_model, battles.len_baseline)
        ]
        values += length_controlled(Battles((name,), battles.items, *rows), priors=priors).values
    return np.array(values, dtype=float)


def joint(battles: Battles, phi: float | None = None, error: float = 0.0) -> Array:
    """All models together, with or without a slope that is known with this error."""
    fit = length_controlled(battles, phi_calibrated=phi, phi_error=error)
    return np.array(fit.values, dtype=float)


FREE = Priors(100.0, 1e-3, 0.0, 0.0, 100.0)


def estimators(slope: float) -> dict[str, Callable[[Battles], Array]]:
    """By name; `slope` is what a calibration found."""
    width, wrong = math.hypot(CALIBRATION_ERROR, TRANSFER_ERROR), slope + MISCALIBRATED_BY
    return {
        "raw win rate": raw,
        "GLM of each model": lambda battles: each_alone(battles, FREE),
        "GLM of each, slope -1": lambda battles: each_alone(battles, priors_for(1, None)),
        "joint": joint,
        "joint, calibrated": lambda battles: joint(battles, slope, width),
        "joint, slope wrong": lambda battles: joint(battles, wrong, width),
        "joint, wrong and trusted": lambda battles: joint(battles, wrong),
    }


# ---- made data -----------------------------------------------------------------------------


def mean_and_error(values: list[float]) -> list[float]:
    """Mean and its standard error."""
    return [
        round(float(np.mean(values)), 3),
        round(float(np.std(values, ddof=1)) / math.sqrt(len(values)), 3),
    ]


def made_data(repeats: int, resamples: int) -> list[dict[str, Any]]:
    """A row for each world, number of instructions and estimator."""
    slope = judges_slope()
    rows = []
    for name in worlds(np.random.default_rng(0)):
        for items in INSTRUCTIONS:
            drawn = [_one(name, items, seed, slope, resamples) for seed in range(repeats)]
            for estimator in drawn[0]:
                kept = [one[estimator] for one in drawn]
                row = {
                    measure: mean_and_error([one[measure] for one in kept]) for measure in kept[0]
                }
                rows.append({"world": name, "instructions": items, "estimator": estimator, **row})
                print(_line(rows[-1]), flush=True)
    return rows


def _one(
    name: str, items: int, seed: int, slope: float, resamples: int
) -> dict[str, dict[str, float]]:
    """Every estimator's measures on one draw of a world."""
    rng = np.random.default_rng([seed, items])
    world = worlds(rng)[name]
    truth, battles = true_scores(world), judged(world, items, rng)
    calibrated = slope + CALIBRATION_ERROR * rng.normal()
    found = {
        estimator: _measures(estimate(battles), truth)
        for estimator, estimate in estimators(calibrated).items()
    }
    comparison = compare(battles, seed=seed, resamples=resamples)
    bounds = [score.lc_interval for score in comparison.scores]
    inside = [low <= value <= high for (low, high), value in zip(bounds, truth, strict=True)]
    found["joint"] |= {
        "coverage": float(np.mean(inside)),
        "tie_set_has_best": float(int(truth.argmax()) in comparison.pick.tied),
        "tie_set_size": float(len(comparison.pick.tied)),
    }
    return found


def _measures(values: Array, truth: Array) -> dict[str, float]:
    picked = int(values.argmax())
    return {
        "regret": float(truth.max() - truth[picked]),
        "finds_best": float(picked == int(truth.argmax())),
        "level_error": float(np.abs(values - truth).mean()),
    }


def _line(row: dict[str, Any]) -> str:
    names = ("world", "instructions", "estimator")
    cells = [f"{row['world']:17} {row['instructions']:4} {row['estimator']:22}"]
    cells += [
        f"{name} {value[0]:6.2f} ±{value[1]:.2f}"
        for name, value in row.items()
        if name not in names
    ]
    return "  ".join(cells)


# ---- public judgments ----------------------------------------------------------------------


def public(folder: Path, repeats: int) -> dict[str, Any]:
    """AlpacaEval's own scores recomputed, and picks from parts of its instructions."""
    with open(folder / "expected.csv", encoding="utf-8") as file:
        official = {row["model"]: row for row in csv.DictReader(file)}
    report = winrate_report(
        folder / "preferences.csv", compat=True, difficulty=folder / "instruction_difficulty.csv",
        gamed=folder / "gamed_constants.json", gamed_lengths=folder / "gamed_lengths.csv",
        resamples=2,
    )  # fmt: skip

    def off(ours: str, theirs: str) -> Array:
        return np.array([abs(row[ours] - float(official[row["model"]][theirs])) for row in report])

    compat = off("lc_win_rate", "length_controlled_winrate")
    everything = read_preferences_csv(folder / "preferences.csv")
    kept = [m for m, name in enumerate(everything.models) if name != GAMED]
    pool = _part(everything, kept, list(range(len(everything.items))))
    truth = np.array([float(official[name]["length_controlled_winrate"]) for name in pool.models])
    whole = np.array(length_controlled(pool, phi_calibrated=-1.75).values, dtype=float)
    return {
        "win_rate_max_error": float(off("win_rate", "win_rate").max()),
        "standard_error_max_error": float(off("standard_error", "standard_error").max()),
        "compat_mean_error": round(float(compat.mean()), 4),
        "compat_max_error": round(float(compat.max()), 4),
        "joint_mean_error": round(float(np.abs(whole - truth).mean()), 3),
        "joint_max_error": round(float(np.abs(whole - truth).max()), 3),
        "joint_rank_correlation": round(float(spearmanr(whole, truth).statistic), 3),
        "picks_from_100": _picks(pool, truth, repeats),
    }


def _picks(pool: Battles, truth: Array, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Regret and success of picks among the models from 100 instructions, drawn again and again."""
    drawn = []
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        items = rng.choice(len(pool.items), 100, replace=False).tolist()
        # six of them: with all eleven the same leader, far ahead, is found every time
        models = rng.choice(len(pool.models), 6, replace=False).tolist()
        part = _part(pool, models, items)
        drawn.append(
            {
                name: _measures(estimate(part), truth[models])
                for name, estimate in estimators(-1.75).items()
            }
        )
    return {
        name: {
            measure: mean_and_error([one[name][measure] for one in drawn])
            for measure in drawn[0][name]
        }
        for name in drawn[0]
    }


def _part(battles: Battles, models: list[int], items: list[int]) -> Battles:
    cut = np.ix_(models, items)
    return replace(
        battles,
        models=tuple(battles.models[m] for m in models),
        items=tuple(battles.items[i] for i in items),
        preference=battles.preference[cut],
        len_model=battles.len_model[cut],
        len_baseline=battles.len_baseline[cut],
    )


def table_10() -> dict[str, int]:
    """The epochs that the paper's published figures pick."""
    found = {}
    for name, figures in TABLE_10.items():
        values = [(-1 if name == "ce" else 1) * float(figure) for figure in figures.split()]
        best = best_of(values)
        assert best is not None
        found[name] = best + 1
    return found


def main() -> None:
    """Measure, print, save."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=150)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--alpacaeval", type=Path, help="folder with preferences.csv and its kin")
    arguments = parser.parse_args()
    result = {
        "benchmark": "picking", "date": str(date.today()), "python": platform.python_version(),
        "checkpoints": CHECKPOINTS, "repeats": arguments.repeats, "resamples": arguments.resamples,
        "slope": round(judges_slope(), 3), "table_10": table_10(),
        "made": made_data(arguments.repeats, arguments.resamples),
    }  # fmt: skip
    if arguments.alpacaeval:
        result["alpacaeval"] = public(arguments.alpacaeval, arguments.repeats)
        print(json.dumps(result["alpacaeval"], indent=2))
    line = json.dumps(result)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
