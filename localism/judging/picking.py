"""Win rates -> intervals, the pick and its tie set, by a paired bootstrap over items.

Every resample draws items with replacement and keeps all candidates on the items drawn, so that
what makes an item easy cancels out of their differences. Items alone do not tell how far a
candidate's length slope may lie from the others', to which the fit pulls it: so each resample also
draws the means to which it is pulled, from their prior. Without that the tie set of 15 checkpoints
missed the best one more often (made data, docs/log.md). Prior widths and length spreads stay as
they were on the whole set. The winner's own score on the items that chose it is 2 to 5 points too
high: report it from other items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from localism.judging.newton import Array
from localism.judging.winrate import (
    Battles,
    LengthControlled,
    WinRate,
    joint_fit,
    length_controlled,
    win_rate,
)

RESAMPLES = 1000
INTERVAL_LEVEL = 0.95
TIE_LEVEL = 0.90
# resamples in flight * M * N: a few arrays of so many doubles fit in a core's cache, twice as fast
# as all at once
CELLS_IN_FLIGHT = 25_000


class Interval(NamedTuple):
    """A percentile interval in percent points; None where nothing could be resampled."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Resampled:
    """B bootstrap replicates of each candidate's scores; NaN where a draw held no verdict on it."""

    win_rate: Array
    """(B, M) percent points."""
    length_controlled: Array
    """(B, M) percent points."""


@dataclass(frozen=True)
class Pick:
    """Which candidate to take, and which others the items cannot tell from it."""

    best: int | None
    """Index of the highest length-controlled win rate; None if nothing was scored."""
    tied: tuple[int, ...]
    """Indices that cannot be told from the best at the tie level, the best included."""
    reason: str
    """One or two sentences for a person."""


@dataclass(frozen=True)
class ModelScore:
    """One candidate's scores, percent points; None where its items do not carry them."""

    model: str
    """The candidate's name."""
    win_rate: WinRate
    """Raw win rate with its standard error and counts."""
    win_rate_interval: Interval
    """Bootstrap interval of the raw win rate."""
    lc_win_rate: float | None
    """Length-controlled win rate."""
    lc_standard_error: float | None
    """Bootstrap standard error of the length-controlled win rate."""
    lc_interval: Interval
    """Bootstrap interval of the length-controlled win rate."""


@dataclass(frozen=True)
class Comparison:
    """All candidates of one pool, and the pick among them."""

    scores: tuple[ModelScore, ...]
    """In the candidates' order."""
    pick: Pick
    """The best and its tie set."""
    approximate: bool
    """True where the length-controlled scores rest on too little: see notes."""
    notes: tuple[str, ...]
    """Sentences that belong beside the numbers."""


@dataclass(frozen=True)
class PairedDifference:
    """How much more often one candidate beats the baseline than another, on the items both have."""

    value: float | None
    """Percent points, -100 to 100; None if no item has both verdicts."""
    low: float | None
    """Lower end of the bootstrap interval; None below two such items."""
    high: float | None
    """Upper end."""
    n: int
    """Items with both verdicts."""
    unscored: int
    """Items that lack at least one: counted, not averaged."""


def compare(
    battles: Battles,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = INTERVAL_LEVEL,
    tie_level: float = TIE_LEVEL,
    phi_calibrated: float | None = None,
    phi_error: float = 0.0,
) -> Comparison:
    """Score all candidates with intervals and pick the best; the one call that a stage needs.

    phi_calibrated, phi_error: see `length_controlled`.
    Raises LocalismError if a fit does not converge.
    """
    fit = length_controlled(battles, phi_calibrated=phi_calibrated, phi_error=phi_error)
    resampled = bootstrap(battles, fit, seed=seed, resamples=resamples)
    return Comparison(
        scores=model_scores(battles, fit.values, resampled, level=level),
        pick=pick(battles, fit.values, resampled, level=tie_level),
        approximate=fit.approximate,
        notes=fit.notes,
    )


def model_scores(
    battles: Battles,
    lc_values: tuple[float | None, ...],
    resampled: Resampled,
    *,
    level: float = INTERVAL_LEVEL,
) -> tuple[ModelScore, ...]:
    """Each candidate's point estimates beside the spread of its replicates."""
    scores = []
    for m, model in enumerate(battles.models):
        replicates = resampled.length_controlled[:, m]
        replicates = replicates[~np.isnan(replicates)]
        scores.append(
            ModelScore(
                model=model,
                win_rate=win_rate(battles.preference[m]),
                win_rate_interval=interval(resampled.win_rate[:, m], level),
                lc_win_rate=lc_values[m],
                lc_standard_error=float(replicates.std(ddof=1)) if len(replicates) > 1 else None,
                lc_interval=interval(replicates, level),
            )
        )
    return tuple(scores)


def bootstrap(
    battles: Battles, fit: LengthControlled, *, seed: int, resamples: int = RESAMPLES
) -> Resampled:
    """Refit both scores on `resamples` draws of the items; the same seed gives the same draws.

    Below two scored items there is nothing to resample: no replicates, (0, M).
    """
    scored = battles.scored
    models, items = np.flatnonzero(scored.any(axis=1)), np.flatnonzero(scored.any(axis=0))
    shape = (resamples if len(items) > 1 else 0, len(battles.models))
    out = Resampled(np.full(shape, np.nan), np.full(shape, np.nan))
    if not shape[0]:
        return out
    joint = joint_fit(battles, fit.priors)
    start = np.concatenate([fit.theta[models], fit.phi[models], fit.gamma[items]])[None]
    weights = draw_weights(len(items), resamples, seed)
    centres = joint.drawn_centres(resamples, np.random.default_rng([seed, 1]))
    chunk = max(1, CELLS_IN_FLIGHT // joint.wins.size)
    for first in range(0, resamples, chunk):
        drawn = weights[first : first + chunk]
        points = joint.solve(
            drawn, start.repeat(len(drawn), axis=0), centres[first : first + chunk]
        )
        verdicts = drawn @ joint.scored.T
        rows = np.s_[first : first + chunk], models
        with np.errstate(invalid="ignore"):  # 0 / 0: a draw without a verdict on this candidate
            out.win_rate[rows] = 100 * (drawn @ joint.wins.T) / verdicts
        lc_scores = joint.scores(points, drawn)
        out.length_controlled[rows] = np.where(verdicts > 0, lc_scores, np.nan)
    return out


def draw_weights(items: int, resamples: int, seed: int) -> Array:
    """(resamples, items): how often each item is drawn when as many are drawn as there are."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(items, np.full(items, 1 / items), size=resamples).astype(float)


def interval(replicates: Array, level: float = INTERVAL_LEVEL) -> Interval:
    """The percentile interval of bootstrap replicates (B,); NaN replicates are left out."""
    usable = replicates[~np.isnan(replicates)]
    if not len(usable):
        return Interval(None, None)
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def pick(
    battles: Battles,
    lc_values: tuple[float | None, ...],
    resampled: Resampled,
    *,
    level: float = TIE_LEVEL,
) -> Pick:
    """The highest length-controlled win rate, and all whose distance from it may be nothing.

    A candidate is tied if 0 lies within the two-sided interval of its difference from the best at
    `level`, or if there are no replicates to tell. Of equal scores the first wins: the earlier
    checkpoint.
    """
    valued = [m for m, value in enumerate(lc_values) if value is not None]
    if not valued:
        return Pick(None, (), "no candidate has a scored item, so none is picked")
    values = np.array([np.nan if value is None else value for value in lc_values])
    best = int(np.nanargmax(values))
    tied = []
    for m in valued:
        behind = resampled.length_controlled[:, best] - resampled.length_controlled[:, m]
        low = interval(behind, level).low
        if m == best or low is None or low <= 0:
            tied.append(m)
    return Pick(best, tuple(tied), _reason(battles, values, best, tied, level))


def best_of(values: Sequence[float | None]) -> int | None:
    """Index of the highest value, the first of equals; None if there is no value."""
    known = [(-value, index) for index, value in enumerate(values) if value is not None]
    return min(known)[1] if known else None


def _reason(battles: Battles, values: Array, best: int, tied: list[int], level: float) -> str:
    """Say who leads, who cannot be told from it, and whether the raw win rate disagrees."""
    leader = (
        f"{battles.models[best]} has the highest length-controlled win rate, {values[best]:.1f}"
    )
    others = [battles.models[m] for m in tied if m != best]
    judged = int((~np.isnan(values)).sum())
    if judged == 1:
        reason = f"{battles.models[best]} is the only candidate with a scored item"
    elif others:
        reason = f"{leader}; at {level:.0%} it cannot be told from {', '.join(others)}"
    else:
        reason = f"{leader}; at {level:.0%} every other candidate is behind it"
    first = best_of([win_rate(preference).value for preference in battles.preference])
    if first is not None and first != best:
        reason += f". The raw win rate would pick {battles.models[first]}"
    return reason


def paired_difference(
    a: Array,
    b: Array,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = INTERVAL_LEVEL,
) -> PairedDifference:
    """100 * mean(a - b) over the items that both were judged on, with a bootstrap interval.

    a, b: (N,) preferences of two candidates against the same baseline on the same items, NaN =
    unscored.
    """
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"preferences of shapes {a.shape} and {b.shape} are not paired")
    difference = 100 * (a - b)[~np.isnan(a - b)]
    n = len(difference)
    low, high = None, None
    if n > 1:
        rng = np.random.default_rng(seed)
        # one draw at a time: 10,000 draws of 805 items at once would take 64 MB
        means = [difference[rng.integers(0, n, n)].mean() for _ in range(resamples)]
        low, high = interval(np.array(means), level)
    value = float(difference.mean()) if n else None
    return PairedDifference(value, low, high, n, len(a) - n)
