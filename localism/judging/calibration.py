"""How the judge judges: its taste for length, its preference for a position, its kinship.

The teacher rewrites references longer and shorter, with the same content, and the judge compares
each rewrite with what it was made from. As good as the reference by construction, a rewrite is
preferred or not for its length alone:

    logit E[y_ki] = phi * t_ki + gamma_i        k: longer, shorter; i: items; theta = 0

with t and gamma as in winrate.py. So do AlpacaEval's "gamed" rows for its own judge; a slope must
not be carried from one judge to another. A rewrite that became worse costs both kinds alike, which
gamma takes up. What rewriting shows need not be exactly what answers meet, so the slope enters the
fit of the checkpoints with TRANSFER_ERROR beside its own error: on made data a right slope gains
little, and one that is wrong by 1.5 and trusted costs three times the regret (docs/log.md).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from localism.config import Config
from localism.judging.jointfit import Priors
from localism.judging.newton import Array
from localism.judging.picking import (
    RESAMPLES,
    Interval,
    PairedDifference,
    draw_weights,
    interval,
    paired_difference,
)
from localism.judging.scores import Z_95
from localism.judging.winrate import GAMMA_SD, VAGUE_PHI, Battles, joint_fit
from localism.paths import embedded
from localism.store import Store

KINDS = ("longer", "shorter")
"""Of rewrites; also the names of their templates in a prompt pack."""
TRANSFER_ERROR = 0.5
# A rewrite whose length hardly differs says nothing about length.
LEAST_CHANGE = 0.15
LEAST_ITEMS = 10
# Quality is 0 by construction, and the two kinds meet the same taste.
AS_GOOD_SD = 1e-3
SAME_TASTE_SD = 1e-3


@dataclass(frozen=True)
class LengthSlope:
    """What the judge gives for length, in logits for one unit of the length term."""

    value: float
    """phi; below 0 for a judge that likes length."""
    error: float
    """Standard error, by bootstrap over items."""
    bounds: Interval
    """95% interval."""
    longer: float | None
    """How often a longer rewrite is preferred, in percent; None if none was scored."""
    shorter: float | None
    """How often a shorter one is."""
    n: int
    """Items with a scored rewrite."""


class PositionBias(NamedTuple):
    """What it is worth to be shown first."""

    advantage: PairedDifference
    """Mean preference for the answer when shown first, minus when shown second; points."""
    flips: int
    """Pairs whose winner changes with the order."""


def changed_enough(reference: str, rewrite: str, kind: str) -> bool:
    """Whether a rewrite is as much longer, or shorter, as its kind says."""
    ratio = len(rewrite) / max(1, len(reference))
    return ratio >= 1 + LEAST_CHANGE if kind == "longer" else ratio <= 1 - LEAST_CHANGE


def length_slope(battles: Battles, *, seed: int, resamples: int = RESAMPLES) -> LengthSlope | None:
    """The judge's slope from its verdicts on rewrites; None when they cannot tell.

    battles: the models are KINDS, the items' baselines the references. They cannot tell with fewer
    than LEAST_ITEMS items, or when all differ in length by the same.
    """
    if int(battles.scored.any(axis=0).sum()) < LEAST_ITEMS:
        return None
    joint = joint_fit(battles, Priors(AS_GOOD_SD, GAMMA_SD, *VAGUE_PHI, SAME_TASTE_SD))
    if not joint.terms.any():
        return None
    items = joint.wins.shape[1]
    whole = joint.solve(np.ones((1, items)))
    weights = draw_weights(items, resamples, seed)
    # The prior's mean is drawn too: where every verdict is for length, it alone ends the slope.
    centres = joint.drawn_centres(resamples, np.random.default_rng([seed, 1]))
    refitted = joint.solve(weights, whole.repeat(resamples, axis=0), centres)
    slopes = joint.unpack(refitted)[1].mean(axis=1)
    return LengthSlope(
        value=float(joint.unpack(whole)[1].mean()),
        error=float(slopes.std(ddof=1)),
        bounds=interval(slopes),
        longer=_mean(battles.preference[0]),
        shorter=_mean(battles.preference[1]),
        n=items,
    )


def _mean(preference: Array) -> float | None:
    scored = preference[~np.isnan(preference)]
    return float(100 * scored.mean()) if len(scored) else None


class Calibrated(TypedDict, total=False):
    """A measured slope as `compare` and `length_controlled` take it; empty where there is none."""

    phi_calibrated: float
    phi_error: float


def calibrated(store: Store) -> Calibrated:
    """The slope that stage pick wrote down, with its error where answers are judged."""
    rows = store.query(
        "SELECT value, low, high FROM score WHERE model_id = 'judge' AND split = 'dev'"
        " AND metric = 'length_slope' AND value IS NOT NULL"
    )
    if not rows:
        return {}
    error = (rows[0]["high"] - rows[0]["low"]) / (2 * Z_95)
    return {"phi_calibrated": rows[0]["value"], "phi_error": math.hypot(error, TRANSFER_ERROR)}


def position_bias(shown_first: Array, shown_second: Array, *, seed: int) -> PositionBias:
    """From preferences (N,) for the same answers in both orders, NaN = unscored.

    A judge that looks at the answers alone has an advantage of 0 and no flips; one that looks at
    the position alone flips every pair.
    """
    advantage = paired_difference(shown_first, shown_second, seed=seed)
    sides = (shown_first - 0.5) * (shown_second - 0.5)
    return PositionBias(advantage, int((sides < 0).sum()))  # NaN is below nothing


def kinship(config: Config) -> str | None:
    """Why the judge may favour the references, which the teacher wrote; None if nothing says so."""
    teacher, judge = config.served("teacher"), config.served("judge")
    if config.judge.same_as or (judge.path, judge.endpoints) == (teacher.path, teacher.endpoints):
        return "the judge is the teacher itself"
    vocabularies = [_vocabulary(embedded(one.path)) for one in (teacher, judge) if one.path]
    if len(vocabularies) == 2 and vocabularies[0] == vocabularies[1] is not None:
        return "judge and teacher have one vocabulary, as models of a family do"
    return None


def _vocabulary(folder: Path) -> object:
    """The tokens of a model; None where its tokenizer is no tokenizer.json."""
    path = folder / "tokenizer.json"
    return json.loads(path.read_text())["model"].get("vocab") if path.exists() else None
