"""Which turns of a model the ledger has: 8 bytes each, for runs with millions of them."""

from localism.store import Store

# New ones are collected in a set, which takes 70 bytes each, and then sorted in with the others:
# 0.02 s for a million.
COLLECTED = 50_000


class KnownTurns:
    """The turn ids (records.stable_id: 16 hex digits, so 64 bits) of one model's weights."""

    def __init__(self, store: Store, fingerprint: str) -> None:
        self._sorted = store.numbers(
            "SELECT ('0x' || turn_id)::UBIGINT AS number FROM turn"
            " WHERE model_fingerprint = ? ORDER BY number",
            [fingerprint],
        )
        self._new: set[int] = set()

    def __contains__(self, turn_id: str) -> bool:
        number = int(turn_id, 16)
        if number in self._new:
            return True
        place = self._sorted.searchsorted(self._sorted.dtype.type(number))
        return bool(place < len(self._sorted) and self._sorted[place] == number)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._new)

    def add(self, turn_id: str) -> None:
        """One that was not there."""
        self._new.add(int(turn_id, 16))
        if len(self._new) >= COLLECTED:
            self._sort_in()

    def _sort_in(self) -> None:
        import numpy

        new = numpy.fromiter(self._new, numpy.uint64, len(self._new))
        new.sort()
        self._sorted = numpy.concatenate([self._sorted, new])
        self._sorted.sort(kind="stable")  # two sorted runs: one pass
        self._new.clear()
