"""Means over the items of a benchmark with their bootstrap intervals.

Items are resampled together with everything that belongs to them (both turns of a question, all
references of a task), because those are alike.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from localism.judging.picking import Interval, draw_weights, interval
from localism.suites.records import Judging

Array = NDArray[np.float64]


def pooled_mean(
    sums: Sequence[float], counts: Sequence[float], judging: Judging
) -> tuple[float | None, Interval]:
    """sum(sums) / sum(counts) over items, and its 95% interval; None where nothing counts.

    sums, counts: (N,) of each item: the sum of its scored values and how many there are. So items
    with more scored values weigh more, as in a pooled mean. No interval below two items that count.
    """
    totals, numbers = np.array(sums, dtype=float), np.array(counts, dtype=float)
    if not numbers.sum() > 0:
        return None, Interval(None, None)
    value = float(totals.sum() / numbers.sum())
    if (numbers > 0).sum() < 2:
        return value, Interval(None, None)
    weights = draw_weights(len(numbers), judging.resamples, judging.seed)
    below = weights @ numbers
    replicates = np.divide(
        weights @ totals, below, out=np.full(len(below), np.nan), where=below > 0
    )
    return value, interval(replicates)


def mean(values: Sequence[float | None], judging: Judging) -> tuple[float | None, Interval]:
    """The mean of the items that have a value, and its 95% interval."""
    return pooled_mean(
        [0.0 if value is None else value for value in values],
        [0.0 if value is None else 1.0 for value in values],
        judging,
    )
