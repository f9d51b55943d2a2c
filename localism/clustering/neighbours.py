"""Which vectors are close to which: all of them compared where that is quick, else in cells.

Cells are an inverted file (Jegou et al. 2011, section 4): every vector belongs to the nearest of
some centroids and is compared with the vectors of the PROBES nearest cells. With a number of cells
that grows as the square root of the vectors, the work grows as their number to the power of 1.5.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]
Single = NDArray[np.float32]
Indices = NDArray[np.int64]

EXACT_UP_TO = 10_000
# 64 cells hold the nearest other of 99 % of 6,000 names (32: 96 %), and clusters agree to .99.
PROBES = 64
CELLS_PER_ROOT = 2.0
SAMPLE_PER_CELL = 32
ROUNDS = 4
ROWS_AT_ONCE, COLUMNS_AT_ONCE = 1024, 8192
NONE = -2.0
"""Cosine of a neighbour that is not there."""


class Block(NamedTuple):
    """Some vectors compared with some others."""

    rows: Indices
    """Indices of the ones, (r,)."""
    columns: Indices
    """Indices of the others, (c,)."""
    cosines: Single
    """(r, c); NONE where a vector meets itself."""


def blocks(vectors: Vectors, seed: int) -> Iterator[Block]:
    """Unit vectors compared with each other: all pairs, or those that share a cell."""
    single = vectors.astype(np.float32)
    for rows, columns in _plan(single, seed):
        cosines = single[rows] @ single[columns].T
        cosines[rows[:, None] == columns[None]] = NONE
        yield Block(rows, columns, cosines)


def close_pairs(vectors: Vectors, least: float, below: float, seed: int) -> tuple[Indices, Indices]:
    """Pairs (i, j) of unit vectors so alike, least <= cosine < below, each in one order or both."""
    pairs: list[tuple[Indices, Indices]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for block in blocks(vectors, seed):
        # A hair below, since these cosines have single precision: the caller looks again.
        i, j = np.nonzero((block.cosines >= least - 1e-5) & (block.cosines < below))
        pairs.append((block.rows[i], block.columns[j]))
    return np.concatenate([i for i, _ in pairs]), np.concatenate([j for _, j in pairs])


def nearest(vectors: Vectors, count: int, seed: int) -> tuple[Indices, Vectors]:
    """(indices, cosines) of the `count` nearest others of each unit vector, in no order.

    Both have shape (len(vectors), min(count, len(vectors) - 1)); NONE marks places that a vector
    in lonely cells could not fill.
    """
    count = min(count, len(vectors) - 1)
    indices = np.zeros((len(vectors), count), dtype=np.int64)
    cosines = np.full((len(vectors), count), NONE, dtype=np.float32)
    for block in blocks(vectors, seed) if count else ():
        columns = np.broadcast_to(block.columns, block.cosines.shape)
        all_cosines = np.hstack([cosines[block.rows], block.cosines])
        all_indices = np.hstack([indices[block.rows], columns])
        best = np.argpartition(-all_cosines, count - 1, axis=1)[:, :count]
        cosines[block.rows] = np.take_along_axis(all_cosines, best, 1)
        indices[block.rows] = np.take_along_axis(all_indices, best, 1)
    return indices, _exactly(vectors, indices, cosines)


def _exactly(vectors: Vectors, indices: Indices, cosines: Single) -> Vectors:
    """The same cosines in double precision: distances are ranked, and near 1 single is coarse."""
    exact = np.empty(cosines.shape)
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        exact[rows] = np.einsum("nd,nkd->nk", vectors[rows], vectors[indices[rows]])
    exact[cosines == NONE] = NONE
    return exact


# ---- what is compared with what --------------------------------------------------------------


def _plan(vectors: Single, seed: int) -> Iterator[tuple[Indices, Indices]]:
    everything = np.arange(len(vectors))
    if len(vectors) <= EXACT_UP_TO:
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            yield everything[start : start + ROWS_AT_ONCE], everything
        return
    centroids = centroids_of(vectors, seed)
    probed = nearest_centroids(vectors, centroids, min(PROBES, len(centroids) - 1))
    members = by_cell(probed[:, :1], len(centroids))
    askers = by_cell(probed, len(centroids))
    for rows, columns in zip(askers, members, strict=True):
        # In pieces, for a cell may hold a large part of all vectors.
        for row in range(0, len(rows), ROWS_AT_ONCE):
            for column in range(0, len(columns), COLUMNS_AT_ONCE):
                yield rows[row : row + ROWS_AT_ONCE], columns[column : column + COLUMNS_AT_ONCE]


def centroids_of(vectors: Single, seed: int) -> Single:
    """Spherical k-means on a sample, a few rounds: cells need not be good, only small."""
    rng = np.random.default_rng(seed)
    count = int(CELLS_PER_ROOT * len(vectors) ** 0.5)
    size = min(len(vectors), count * SAMPLE_PER_CELL)
    sample = vectors[rng.choice(len(vectors), size, replace=False)]
    centroids = sample[:count].copy()
    for _ in range(ROUNDS):
        homes = (sample @ centroids.T).argmax(axis=1)
        sums = np.zeros_like(centroids)
        np.add.at(sums, homes, sample)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centroids)
    return centroids


def nearest_centroids(vectors: Single, centroids: Single, count: int) -> Indices:
    """Cells of each vector, the nearest first: (len(vectors), count)."""
    found = []
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        cosines = vectors[start : start + ROWS_AT_ONCE] @ centroids.T
        best = np.argpartition(-cosines, count, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosines, best, 1), axis=1)
        found.append(np.take_along_axis(best, order, 1))
    return np.concatenate(found)


def by_cell(cells: Indices, count: int) -> list[Indices]:
    """For each cell the vectors (rows of `cells`) that name it."""
    order = np.argsort(cells.ravel(), kind="stable")
    bounds = np.searchsorted(cells.ravel()[order], np.arange(1, count))
    return np.split(order // cells.shape[1], bounds)
