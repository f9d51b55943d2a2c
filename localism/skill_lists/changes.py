"""The rows of a skill list against the skills of a run -> what each skill is made of afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from localism.records import stable_id
from localism.skill_lists.csv_file import ListedSkill, SkillList
from localism.store import Row


@dataclass
class Group:
    """A skill as it is after the edit, and what it is made of."""

    name: str
    """Its name from now on."""
    owners: list[str] = field(default_factory=list)
    """skill_ids that the run had."""
    added: list[ListedSkill] = field(default_factory=list)
    """Rows that the run had no skill for."""
    survivor: str = ""
    """The owner whose cluster and HDBSCAN columns stay; empty for a new skill."""

    @property
    def skill_id(self) -> str:
        """A hash of the name, as everywhere."""
        return stable_id("skill", self.name)


@dataclass(frozen=True)
class Changes:
    """What an edit does, counted."""

    renamed: int
    """Skills that go on under another name."""
    merged: int
    """Skills and rows that became part of another skill."""
    dropped: int
    """Skills that the file no longer has."""
    added: int
    """Skills that the run did not have."""

    def __str__(self) -> str:
        counts = {name: n for name, n in vars(self).items() if n}
        return ", ".join(f"{n:,} {name}" for name, n in counts.items())


def grouped(listed: SkillList, skills: Mapping[str, Row]) -> list[Group]:
    """The skills after the edit, by name. A row means the skill of its skill_id, else of its name.

    Rows of one name are one skill. The owner that had the name already survives, else the largest.
    """
    by_name = {row["name"]: key for key, row in skills.items()}
    claimed = {
        row.skill_id: _new_name(row, skills) for row in listed.rows if row.skill_id in skills
    }
    groups: dict[str, Group] = {}
    for row in listed.rows:
        name = _new_name(row, skills)
        group = groups.setdefault(name, Group(name))
        owner = row.skill_id if row.skill_id in skills else by_name.get(name)
        if owner is None or claimed.setdefault(owner, name) != name:
            group.added.append(row)  # unknown, or its namesake goes on under another name
        elif owner not in group.owners:
            group.owners.append(owner)
    for group in groups.values():
        group.survivor = min(group.owners, key=lambda o: _rank(skills[o], group.name), default="")
    return [groups[name] for name in sorted(groups)]


def _new_name(row: ListedSkill, skills: Mapping[str, Row]) -> str:
    is_same = row.skill_id in skills and skills[row.skill_id]["name"] == row.written
    return row.written if is_same else row.name


def _rank(skill: Row, name: str) -> tuple[bool, int, int, str]:
    return skill["name"] != name, -skill["count"], len(skill["name"]), skill["name"]


def count_changes(groups: Sequence[Group], skills: Mapping[str, Row]) -> Changes:
    """What the edit does."""
    return Changes(
        renamed=sum(bool(g.owners) and skills[g.survivor]["name"] != g.name for g in groups),
        merged=sum(len(g.owners) + len(g.added) - 1 for g in groups),
        dropped=len(skills) - sum(len(g.owners) for g in groups),
        added=sum(not g.owners for g in groups),
    )
