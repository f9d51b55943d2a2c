"""Instructions that mean the same: by the cosine of their vectors, beside the words they share.

Texts come in one order and each is compared with the kept ones before it, a batch at a time, so
that memory grows with the texts and never with their pairs. Up to neighbours.EXACT_UP_TO texts that
is exact; above, a text meets those in the CELLS_ASKED cells nearest to it, and the work grows as
the number of texts to the power of 1.5.

MiniLM at a cosine of 0.99, on 168 labelled pairs (tests/data/instruction_pairs.csv): precision
0.96, recall 0.39. docs/curation.md has other thresholds, and says why none is much lower.
"""

import numpy as np
from numpy.typing import NDArray

from localism.clustering.neighbours import (
    COLUMNS_AT_ONCE,
    EXACT_UP_TO,
    by_cell,
    centroids_of,
    nearest_centroids,
)
from localism.curation.candidate import Match

Vectors = NDArray[np.float64]
Indices = NDArray[np.int64]

BATCH = 1024
# Texts as alike as duplicates lie in the same cells: benchmarks/duplicates.py counts what is lost.
CELLS_ASKED = 8
NOTHING = -2.0


class Meanings:
    """Unit vectors of which some are kept; finds the kept one that is nearest, row by row."""

    def __init__(self, vectors: Vectors, seed: int) -> None:
        self._vectors = vectors.astype(np.float32)
        is_large = len(vectors) > EXACT_UP_TO
        self._centroids = centroids_of(self._vectors, seed) if is_large else None
        cells = 1 if self._centroids is None else len(self._centroids)
        self._members: list[list[int]] = [[] for _ in range(cells)]
        # The batch at hand: its rows, the cells nearest to each, what of it is kept.
        self._rows: Indices = np.zeros(0, dtype=np.int64)
        self._cells: Indices = np.zeros((0, 1), dtype=np.int64)
        self._kept: list[int] = []

    def keep(self, row: int) -> None:
        """From now on later texts are compared with this one, the last that was asked about."""
        self._kept.append(row - int(self._rows[0]))

    def nearest(self, row: int) -> Match | None:
        """The kept text that is most like this one; None when nothing has been kept.

        Rows are asked about in ascending order; one that never is counts as left out.
        """
        if not len(self._rows) or row > self._rows[-1]:
            self._begin_batch(row)
        place = row - int(self._rows[0])
        other, cosine = int(self._nearest[place]), float(self._cosines[place])
        if self._kept:
            inside = self._inside[place, self._kept]
            best = int(inside.argmax())
            if inside[best] > cosine:
                other, cosine = int(self._rows[self._kept[best]]), float(inside[best])
        return None if cosine == NOTHING else Match(other, min(cosine, 1.0), False)

    def _begin_batch(self, row: int) -> None:
        """File what the last batch kept, and compare the next one with all that is kept."""
        for place in self._kept:
            self._members[self._cells[place, 0]].append(int(self._rows[place]))
        self._kept = []
        self._rows = np.arange(row, min(row + BATCH, len(self._vectors)))
        batch = self._vectors[self._rows]
        self._cells = self._cells_of(batch)
        self._inside = batch @ batch.T
        self._nearest = np.zeros(len(batch), dtype=np.int64)
        self._cosines = np.full(len(batch), NOTHING, dtype=np.float32)
        for cell, places in enumerate(by_cell(self._cells, len(self._members))):
            if len(places) and self._members[cell]:
                self._compare(batch, places, np.array(self._members[cell]))

    def _cells_of(self, batch: NDArray[np.float32]) -> Indices:
        """The cells nearest to each text, its own first: (len(batch), cells)."""
        if self._centroids is None:
            return np.zeros((len(batch), 1), dtype=np.int64)
        return nearest_centroids(batch, self._centroids, CELLS_ASKED)

    def _compare(self, batch: NDArray[np.float32], places: Indices, members: Indices) -> None:
        """Note for each of these places of the batch the member that is nearest so far."""
        for start in range(0, len(members), COLUMNS_AT_ONCE):
            some = members[start : start + COLUMNS_AT_ONCE]
            cosines = batch[places] @ self._vectors[some].T
            best = cosines.argmax(axis=1)
            top = cosines[np.arange(len(places)), best]
            better = top > self._cosines[places]
            self._cosines[places[better]] = top[better]
            self._nearest[places[better]] = some[best[better]]
