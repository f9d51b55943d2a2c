"""Pooled means over items that are resampled whole, with their intervals; for suites and judges."""

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from localism.judging.picking import Interval, draw_weights, interval
from localism.judging.scores import wilson

Scale = tuple[float, float]
"""The lowest and the highest value that a score can have."""
NOTHING = Interval(None, None)


def weighted_means(
    sums: ArrayLike,
    counts: ArrayLike,
    weights: ArrayLike,
    *,
    seed: int,
    resamples: int,
    scale: Scale | None = None,
) -> tuple[float | None, Interval]:
    """The sum of weight times pooled mean, with its 95% interval; None where a mean has no value.

    sums, counts: (G, N) for each of G means over the same N items: the sum of an item's scored
    values and how many there are, so that items with more of them weigh more. weights: (G,). A
    draw that leaves one of the means without items scales the others up. No interval below two
    items that count. scale: where all values are at one end of it, all draws are the same, and
    Wilson's interval over the items, which holds for every score between the ends, takes the place
    of one without width.
    """
    totals, numbers = np.array(sums, dtype=float), np.array(counts, dtype=float)
    share = np.array(weights, dtype=float)
    if not totals.size or not (numbers.sum(axis=1) > 0).all():
        return None, NOTHING
    value = float(share @ (totals.sum(axis=1) / numbers.sum(axis=1)))
    counted = int((numbers.sum(axis=0) > 0).sum())
    if counted < 2:
        return value, NOTHING
    drawn = _drawn(totals.shape[1], resamples, seed)
    below = drawn @ numbers.T
    means = np.divide(drawn @ totals.T, below, out=np.zeros_like(below), where=below > 0)
    present = (below > 0) @ share
    replicates = np.divide(
        means @ share * share.sum(), present, out=np.full(len(means), np.nan), where=present > 0
    )
    usable = replicates[~np.isnan(replicates)]
    if scale and any(np.allclose([value, *usable], end) for end in scale):
        return value, _at_an_end(value, counted, scale)
    return value, interval(usable)


def _at_an_end(value: float, items: int, scale: Scale) -> Interval:
    """Wilson's interval of 0 or all of the items, in units of the scale."""
    lowest, width = scale[0], scale[1] - scale[0]
    low, high = wilson(items * round((value - lowest) / width), items)
    assert low is not None and high is not None
    return Interval(lowest + width * low / 100, lowest + width * high / 100)


# A suite has dozens of means over the same items; drawing costs far more than averaging.
@functools.lru_cache(maxsize=4)
def _drawn(items: int, resamples: int, seed: int) -> NDArray[np.float64]:
    return draw_weights(items, resamples, seed)
