"""Means over the items of a benchmark with their bootstrap intervals.

Items are resampled together with everything that belongs to them (both turns of a question, all
references of a task), because those are alike.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from localism.judging.picking import Interval, draw_weights, interval
from localism.suites.records import Judging


def pooled_mean(
    sums: ArrayLike, counts: ArrayLike, judging: Judging
) -> tuple[float | None, Interval]:
    """sum(sums) / sum(counts) over items, and its 95% interval; None where nothing counts.

    sums, counts: (N,) of each item: the sum of its scored values and how many there are. So items
    with more scored values weigh more, as in a pooled mean. No interval below two items that count.
    """
    totals, numbers = np.array([sums], dtype=float), np.array([counts], dtype=float)
    return weighted_means(totals, numbers, [1.0], judging)


def mean_of_means(
    sums: ArrayLike, counts: ArrayLike, judging: Judging
) -> tuple[float | None, Interval]:
    """The plain mean over parts (skills, say) of each part's pooled mean, with its 95% interval.

    sums, counts: (P, N), as in pooled_mean, for each part. A part where nothing counts is left out.
    """
    totals, numbers = np.array(sums, dtype=float), np.array(counts, dtype=float)
    there = numbers.sum(axis=-1) > 0
    kept = int(there.sum())
    return weighted_means(totals[there], numbers[there], np.full(kept, 1 / max(kept, 1)), judging)


def weighted_means(
    sums: ArrayLike, counts: ArrayLike, weights: ArrayLike, judging: Judging
) -> tuple[float | None, Interval]:
    """The sum of weight times pooled mean, with its 95% interval; None where a mean has no value.

    sums, counts: (G, N), as in pooled_mean, for each of G means over the same N items; weights:
    (G,). A draw that leaves one of the means without items scales the others up. No interval below
    two items that count.
    """
    totals, numbers = np.array(sums, dtype=float), np.array(counts, dtype=float)
    share = np.array(weights, dtype=float)
    if not totals.size or not (numbers.sum(axis=1) > 0).all():
        return None, Interval(None, None)
    value = float(share @ (totals.sum(axis=1) / numbers.sum(axis=1)))
    if (numbers.sum(axis=0) > 0).sum() < 2:
        return value, Interval(None, None)
    drawn = _drawn(totals.shape[1], judging.resamples, judging.seed)
    below = drawn @ numbers.T
    means = np.divide(drawn @ totals.T, below, out=np.zeros_like(below), where=below > 0)
    present = (below > 0) @ share
    replicates = np.divide(
        means @ share * share.sum(), present, out=np.full(len(means), np.nan), where=present > 0
    )
    return value, interval(replicates)


# A suite has dozens of means over the same items; drawing costs far more than averaging.
@functools.lru_cache(maxsize=4)
def _drawn(items: int, resamples: int, seed: int) -> NDArray[np.float64]:
    return draw_weights(items, resamples, seed)


def mean(values: Sequence[float | None], judging: Judging) -> tuple[float | None, Interval]:
    """The mean of the items that have a value, and its 95% interval."""
    return pooled_mean(
        [0.0 if value is None else value for value in values],
        [0.0 if value is None else 1.0 for value in values],
        judging,
    )
