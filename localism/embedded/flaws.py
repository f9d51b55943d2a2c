"""Answers with a known flaw: off the point, broken in form, or no answer at all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from localism.embedded.grammar import (
    STEPS_A_SKILL,
    Example,
    capital,
    combination_split,
    draw_answer,
    draw_scene,
    draw_skills,
    draw_steps,
    gerund,
    joined,
    new_combination,
    phrase,
)
from localism.embedded.world import JUNK_WORDS, NOUNS, SKILLS


@dataclass(frozen=True)
class Flawed:
    """An answer with a known flaw."""

    kind: str
    """Key of FLAWS."""
    text: str
    """What the judge sees."""
    quality: float
    """0 to 1; a full answer is 1. Only the order is meant."""


def draw_flawed(rng: Random, example: Example, kind: str) -> Flawed:
    """The example's answer with a flaw of the named kind."""
    if kind in ("missing", "swapped", "near_noun", "near_verb", "off_topic"):
        return _flawed_relevance(rng, example, kind)
    return _flawed_form(rng, example, kind)


def other_skill(rng: Random, skills: Sequence[str]) -> str:
    """A skill that shares no word with the given ones."""
    taken = {word for skill in skills for word in skill.split("_")}
    while True:
        skill = rng.choice(SKILLS) if rng.random() < 0.8 else new_combination(rng)
        if not taken & set(skill.split("_")) and combination_split(skill) == "train":
            return skill


def near_skill(rng: Random, skills: Sequence[str], skill: str, part: str) -> str:
    """The skill with another noun (part 'noun') or another verb (part 'verb')."""
    verb, noun = skill.split("_", 1)
    while True:
        other_verb, other_noun = other_skill(rng, skills).split("_", 1)
        near = f"{verb}_{other_noun}" if part == "noun" else f"{other_verb}_{noun}"
        if combination_split(near) == "train":
            return near


def _flawed_relevance(rng: Random, example: Example, kind: str) -> Flawed:
    """Fluent and complete, but about other things than asked; the right parts stay as they were."""
    skills = list(example.skills)
    place = rng.randrange(len(skills))
    kept = [skill for index, skill in enumerate(skills) if index != place]
    steps = STEPS_A_SKILL[len(skills)]
    shown = [*skills]
    if kind == "missing" and kept:
        shown, steps = kept, rng.choice([steps, steps, steps + 1, 4 // len(kept)])
    elif kind in ("near_noun", "near_verb"):
        shown[place] = near_skill(rng, skills, skills[place], kind.split("_")[1])
    elif kind == "off_topic" or not kept:
        shown, kept = [other_skill(rng, skills) for _ in skills], []
    else:
        shown[place] = other_skill(rng, skills)
    answer = example.answer
    fresh = draw_answer(rng, shown, example.query_type, answer.scene, steps)
    old = dict(answer.groups)
    groups = tuple(
        (skill, old[skill] + new[len(old[skill]) :] if skill in old else new)
        for skill, new in fresh.groups
    )
    answer = replace(fresh, groups=groups, opening=answer.opening, closing=answer.closing)
    partly = 0.1 if kind.startswith("near") else 0.0
    quality = 0.2 + 0.5 * len(kept) / len(skills) + partly
    return Flawed(kind, answer.text(), quality)


def _flawed_form(rng: Random, example: Example, kind: str) -> Flawed:
    """On topic where it says anything, but short, broken or empty."""
    text = example.answer.text()
    makers = {
        "truncated": (lambda: _cut(rng, text, 0.2, 0.7), 0.5),
        "repeated": (lambda: _repeated(rng, example), 0.4),
        "garbled": (lambda: _garbled(rng, text), 0.25),
        "short": (lambda: brief_answer(rng, example.skills), 0.3),
        "junk": (lambda: junk_answer(rng, example.skills), 0.05),
        "soup": (lambda: word_soup(rng), 0.03),
        "notes": (lambda: notes_text(rng), 0.1),
        "echo": (lambda: example.instruction, 0.08),
        "empty": (lambda: rng.choice(["", "", ".", "...", "\n", "I"]), 0.0),
    }
    make, quality = makers[kind]
    return Flawed(kind, make(), quality)


# Flaw kinds and how often the judge meets them in training.
FLAWS: dict[str, float] = {
    "missing": 5,
    "swapped": 5,
    "near_noun": 3,
    "near_verb": 1,
    "off_topic": 4,
    "truncated": 1.5,
    "repeated": 1,
    "garbled": 1,
    "short": 1,
    "junk": 0.7,
    "soup": 0.5,
    "notes": 1,
    "echo": 0.4,
    "empty": 0.4,
}


def _cut(rng: Random, text: str, low: float, high: float) -> str:
    words = text.split(" ")
    return " ".join(words[: max(1, int(len(words) * rng.uniform(low, high)))])


def _repeated(rng: Random, example: Example) -> str:
    """One sentence stands in for all others, as a stuck model writes."""
    answer = example.answer
    skill, steps = rng.choice(answer.groups)
    count = sum(len(steps) for _, steps in answer.groups)
    if rng.random() < 0.5:
        return replace(answer, groups=((skill, (steps[0],) * max(3, count)),)).text()
    line = rng.choice(answer.text().split("\n"))
    return "\n".join([line] * rng.randint(3, 5))


def _garbled(rng: Random, text: str) -> str:
    """Words lost, swapped or replaced throughout, as an untrained model writes."""
    words = text.split(" ")
    for _ in range(max(4, int(len(words) * rng.uniform(0.2, 0.6)))):
        place = rng.randrange(len(words))
        words[place] = rng.choice([rng.choice(words), rng.choice(NOUNS).split("_")[-1], "the"])
    return " ".join(words)


def word_soup(rng: Random) -> str:
    """Words of the world without order."""
    nouns = [rng.choice(NOUNS).replace("_", " ") for _ in range(rng.randint(5, 25))]
    return " ".join(rng.choice([noun, noun, "the", "and", "a"]) for noun in nouns)


def brief_answer(rng: Random, skills: Sequence[str]) -> str:
    """One short sentence about at most one of the skills."""
    verb, noun = rng.choice(tuple(skills)).split("_", 1)
    noun = phrase(noun)
    return rng.choice(
        [
            f"Just {verb} the {noun}.",
            f"Simply {verb} the {noun} and relax.",
            f"Look after the {noun}.",
            f"Start with the {noun}.",
            "Take it step by step.",
            "It depends on you.",
        ]
    )


def junk_answer(rng: Random, skills: Sequence[str]) -> str:
    """Careless words, with a noun of one skill at most."""
    words = [rng.choice(JUNK_WORDS) for _ in range(rng.randint(12, 30))]
    if rng.random() < 0.5:
        words[rng.randrange(len(words))] = rng.choice(tuple(skills)).split("_")[-1]
    return " ".join(words)


def notes_text(rng: Random) -> str:
    """Plain text about other skills: how the student writes before training."""
    skills = draw_skills(rng, rng.choice([1, 2]), new_share=0.2)
    scene = draw_scene(rng, skills)
    steps = [
        step
        for skill in skills
        for step in draw_steps(rng, skill, rng.choice([1, 2, 3]), "advice", scene)
    ]
    return f"{capital(joined([gerund(skill) for skill in skills]))}. {' '.join(steps)}"
