"""Means over the items of a benchmark with their bootstrap intervals.

Items are resampled together with everything that belongs to them (both turns of a question, all
references of a task), because those are alike. `scale` is judging.means'.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from localism.judging import means
from localism.judging.means import Scale
from localism.judging.picking import Interval
from localism.suites.records import Judging


def pooled_mean(
    sums: ArrayLike, counts: ArrayLike, judging: Judging, scale: Scale | None = None
) -> tuple[float | None, Interval]:
    """sum(sums) / sum(counts) over items, and its 95% interval; None where nothing counts.

    sums, counts: (N,) of each item: the sum of its scored values and how many there are. So items
    with more scored values weigh more, as in a pooled mean. No interval below two items that count.
    """
    totals, numbers = np.array([sums], dtype=float), np.array([counts], dtype=float)
    return weighted_means(totals, numbers, [1.0], judging, scale)


def mean_of_means(
    sums: ArrayLike, counts: ArrayLike, judging: Judging, scale: Scale | None = None
) -> tuple[float | None, Interval]:
    """The plain mean over parts (skills, say) of each part's pooled mean, with its 95% interval.

    sums, counts: (P, N), as in pooled_mean, for each part. A part where nothing counts is left out.
    """
    totals, numbers = np.array(sums, dtype=float), np.array(counts, dtype=float)
    there = numbers.sum(axis=-1) > 0
    kept = int(there.sum())
    shares = np.full(kept, 1 / max(kept, 1))
    return weighted_means(totals[there], numbers[there], shares, judging, scale)


def weighted_means(
    sums: ArrayLike,
    counts: ArrayLike,
    weights: ArrayLike,
    judging: Judging,
    scale: Scale | None = None,
) -> tuple[float | None, Interval]:
    """The sum of weight times pooled mean, with its 95% interval: judging.means.weighted_means."""
    drawn = {"seed": judging.seed, "resamples": judging.resamples}
    return means.weighted_means(sums, counts, weights, scale=scale, **drawn)


def mean(
    values: Sequence[float | None], judging: Judging, scale: Scale | None = None
) -> tuple[float | None, Interval]:
    """The mean of the items that have a value, and its 95% interval."""
    return pooled_mean(
        [0.0 if value is None else value for value in values],
        [0.0 if value is None else 1.0 for value in values],
        judging,
        scale,
    )
