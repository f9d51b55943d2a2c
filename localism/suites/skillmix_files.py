"""SKILL-MIX's combinations: skills.csv and topics.txt -> seeded draws of k skills and a topic."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from localism.errors import ConfigError
from localism.suites.files import Row, only_file, rows, unique

DROPPED_STATUS = ("remove", "in review", "maybe")
"""In column status of skills.csv: a skill that the published code leaves out."""
SETTINGS = "settings.json"
MOST_SKILLS, MOST_COMBINATIONS = 20, 10_000


@dataclass(frozen=True)
class Draws:
    """What is drawn, as settings.json may say."""

    k: tuple[int, ...] = (2, 3, 4)
    """How many skills are mixed; one part of the suite each."""
    combinations: int = 100
    """Of each k."""
    seed: int = 10
    """Of each k anew; 10 is the published code's."""


@dataclass(frozen=True)
class Combination:
    """What one text is to be written about."""

    k: int
    """How many skills it mixes."""
    number: int
    """Among those of this k, from 1."""
    skills: tuple[Mapping[str, str], ...]
    """Their names, definitions and examples; the last two may be empty."""
    topic: str
    """What the text is to be about."""


def combinations(source: Path) -> list[Combination]:
    """All combinations of a folder. Raises ConfigError for files that are not as they should be."""
    if source.is_file():
        raise ConfigError(
            "skill-mix is drawn from two files",
            where=str(source),
            fix="give the folder that holds skills.csv and topics.txt",
        )
    skills, topics, draws = _skills(source), _topics(source), _draws(source / SETTINGS)
    for k in draws.k:
        if k > len(skills):
            raise ConfigError(
                f"k = {k} needs as many skills, and there are {len(skills)}",
                where=str(source),
                fix=f'bring more, or say {{"k": [2, 3]}} in {SETTINGS}',
            )
    return [
        Combination(k, number, tuple(mixed), topic)
        for k in draws.k
        for number, (mixed, topic) in enumerate(draw(skills, topics, k, draws), 1)
    ]


def draw(
    skills: Sequence[Any], topics: Sequence[str], k: int, draws: Draws
) -> list[tuple[list[Any], str]]:
    """The very combinations of the published code (query_random.py) for the same files and seed.

    It shuffles the list of skills before each draw, and after all of them the list of topics.
    """
    order, names, generator = [*skills], [*topics], random.Random(draws.seed)
    mixed = []
    for _ in range(draws.combinations):
        generator.shuffle(order)
        mixed.append(order[:k])
    found = []
    for combination in mixed:
        generator.shuffle(names)
        found.append((combination, names[0]))
    return found


# ---- files ---------------------------------------------------------------------------------


def _skills(source: Path) -> list[Mapping[str, str]]:
    file = only_file(source, ("skills.csv", "skills.jsonl", "skills.json"), "skills")
    skills = [_skill(row) for row in rows(file) if row.values.get("status") not in DROPPED_STATUS]
    unique([skill["name"].lower() for skill in skills], str(file))
    return skills


def _skill(row: Row) -> Mapping[str, str]:
    """A skill of a run's own corpus may have no definition; the model then knows its name alone."""
    more = {
        name: row.text(name, empty=True) if row.values.get(name) is not None else ""
        for name in ("definition", "example")
    }
    texts = {"name": row.text("skill"), **more}
    return {name: " ".join(text.split()) for name, text in texts.items()}


def _topics(source: Path) -> list[str]:
    file = only_file(source, ("topics.txt", "topics.csv", "topics.jsonl", "topics.json"), "topics")
    if file.suffix == ".txt":
        topics = [line.strip() for line in _text(file).split("\n") if line.strip()]
    else:
        topics = [row.text("topic").strip() for row in rows(file)]
    if not topics:
        raise ConfigError("no topics", where=str(file), fix="write one on each line")
    return topics


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as unread:
        raise ConfigError(
            f"this cannot be read: {unread}", where=str(file), fix="save it as UTF-8"
        ) from None


def _draws(file: Path) -> Draws:
    """settings.json, checked; the usual draws where there is none."""
    if not file.is_file():
        return Draws()
    try:
        said = json.loads(_text(file))
    except (ValueError, RecursionError) as wrong:
        raise _wrong(file, f"this is not JSON: {wrong}") from None
    known = [field.name for field in fields(Draws)]
    if not isinstance(said, dict) or not said.keys() <= set(known):
        raise _wrong(file, f"it may hold {', '.join(known)}, and nothing else")
    usual = Draws()
    k = said.get("k", [*usual.k])
    if not isinstance(k, list) or not k or not all(_is_number(one, MOST_SKILLS) for one in k):
        raise _wrong(file, f"k is no list of numbers from 1 to {MOST_SKILLS}")
    if not _is_number(said.get("combinations", usual.combinations), MOST_COMBINATIONS):
        raise _wrong(file, f"combinations is no number from 1 to {MOST_COMBINATIONS:,}")
    if type(said.get("seed", usual.seed)) is not int:
        raise _wrong(file, "seed is no whole number")
    return Draws(**{**said, "k": tuple(dict.fromkeys(k))})


def _is_number(value: object, most: int) -> bool:
    # Not isinstance: True is an int too.
    return type(value) is int and 1 <= value <= most


def _wrong(file: Path, problem: str) -> ConfigError:
    example = '{"k": [2, 3, 4], "combinations": 100, "seed": 10}'
    return ConfigError(problem, where=str(file), fix=f"write, for instance, {example}")
