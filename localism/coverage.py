"""Which units meet: designed coverage, the paper's random draw, and sets that fill holes.

A unit is a number from 0: a skill or a cluster. Nothing here knows of texts, rows or models.
"""

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from random import Random

# The price of a set while a pass is put together: one that was used, or that holds a unit twice,
# has to go; one with two units of the same cluster had better go.
FORBIDDEN = 1000
SWAPS_FOR_CLUSTERS = 24
# A pass of few units is quickly shuffled again, and is the one that may need it.
SHUFFLES, SHUFFLED_UNITS = 20, 4000
# Units that may keep a lacking one company, and sets of them tried before it is given up.
POOL, FILLING_TRIES = 64, 10_000


class Coverage:
    """An endless plan of sets of k units, made in passes that use every unit once.

    A pass is a shuffle cut into sets, mended by swaps within the pass; what does not fill a set
    begins the first set of the next pass. When few unused sets are left (measured: a third or less)
    no pass may be found: then the remaining sets follow, those of the least used units first, and
    uses may differ by two until all are used. Later rounds leave out the first `held_out` sets.
    """

    def __init__(self, clusters: Sequence[str], k: int, held_out: int, random: Random) -> None:
        numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
        self._clusters = [numbers[cluster] for cluster in clusters]
        self._most_clusters = min(k, len(numbers))
        self._units, self._k, self._random = len(clusters), k, random
        self._held_out, self._held_keys = held_out, set[int]()
        self._taken = set[int]()
        self._uses = [0] * self._units
        self._begun: list[int] = []

    def sets(self) -> Iterator[tuple[int, ...]]:
        """Indices of units, k at a time."""
        everything = math.comb(self._units, self._k)
        while True:
            self._taken = set(self._held_keys)
            while everything - len(self._taken) >= self._units // self._k:
                members = self._pass()
                if members is None:
                    break
                yield from map(self._take, members)
            yield from map(self._take, self._rest())

    def _take(self, members: Sequence[int]) -> tuple[int, ...]:
        key = self._key(members)
        self._taken.add(key)
        if len(self._held_keys) < self._held_out:
            self._held_keys.add(key)
        for unit in members:
            self._uses[unit] += 1
        return tuple(members)

    def _pass(self) -> list[list[int]] | None:
        """Every unit once, cut into unused sets; None when that was not found."""
        k = self._k
        for _ in range(max(SHUFFLES, SHUFFLED_UNITS // self._units)):
            slots = self._begun + self._random.sample(range(self._units), self._units)
            whole = len(slots) // k
            for start in range(0, whole * k, k):
                if self._price(slots, start):
                    self._mend(slots, start)
            members = [slots[start : start + k] for start in range(0, whole * k, k)]
            begun = slots[whole * k :]
            if self._can_follow(begun) and all(self._price(m, 0) < FORBIDDEN for m in members):
                self._begun = begun
                return members
        return None

    def _can_follow(self, begun: Sequence[int]) -> bool:
        """Whether the next pass can complete this set; where it lacks two units it surely can."""
        others = set(range(self._units)).difference(begun)
        return not len(begun) == self._k - 1 > 0 or any(
            self._key([*begun, unit]) not in self._taken for unit in others
        )

    def _mend(self, slots: list[int], start: int) -> None:
        """Swap units of the set at `start` with others of the pass as long as that helps."""
        k, first = self._k, len(self._begun)
        price = self._price(slots, start)
        swappable = len(slots) - first
        tries = swappable if price >= FORBIDDEN else min(SWAPS_FOR_CLUSTERS, swappable)
        offset = self._random.randrange(swappable)
        for step in range(tries):
            other = first + (offset + step) % swappable
            for mine in range(max(start, first), start + k):
                if other // k == start // k:
                    continue
                before = price + self._price(slots, other // k * k)
                slots[mine], slots[other] = slots[other], slots[mine]
                after = self._price(slots, start)
                if after + self._price(slots, other // k * k) < before:
                    price = after
                else:
                    slots[mine], slots[other] = slots[other], slots[mine]
            if not price:
                return

    def _price(self, slots: Sequence[int], start: int) -> int:
        """How bad the set at `start` is; what does not fill a set yet costs nothing."""
        members = slots[start : start + self._k]
        if len(members) < self._k:
            return 0
        if len(set(members)) < self._k or self._key(members) in self._taken:
            return FORBIDDEN
        return self._most_clusters - len({self._clusters[unit] for unit in members})

    def _key(self, members: Sequence[int]) -> int:
        """One number for a set, whatever its order: a million of them fit in memory."""
        key = 0
        for unit in sorted(members):
            key = key * self._units + unit
        return key

    def _rest(self) -> Iterator[tuple[int, ...]]:
        """The sets that no pass used, those of the least used units first."""
        self._begun = []
        every = itertools.combinations(range(self._units), self._k)
        left = [members for members in every if self._key(members) not in self._taken]
        self._random.shuffle(left)
        heap = [(self._used(members), members) for members in left]
        heapq.heapify(heap)
        while heap:
            used, members = heapq.heappop(heap)
            now = self._used(members)
            if now > used:  # its units were used since it was put in
                heapq.heappush(heap, (now, members))
            else:
                yield members

    def _used(self, members: Sequence[int]) -> tuple[int, int]:
        uses = [self._uses[unit] for unit in members]
        return max(uses), sum(uses)


def random_sets(units: int, k: int, held_out: int, random: Random) -> Iterator[tuple[int, ...]]:
    """Sets of k units, each drawn anew as in the paper: some units stay out, some sets come twice.

    Only the first `held_out` sets never come back, so that the splits stay disjoint here too.
    """
    held: set[frozenset[int]] = set()
    for number in itertools.count():
        members = tuple(random.sample(range(units), k))
        while number >= held_out and frozenset(members) in held:
            members = tuple(random.sample(range(units), k))
        if number < held_out:
            held.add(frozenset(members))
        yield members


def filling_sets(
    lacking: Sequence[int],
    clusters: Sequence[str],
    k: int,
    used: set[frozenset[int]],
    random: Random,
) -> Iterator[tuple[int, ...]]:
    """Unused sets of k units until each unit is in as many as it lacks.

    The unit that lacks most comes first, with those beside it that lack most; units of different
    clusters where that can be. A unit whose sets are all used is left lacking.
    """
    taken, ties = set(used), random.sample(range(len(lacking)), len(lacking))
    heap = [(-lack, ties[unit], unit) for unit, lack in enumerate(lacking) if lack > 0]
    heapq.heapify(heap)
    while heap:
        pool = [heapq.heappop(heap) for _ in range(min(len(heap), POOL))]
        first, *beside = [unit for _, _, unit in pool]
        # Where few units lack anything, others have to keep them company.
        beside += random.sample(range(len(lacking)), min(len(lacking), POOL))
        others = [unit for unit in dict.fromkeys(beside) if unit != first]
        others.sort(key=lambda unit: clusters[unit] == clusters[first])
        rest = itertools.islice(itertools.combinations(others, k - 1), FILLING_TRIES)
        sets = ((first, *members) for members in rest)
        found = next((members for members in sets if frozenset(members) not in taken), None)
        for lack, tie, unit in pool:
            after = lack + 1 if found and unit in found else 0 if unit == first else lack
            if after:
                heapq.heappush(heap, (after, tie, unit))
        if found:
            taken.add(frozenset(found))
            yield found


def extended_sets(
    sets: Iterable[Sequence[int]], clusters: Sequence[str], k: int, random: Random
) -> Iterator[tuple[int, ...]]:
    """Each set with further units up to k: the least added so far, of new clusters if that can be.

    What it has comes first, in its order.
    """
    ties = random.sample(range(len(clusters)), len(clusters))
    heap = [(0, tie, unit) for unit, tie in enumerate(ties)]
    heapq.heapify(heap)
    for members in sets:
        grown = list(members)
        while len(grown) < k:
            have = {clusters[unit] for unit in grown}
            popped = []
            while heap:
                popped.append(heapq.heappop(heap))
                if clusters[popped[-1][2]] not in have:
                    break
            free = [entry for entry in popped if entry[2] not in grown]
            chosen = free[-1] if clusters[free[-1][2]] not in have else free[0]
            for uses, tie, unit in popped:
                heapq.heappush(heap, (uses + (unit == chosen[2]), tie, unit))
            grown.append(chosen[2])
        yield tuple(grown)


def spread(
    sets: Iterable[tuple[int, ...]], types: int, random: Random
) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """Each set with a query type: all types equally often, each to the units that had it least."""
    had: dict[int, list[int]] = defaultdict(lambda: [0] * types)
    left: list[int] = []
    for members in sets:
        if not types:
            yield members, None
            continue
        left = left or random.sample(range(types), types)
        counts = [had[unit] for unit in members]
        totals = [sum(column) for column in zip(*counts, strict=True)]
        chosen = min(left, key=totals.__getitem__)
        left.remove(chosen)
        for row in counts:
            row[chosen] += 1
        yield members, chosen
