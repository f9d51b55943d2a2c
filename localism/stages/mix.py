"""Stage mix: skills and query types -> the plan: k skills, a query type and a split for each mix.

The coverage is designed, not drawn. In any prefix of the plan every skill is used floor or ceil of
the mean, no set of skills comes twice before all sets have been used, skills of different clusters
are preferred, and query types are balanced and spread over the skills. Test comes first, then dev,
then train, so that train can grow later without any mix moving.
Alone: localism mix --run NAME
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from localism.config import MixSection
from localism.context import Context
from localism.coverage import Coverage, filling_sets, random_sets, spread
from localism.errors import ConfigError, StageError
from localism.records import Mix, Split, stable_id
from localism.store import Row, Store
from localism.tables import number_of

ORDER: tuple[Split, ...] = ("test", "dev", "train")
MIXES_AT_ONCE = 2000


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
    store, section = context.store, context.config.mix
    plan = Plan(context)
    check(section, len(plan.units), plan.unit, context.more_skills())
    _check_not_topped_up(store, section)
    total = section.test + section.dev + section.train
    plan.write(itertools.islice(plan.sets(), total), _splits(section), total)
    units = number_of(len(plan.units), plan.unit)
    return (
        f"{number_of(total, 'mix', 'mixes')} of {section.k} from {units}:"
        f" {section.train:,} train, {section.dev:,} dev, {section.test:,} test"
    )


def top_up(context: Context) -> tuple[int, str]:
    """Plan further training mixes for units that curation left with fewer than were planned.

    Returns their number and a sentence. Dev and test stay as they are: they were drawn first.

    No set of units comes twice, held-out ones included; see coverage.filling_sets.
    """
    store = context.store
    plan = Plan(context, first=store.value("SELECT max(ordinal) + 1 FROM mix") or 0)
    index = {unit.skill_id: number for number, unit in enumerate(plan.units)}
    lacking, used = [0] * len(index), set[frozenset[int]]()
    for row in store.query(
        "SELECT list(ms.skill_id) AS skills, m.split = 'train' AND c.status IS NOT NULL"
        " AND c.status <> 'accepted' AS is_lost"
        " FROM mix m JOIN mix_skill ms USING (mix_id) LEFT JOIN candidate c USING (mix_id)"
        " GROUP BY m.mix_id, m.split, c.status ORDER BY m.mix_id"
    ):
        members = [index[skill] for skill in row["skills"]]
        used.add(frozenset(members))
        for unit in members:
            lacking[unit] += row["is_lost"]
    holes = sum(lack > 0 for lack in lacking)
    sets = list(plan.filling_sets(lacking, used))
    plan.write(iter(sets), itertools.repeat("train"), len(sets))
    if not sets:
        return 0, "nothing to top up: every training mix was accepted"
    text = f"{number_of(len(sets), 'training mix', 'training mixes')} planned for "
    text += f"{number_of(holes, plan.unit)} that lost some"
    lost = store.value(
        "SELECT count(*) FROM mix m JOIN candidate c USING (mix_id)"
        " WHERE m.split <> 'train' AND c.status <> 'accepted'"
    )
    return len(sets), text + (f"; the {lost:,} lost of dev and test stay lost" if lost else "")


class Plan:
    """What is mixed, how sets of it are drawn, and where they are written."""

    def __init__(self, context: Context, first: int = 0) -> None:
        self._store, self._progress = context.store, context.progress
        self._section = context.config.mix
        self._seed = context.config.seed if self._section.seed is None else self._section.seed
        self._first = first
        wanted = self._section.unit
        self.unit: str = wanted if wanted != "auto" else _natural_unit(self._store)
        """skill or cluster."""
        self.units = _units(self._store, self.unit)
        """By name."""
        self._types = self._store.query("SELECT query_type_id, name FROM query_type ORDER BY name")
        everyone = [unit.name for unit in self.units]
        self._clusters = (
            [unit.cluster_id for unit in self.units] if self._section.apart else everyone
        )

    def sets(self) -> Iterator[tuple[int, ...]]:
        """The endless plan: designed or drawn."""
        section, random = self._section, Random(self._seed)
        held_out = section.test + section.dev
        if section.design == "random":
            return random_sets(len(self.units), section.k, held_out, random)
        return Coverage(self._clusters, section.k, held_out, random).sets()

    def filling_sets(
        self, lacking: Sequence[int], used: set[frozenset[int]]
    ) -> Iterator[tuple[int, ...]]:
        """Sets for units that lack some."""
        random = Random(f"top-up {self._seed} {self._first}")
        return filling_sets(lacking, self._clusters, self._section.k, used, random)

    def write(self, sets: Iterator[tuple[int, ...]], splits: Iterator[Split], total: int) -> None:
        """Give each set a query type and a split, and store it."""
        # A stream of its own, so that query types do not change which skills meet.
        stream = Random(f"query types {self._seed}" + (f" {self._first}" if self._first else ""))
        typed = spread(sets, len(self._types), stream)
        rows = self._rows(zip(typed, splits, strict=False))
        done = 0
        while batch := list(itertools.islice(rows, MIXES_AT_ONCE)):
            self._store.add_rows("mix", [mix for mix, _ in batch])
            self._store.add_rows("mix_skill", [skill for _, skills in batch for skill in skills])
            done += len(batch)
            self._progress.update(done, total, unit="mixes")

    def _rows(
        self, planned: Iterable[tuple[tuple[tuple[int, ...], int | None], Split]]
    ) -> Iterator[tuple[Row, list[Row]]]:
        """(mix row, its mix_skill rows) in the order of the plan."""
        k = self._section.k
        for ordinal, ((members, number), split) in enumerate(planned, self._first):
            type_id, type_name = (None, None) if number is None else self._types[number].values()
            names = [self.units[unit].name for unit in members]
            mix_id = stable_id("mix", self._seed, k, ordinal, names, type_name)
            skills = [
                {"mix_id": mix_id, "position": position, "skill_id": self.units[unit].skill_id}
                for position, unit in enumerate(members)
            ]
            mix = {"mix_id": mix_id, "ordinal": ordinal, "k": k, "query_type_id": type_id}
            yield {**mix, "split": split, "top_up": self._first > 0}, skills


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


def check(section: MixSection, units: int, unit: str, more: str) -> None:
    """Raise ConfigError when the plan can't be made from so many units; `more` is advice."""
    if section.k > units:
        raise ConfigError(
            f"k = {section.k} is larger than the number of {unit}s, {units}",
            where="[mix].k",
            fix=f"use a smaller k, or {more}",
        )
    sets = math.comb(units, section.k)
    if sets <= section.test + section.dev:
        raise ConfigError(
            f"{number_of(units, unit)} can make {number_of(sets, 'set')} of {section.k}; dev and "
            f"test take {section.dev + section.test} and leave none for train",
            where="[mix].dev and [mix].test",
            fix=f"make them smaller, or {more}",
        )


# ---- what is there ---------------------------------------------------------------------------


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


def _check_not_topped_up(store: Store, section: MixSection) -> None:
    """A plan that was topped up cannot grow: the next mixes of the design would take its places."""
    topped_up = store.value("SELECT count(*) FROM mix WHERE top_up")
    designed = store.value("SELECT count(*) FROM mix WHERE NOT top_up")
    if topped_up and designed < section.test + section.dev + section.train:
        raise ConfigError(
            f"the plan was topped up with {number_of(topped_up, 'mix', 'mixes')}, and cannot grow "
            "any more",
            where=f"[mix].train = {section.train}",
            fix="top up again, or fork: the fork plans anew and keeps every model call",
        )
