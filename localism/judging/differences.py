"""Preferences of two trainings on held-out prompts -> their difference, in pairs where they share.

Same prompts, references and judge: the mean of the differences, which the difficulty of a prompt
does not touch. The same tuples of skills and query types at least, as with another teacher in a
fork: pairs too, with more noise in each. Else the difference of two means, whose interval is wider.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from localism.judging.newton import Array
from localism.judging.picking import INTERVAL_LEVEL, interval, paired_difference

RESAMPLES = 10_000
# Below this share of the smaller side, pairs would leave out more than they gain.
LEAST_SHARED = 0.5


class Judged(NamedTuple):
    """One held-out prompt."""

    prompt: str
    """Hash of instruction and reference."""
    tuple: str | None
    """Hash of its skills and query type; None where it has none."""
    rule: str
    """How it was judged, and by whom."""
    preference: float
    """For the training's answer over the reference, 0 to 1."""


@dataclass(frozen=True)
class Difference:
    """How much more often one training beats its references than another."""

    value: float | None
    """Percent points; None where the two cannot be compared."""
    low: float | None
    """Lower end of the 95% bootstrap interval; None below two prompts."""
    high: float | None
    """Upper end."""
    effect: float | None
    """In standard deviations of the preferences; None where they do not vary."""
    basis: str
    """How it was come by: 'paired by prompt', 'paired by tuple', 'unpaired', or why it was not."""
    prompts: int
    """Pairs, or prompts of the smaller side where there are none."""


def difference(mine: Sequence[Judged], other: Sequence[Judged], *, seed: int) -> Difference:
    """Mine less other, by the closest pairing that at least half of the smaller side allows."""
    rules = {one.rule for one in [*mine, *other]}
    if len(rules) > 1:
        return Difference(None, None, None, None, "not compared: judged in another way", 0)
    smaller = min(len(mine), len(other))
    for basis, key in (("prompt", 0), ("tuple", 1)):
        a, b = _by(mine, key), _by(other, key)
        shared = sorted(a.keys() & b.keys())
        if shared and len(shared) >= LEAST_SHARED * smaller:
            pairs = np.array([[a[one], b[one]] for one in shared])
            found = paired_difference(pairs[:, 0], pairs[:, 1], seed=seed, resamples=RESAMPLES)
            effect = effect_size(pairs[:, 0], pairs[:, 1])
            return Difference(
                found.value, found.low, found.high, effect, f"paired by {basis}", found.n
            )
    if not smaller:
        return Difference(None, None, None, None, "not compared: nothing was scored", 0)
    left, right = (np.array([one.preference for one in side]) for side in (mine, other))
    low, high = unpaired_interval(left, right, seed=seed)
    value = float(100 * (left.mean() - right.mean()))
    return Difference(value, low, high, effect_size(left, right), "unpaired", smaller)


def _by(side: Sequence[Judged], key: int) -> Mapping[str, float]:
    """Preferences by prompt (0) or tuple (1); what is there twice pairs with nothing."""
    keys = [one[key] for one in side]
    return {
        str(one[key]): one.preference
        for one in side
        if one[key] is not None and keys.count(one[key]) == 1
    }


def unpaired_interval(
    a: Array, b: Array, *, seed: int, resamples: int = RESAMPLES
) -> tuple[float | None, float | None]:
    """95% percentile interval of 100 * (mean(a) - mean(b)); each side draws its own prompts."""
    if len(a) < 2 or len(b) < 2:
        return None, None
    rng = np.random.default_rng(seed)
    means = [
        a[rng.integers(0, len(a), len(a))].mean() - b[rng.integers(0, len(b), len(b))].mean()
        for _ in range(resamples)
    ]
    return interval(100 * np.array(means), INTERVAL_LEVEL)


def effect_size(a: Array, b: Array) -> float | None:
    """Cohen's d with the mean of both variances, the same for pairs as for strangers (Lakens 2013).

    None below two prompts on a side, or where nothing varies.
    """
    if len(a) < 2 or len(b) < 2:
        return None
    spread = float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))
    return float(a.mean() - b.mean()) / spread if spread > 1e-12 else None
