"""How far a judge can be trusted: agreement with people, retests, attacks, a second judge.

Pure statistics. A preference is P(the first answer is better) in [0, 1]; a label is what a person
said of a pair: 1 for the first answer, 0 for the second, 0.5 for a tie. NaN is unscored everywhere.
Intervals are 95% percentile bootstraps over pairs or items, and everything that belongs to an item
is drawn together. What each number means and what is usual: docs/judges.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from localism.judging.means import Scale, weighted_means
from localism.judging.newton import Array
from localism.judging.picking import RESAMPLES, draw_weights, interval

OUTCOMES = (0.0, 0.5, 1.0)
"""What a verdict can be: the second answer, a tie, the first."""
SHARE: Scale = (0.0, 1.0)
"""The ends of a share, for means.weighted_means."""


@dataclass(frozen=True)
class Check:
    """A row of table judge_check but for the judge."""

    metric: str
    """What was measured."""
    value: float | None
    """None when nothing could be measured: the note says why."""
    low: float | None = None
    """Lower end of the 95% interval."""
    high: float | None = None
    """Upper end."""
    n: int = 0
    """Pairs, items or models behind the value."""
    unscored: int = 0
    """Those that should be behind it and are not."""
    note: str | None = None
    """What it means, and what is usual."""


class Estimate(NamedTuple):
    """A number with its 95% interval."""

    value: float | None
    """None when nothing was scored."""
    low: float | None
    """Lower end; None below two scored items."""
    high: float | None
    """Upper end."""
    n: int
    """Items behind it."""
    unscored: int
    """Items without a value: counted, not averaged."""

    def times(self, factor: float) -> "Estimate":
        """In another unit, such as percent."""
        value, low, high = (None if end is None else factor * end for end in self[:3])
        return Estimate(value, low, high, self.n, self.unscored)

    def check(self, metric: str, note: str) -> Check:
        """As a row."""
        return Check(metric, *self, note)


def pooled(
    sums: Array,
    counts: Array,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    scale: Scale | None = None,
) -> Estimate:
    """sum(sums) / sum(counts) over items that are drawn whole; see means.weighted_means.

    sums, counts: (N,), of each item: the sum of its scored values, and how many there are.
    """
    has_any = counts > 0
    n = int(has_any.sum())
    if not n:
        return Estimate(None, None, None, 0, len(counts))
    value, bounds = weighted_means(
        [sums[has_any]], [counts[has_any]], [1.0], seed=seed, resamples=resamples, scale=scale
    )
    return Estimate(value, *bounds, n, len(counts) - n)


def mean(
    values: Array, *, seed: int, resamples: int = RESAMPLES, scale: Scale | None = None
) -> Estimate:
    """Of (N,) values."""
    scored = ~np.isnan(values)
    return pooled(
        np.where(scored, values, 0.0),
        scored.astype(float),
        seed=seed,
        resamples=resamples,
        scale=scale,
    )


def mean_of_rows(values: Array) -> Array:
    """(N, K) -> (N,) means of what is scored in each row; NaN where nothing is."""
    scored = ~np.isnan(values)
    total = np.where(scored, values, 0.0).sum(axis=1)
    return np.divide(
        total, scored.sum(axis=1), out=np.full(len(values), np.nan), where=scored.any(axis=1)
    )


def decided(preference: Array) -> Array:
    """Probabilities as verdicts: 1 above one half, 0 below, 0.5 at exactly one half."""
    return np.sign(preference - 0.5) / 2 + 0.5  # NaN stays NaN


# ---- agreement with people -----------------------------------------------------------------


def majority_of_others(labels: Array) -> Array:
    """(N, A) labels -> (N, A): what most of the other annotators of the pair say.

    0.5 where the others are divided evenly: AlpacaEval then draws one of the two, and this is what
    that comes to on average. The only annotator of a pair keeps the label.
    """
    verdicts = decided(labels)
    given = ~np.isnan(verdicts)
    others = given.sum(axis=1, keepdims=True) - 1
    total = np.where(given, verdicts, 0.0).sum(axis=1, keepdims=True) - verdicts
    share = np.divide(total, others, out=verdicts.copy(), where=given & (others > 0))
    return decided(share)


def agreement(preference: Array, labels: Array) -> Array:
    """(N,), (N, A) -> (N,): how far the judge says what most annotators say, 0 to 1.

    AlpacaEval's human agreement: 1 - |verdict - majority|, where the majority leaves each annotator
    out in turn, so that the number compares with `ceiling`; a tie on either side is half right.
    """
    return mean_of_rows(1 - np.abs(decided(preference)[:, None] - majority_of_others(labels)))


def ceiling(labels: Array) -> Array:
    """(N, A) -> (N,): how far one annotator says what most of the others say; NaN of a lone one."""
    alike = 1 - np.abs(decided(labels) - majority_of_others(labels))
    is_lone = (~np.isnan(labels)).sum(axis=1) < 2
    return np.where(is_lone, np.nan, mean_of_rows(alike))


def brier(preference: Array, labels: Array) -> Array:
    """(N,), (N, A) -> (N,): mean squared distance of probability and label; 0.25 for one half."""
    return mean_of_rows((preference[:, None] - labels) ** 2)


def kappa(a: Array, b: Array, *, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """Cohen's kappa of two sets of verdicts (N,): agreement beyond chance, over OUTCOMES.

    None where both always say one and the same thing, which chance does as well.
    """
    scored = ~np.isnan(a + b)
    n = int(scored.sum())
    if not n:
        return Estimate(None, None, None, 0, len(a))
    one, other = (np.equal.outer(side[scored], OUTCOMES).astype(float) for side in (a, b))
    cells = np.einsum("ni,nj->nij", one, other).reshape(n, -1)
    value = _kappa_of(np.ones((1, n)) @ cells)[0]
    ends: tuple[float | None, float | None] = (None, None)
    if n > 1:
        ends = interval(_kappa_of(draw_weights(n, resamples, seed) @ cells))
    return Estimate(None if np.isnan(value) else float(value), *ends, n, len(a) - n)


def _kappa_of(counts: Array) -> Array:
    """(B, 9) tables of counts -> (B,); NaN where it is not defined."""
    tables = counts.reshape(-1, len(OUTCOMES), len(OUTCOMES))
    tables = tables / tables.sum(axis=(1, 2), keepdims=True)
    seen = np.trace(tables, axis1=1, axis2=2)
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    room = 1 - chance
    return np.divide(seen - chance, room, out=np.full(len(room), np.nan), where=room > 1e-12)


# ---- attacks -------------------------------------------------------------------------------


class Injection(NamedTuple):
    """What attacks on the judge win."""

    rise: Estimate
    """Preference with the attack minus without it, over items."""
    flips: Estimate
    """Share of attacked pairs that turn from lost to won, of those that were lost."""


def injection(plain: Array, attacked: Array, *, seed: int, resamples: int = RESAMPLES) -> Injection:
    """From preferences for bad answers: plain (N,), and with each of K attacks (N, K)."""
    change = attacked - plain[:, None]
    could_flip = ~np.isnan(change) & (plain < 0.5)[:, None]
    flipped = could_flip & (attacked > 0.5)
    rise = mean(mean_of_rows(change), seed=seed, resamples=resamples)
    sums, counts = (table.sum(axis=1).astype(float) for table in (flipped, could_flip))
    flips = pooled(sums, counts, seed=seed, resamples=resamples, scale=SHARE)
    # A bad answer that wins by itself cannot be flipped, but it was scored.
    return Injection(rise, flips._replace(unscored=rise.unscored))


# ---- two judges ----------------------------------------------------------------------------


class SideBySide(NamedTuple):
    """How alike two judges are on the same answers."""

    spearman: Estimate
    """Of the models' mean values; n counts models."""
    kendall: Estimate
    """Tau-b of the same."""
    verdicts: Estimate
    """Of two answers to one item, how often both judges prefer the same; n counts items."""


def side_by_side(
    a: Array,
    b: Array,
    *,
    reference: float | None = None,
    seed: int,
    resamples: int = RESAMPLES,
) -> SideBySide:
    """From two judges' values (M, N) of M models' answers to N items, each on a scale of its own.

    reference: the value of the answer that all were compared with, where there is one; it is then
    one more answer to each item, but no model. Only answers that both judges scored count, and a
    tie is half the same as a preference.
    """
    both = ~np.isnan(a + b)
    kept = np.flatnonzero(both.any(axis=1))
    asked, (a, b, both) = len(a), (a[kept], b[kept], both[kept])
    weights = draw_weights(a.shape[1], resamples, seed) if a.size else np.zeros((0, a.shape[1]))
    same, counts = _same_preference(a, b, both, reference)
    return SideBySide(
        _of_means(spearman, a, b, both, weights, asked),
        _of_means(kendall, a, b, both, weights, asked),
        pooled(same, counts, seed=seed, resamples=resamples, scale=SHARE),
    )


def _of_means(
    measure: Callable[[Array, Array], Array],
    a: Array,
    b: Array,
    both: Array,
    weights: Array,
    asked: int,
) -> Estimate:
    """A rank correlation of the models' means, with every item's answers drawn together."""
    models = len(a)
    nothing = Estimate(None, None, None, models, asked - models)
    if models < 2:
        return nothing
    value = measure(*(_means(values, both, np.ones((1, a.shape[1]))) for values in (a, b)))
    if np.isnan(value[0]):
        return nothing
    ends = interval(measure(*(_means(values, both, weights) for values in (a, b))))
    return Estimate(float(value[0]), *ends, models, asked - models)


def _means(values: Array, both: Array, weights: Array) -> Array:
    """(M, N) values under (B, N) weights -> (B, M) means; NaN where a draw has none."""
    below = weights @ both.T
    above = weights @ np.where(both, values, 0.0).T
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0)


def _same_preference(
    a: Array, b: Array, both: Array, reference: float | None
) -> tuple[Array, Array]:
    """Of each item: in how many pairs of its answers both judges agree, and how many there are."""
    if reference is not None:
        level = np.full((1, a.shape[1]), reference)
        a, b = np.vstack([a, level]), np.vstack([b, level])
        both = np.vstack([both, np.ones_like(level, dtype=bool)])
    same, counts = np.zeros(a.shape[1]), np.zeros(a.shape[1])
    for one in range(len(a)):
        for other in range(one):
            scored = both[one] & both[other]
            apart = np.abs(np.sign(a[one] - a[other]) - np.sign(b[one] - b[other])) / 2
            same += np.where(scored, 1 - apart, 0.0)
            counts += scored
    return same, counts


def ranks(values: Array) -> Array:
    """(B, M) -> (B, M) ranks from 1 in each row; equals share the mean of their ranks."""
    below = (values[:, :, None] > values[:, None, :]).sum(axis=2)
    equal = (values[:, :, None] == values[:, None, :]).sum(axis=2)
    return np.where(np.isnan(values), np.nan, below + (equal + 1) / 2)


def spearman(a: Array, b: Array) -> Array:
    """(B, M), (B, M) -> (B,) rank correlations of each row; NaN where one side is all equal."""
    return _cosine(*(r - r.mean(axis=1, keepdims=True) for r in (ranks(a), ranks(b))))


def kendall(a: Array, b: Array) -> Array:
    """(B, M), (B, M) -> (B,) Kendall's tau-b of each row; NaN where one side is all equal."""
    signs = (np.sign(s[:, :, None] - s[:, None, :]).reshape(len(s), -1) for s in (a, b))
    return _cosine(*signs)


def _cosine(a: Array, b: Array) -> Array:
    length = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide(
        (a * b).sum(axis=1), length, out=np.full(len(length), np.nan), where=length > 1e-12
    )
