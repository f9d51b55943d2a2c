"""Stage mix: skills and query types -> the plan: k skills, a query type and a split for each mix.

The coverage is designed, not drawn. In any prefix of the plan every skill is used floor or ceil of
the mean, no set of skills comes twice before all sets have been used, skills of different clusters
are preferred, and query types are balanced and spread over the skills. Test comes first, then dev,
then train, so that train can grow later without any mix moving.
Alone: localism mix --run NAME
"""

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from localism.config import MixSection
from localism.context import Context
from localism.errors import ConfigError, StageError
from localism.records import Mix, Split, stable_id
from localism.store import Row, Store

ORDER: tuple[Split, ...] = ("test", "dev", "train")
MIXES_AT_ONCE = 2000
# The price of a set while a pass is put together: one that was used, or that holds a unit twice,
# has to go; one with two units of the same cluster had better go.
FORBIDDEN = 1000
SWAPS_FOR_CLUSTERS = 24
# A pass of few units is quickly shuffled again, and is the one that may need it.
SHUFFLES, SHUFFLED_UNITS = 20, 4000


@dataclass(frozen=True)
class Unit:
    """What is mixed: a skill, or a cluster in the shape of its medoid skill."""

    skill_id: str
    """Of the skill that the prompts name."""
    name: str
    """Of the skill that the prompts name."""
    cluster_id: str
    """Units of different clusters are preferred in one mix."""


def run(context: Context) -> str:
    """Plan what is not planned yet; the same seed, skills and settings give the same rows."""
    store, section, seed = context.store, context.config.mix, context.config.seed
    unit = section.unit if section.unit != "auto" else _natural_unit(store)
    units = _units(store, unit)
    types = store.query("SELECT query_type_id, name FROM query_type ORDER BY name")
    check(section, len(units), unit)
    held_out = section.test + section.dev
    total = held_out + section.train
    sets = Coverage([unit.cluster_id for unit in units], section.k, held_out, Random(seed)).sets()
    # A stream of its own, so that query types do not change which skills meet.
    typed = spread(itertools.islice(sets, total), len(types), Random(f"query types {seed}"))
    rows = _rows(zip(typed, _splits(section), strict=True), units, types, section.k, seed)
    done = 0
    while batch := list(itertools.islice(rows, MIXES_AT_ONCE)):
        store.add_rows("mix", [mix for mix, _ in batch])
        store.add_rows("mix_skill", [skill for _, skills in batch for skill in skills])
        done += len(batch)
        context.progress.update(done, total, unit="mixes")
    return (
        f"{total:,} mixes of {section.k} from {len(units):,} {unit}s:"
        f" {section.train:,} train, {section.dev:,} dev, {section.test:,} test"
    )


def load_mixes(store: Store, splits: Sequence[str] = ("train", "dev", "test")) -> list[Mix]:
    """The planned mixes of some splits, in the order of the plan."""
    rows = store.query(
        """
        SELECT m.mix_id, m.ordinal, m.split, list(s.name ORDER BY ms.position) AS skills,
               any_value(q.name) AS query_type, any_value(q.definition) AS query_type_definition
        FROM mix m JOIN mix_skill ms USING (mix_id) JOIN skill s USING (skill_id)
        LEFT JOIN query_type q USING (query_type_id)
        WHERE list_contains(?, m.split)
        GROUP BY m.mix_id, m.ordinal, m.split ORDER BY m.ordinal
        """,
        [list(splits)],
    )
    return [Mix(**{**row, "skills": tuple(row["skills"])}) for row in rows]


def check(section: MixSection, units: int, unit: str = "skill") -> None:
    """Raise ConfigError when the plan can't be made from so many units."""
    if section.k > units:
        raise ConfigError(
            f"k = {section.k} is larger than the number of {unit}s, {units}",
            where="[mix].k",
            fix="use a smaller k, or extract more skills ([extract].topics, skills_per_topic)",
        )
    sets = math.comb(units, section.k)
    if sets <= section.test + section.dev:
        raise ConfigError(
            f"{units} {unit}s make {sets} sets of {section.k}; dev and test take"
            f" {section.dev + section.test} and leave none for train",
            where="[mix].dev and [mix].test",
            fix="make them smaller, or extract more skills ([extract].topics, skills_per_topic)",
        )


# ---- which units together --------------------------------------------------------------------


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


# ---- rows ------------------------------------------------------------------------------------


def _natural_unit(store: Store) -> str:
    """Clusters where all skills were found in seed data, skills elsewhere."""
    only_seeds = "SELECT bool_and(source = 'sdd') FROM skill_label WHERE skill_id IS NOT NULL"
    return "cluster" if store.value(only_seeds) else "skill"


def _units(store: Store, unit: str) -> list[Unit]:
    """What can be mixed, by name: ids and orders in the corpus play no part in the plan."""
    rows = store.query(
        "SELECT s.skill_id, s.name, s.cluster_id, c.medoid"
        " FROM skill s JOIN cluster c USING (cluster_id) ORDER BY s.name"
    )
    if not rows:
        raise StageError(
            "there are no skills to mix", where="table skill", fix="run extract and cluster first"
        )
    return [
        Unit(row["skill_id"], row["name"], row["cluster_id"])
        for row in rows
        if unit == "skill" or row["name"] == row["medoid"]
    ]


def _splits(section: MixSection) -> Iterator[Split]:
    for split in ORDER:
        yield from itertools.repeat(split, getattr(section, split))


def _rows(
    planned: Iterable[tuple[tuple[tuple[int, ...], int | None], Split]],
    units: Sequence[Unit],
    types: Sequence[Row],
    k: int,
    seed: int,
) -> Iterator[tuple[Row, list[Row]]]:
    """(mix row, its mix_skill rows) in the order of the plan."""
    for ordinal, ((members, number), split) in enumerate(planned):
        type_id, type_name = (None, None) if number is None else types[number].values()
        names = [units[unit].name for unit in members]
        mix_id = stable_id("mix", seed, k, ordinal, names, type_name)
        skills = [
            {"mix_id": mix_id, "position": position, "skill_id": units[unit].skill_id}
            for position, unit in enumerate(members)
        ]
        mix = {"mix_id": mix_id, "ordinal": ordinal, "k": k, "query_type_id": type_id}
        yield {**mix, "split": split}, skills
