"""The grammar of the embedded models: skills -> scenes, instructions, answers and flawed answers.

Every function draws from the random.Random it is given, so a seed fixes the text. Pairs of skills
and new verb-noun combinations belong to one split each by hash: training never sees those of dev
and test.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from localism.embedded.world import (
    ANY_VERB_STEPS,
    CLOSINGS,
    DAYS,
    INSTRUCTIONS,
    JUNK_WORDS,
    NAMES,
    NOUNS,
    NUMBERS,
    OPENINGS,
    QUERY_TYPES,
    REASONS,
    SKILLS,
    TOPIC_OF_SKILL,
    TOPICS,
    VERBS,
)

STEPS_A_SKILL = {1: 3, 2: 2, 3: 1}
_SKILL_SET = frozenset(SKILLS)


@dataclass(frozen=True)
class Scene:
    """The particulars that an instruction and its answer share."""

    context: str
    """Where it happens: 'a family dinner'."""
    tool: str
    """With what: 'a recipe card'."""
    role: str
    """Who asks, with article: 'a home cook'."""
    person: str
    """The only person named."""
    day: str
    """The only weekday named outside a day plan."""
    number: str
    """A number word for the instruction."""


@dataclass(frozen=True)
class Answer:
    """A response in parts, so that a flaw can be put into exactly one of them."""

    query_type: str
    """Decides the form."""
    scene: Scene
    """Shared with the instruction."""
    opening: str
    """Template of the first line."""
    closing: str
    """Template of the last line."""
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """Each skill with its sentences."""
    days: tuple[str, ...]
    """Weekdays in order, for day plans."""
    reasons: tuple[str, ...]
    """One reason a skill, for explanations."""

    @property
    def skills(self) -> tuple[str, ...]:
        """The skills that the response shows."""
        return tuple(skill for skill, _ in self.groups)

    def text(self) -> str:
        """The response as the model writes it."""
        return _FORMS.get(self.query_type, _paragraph)(self)


@dataclass(frozen=True)
class Example:
    """Skills, the instruction that needs them and a full answer."""

    skills: tuple[str, ...]
    """Skills to be shown, in the order asked for."""
    query_type: str
    """Key of QUERY_TYPES."""
    instruction: str
    """One line."""
    answer: Answer
    """Shows every skill."""


# ---- splits ------------------------------------------------------------------------------------


def split_of(skills: Sequence[str]) -> str:
    """'train', 'dev' or 'test': the strictest split among new combinations and pairs within."""
    parts = [_combination_split(skill) for skill in skills]
    parts += [
        _bucket("|".join(sorted(pair)), 100, 4)
        for index, first in enumerate(skills)
        for pair in [(first, second) for second in skills[index + 1 :]]
    ]
    return next((part for part in ("test", "dev") if part in parts), "train")


def _combination_split(skill: str) -> str:
    return "train" if skill in _SKILL_SET else _bucket(skill, 12, 1)


def _bucket(key: str, size: int, share: int) -> str:
    place = zlib.crc32(key.encode()) % size
    return "test" if place < share else "dev" if place < 2 * share else "train"


def new_combination(rng: Random) -> str:
    """A verb with the noun of another verb's skill: known words, unknown together."""
    while True:
        skill = f"{rng.choice(tuple(VERBS))}_{rng.choice(NOUNS)}"
        if skill not in _SKILL_SET:
            return skill


def draw_skills(
    rng: Random, count: int, split: str = "train", new_share: float = 0.0
) -> tuple[str, ...]:
    """`count` skills with distinct verbs and nouns whose combination belongs to `split`."""
    while True:
        skills = tuple(
            new_combination(rng) if rng.random() < new_share else rng.choice(SKILLS)
            for _ in range(count)
        )
        words = [set(skill.split("_")) for skill in skills]
        overlap = any(words[i] & words[j] for i in range(count) for j in range(i + 1, count))
        if not overlap and split_of(skills) == split:
            return skills


# ---- phrases -----------------------------------------------------------------------------------


def phrase(skill: str) -> str:
    """'plan_meals' -> 'plan meals'."""
    return skill.replace("_", " ")


def gerund(skill: str) -> str:
    """'plan_meals' -> 'planning meals'."""
    verb, noun = skill.split("_", 1)
    return f"{VERBS[verb][0]} {phrase(noun)}"


def joined(phrases: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    if len(phrases) < 2:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _fill(template: str, skills: Sequence[str], scene: Scene, number: str = "") -> str:
    """Fill an instruction, opening or closing template."""
    text = template.format(
        S=joined([phrase(skill) for skill in skills]),
        G=joined([gerund(skill) for skill in skills]),
        c=scene.context,
        t=scene.tool,
        r=scene.role,
        p=scene.person,
        d=scene.day,
        k=number or scene.number,
    )
    return _capital(text)


# ---- scenes, instructions, answers -------------------------------------------------------------


def draw_scene(rng: Random, skills: Sequence[str]) -> Scene:
    """A scene from the topic of one of the skills, or from any topic for new combinations."""
    known = [TOPIC_OF_SKILL[skill] for skill in skills if skill in TOPIC_OF_SKILL]
    topic = TOPICS[rng.choice(known) if known else rng.choice(tuple(TOPICS))]
    return Scene(
        context=rng.choice(topic.contexts),
        tool=rng.choice(topic.tools),
        role=_with_article(rng.choice(topic.roles)),
        person=rng.choice(NAMES),
        day=rng.choice(DAYS),
        number=rng.choice(NUMBERS),
    )


def draw_instruction(rng: Random, skills: Sequence[str], query_type: str, scene: Scene) -> str:
    """One instruction that names every skill."""
    return _fill(rng.choice(INSTRUCTIONS[query_type]), skills, scene)


def draw_steps(
    rng: Random, skill: str, count: int, query_type: str, scene: Scene
) -> tuple[str, ...]:
    """`count` different sentences that show the skill."""
    verb, noun = skill.split("_", 1)
    # A day plan names its own days, and a letter speaks to the person instead of about them.
    barred = {"day_plan": "{d}", "message": "{p}"}.get(query_type, "{-}")
    own = [step for step in VERBS[verb][1] if barred not in step]
    general = [step for step in ANY_VERB_STEPS if barred not in step]
    chosen = [rng.choice(own)] + rng.sample(general, min(count, len(general)))
    if rng.random() < 0.5 and len(own) > 1:
        chosen.insert(1, rng.choice([step for step in own if step != chosen[0]]))
    return tuple(
        step.format(
            v=verb,
            V=_capital(verb),
            n=phrase(noun),
            k=rng.choice(NUMBERS),
            t=scene.tool,
            d=scene.day,
            p=scene.person,
        )
        for step in chosen[:count]
    )


def draw_answer(
    rng: Random, skills: Sequence[str], query_type: str, scene: Scene, steps: int | None = None
) -> Answer:
    """A full answer: every skill with its own sentences."""
    count = steps or STEPS_A_SKILL[len(skills)]
    total = count * len(skills)
    days = sorted(rng.sample(range(len(DAYS)), min(total, len(DAYS))))
    return Answer(
        query_type=query_type,
        scene=scene,
        opening=rng.choice(OPENINGS[query_type]),
        closing=rng.choice(CLOSINGS).replace("{k}", rng.choice(NUMBERS)),
        groups=tuple((skill, draw_steps(rng, skill, count, query_type, scene)) for skill in skills),
        days=tuple(DAYS[day] for day in days),
        reasons=tuple(rng.sample(REASONS, len(skills))),
    )


def draw_example(rng: Random, skills: Sequence[str], query_type: str | None = None) -> Example:
    """An instruction and its full answer from one scene."""
    kind = query_type or rng.choice(tuple(QUERY_TYPES))
    scene = draw_scene(rng, skills)
    instruction = draw_instruction(rng, skills, kind, scene)
    return Example(tuple(skills), kind, instruction, draw_answer(rng, skills, kind, scene))


# ---- the form of each query type ---------------------------------------------------------------


def _ends(answer: Answer) -> tuple[str, str]:
    return (
        _fill(answer.opening, answer.skills, answer.scene),
        _fill(answer.closing, answer.skills, answer.scene),
    )


def _sentences(answer: Answer) -> list[str]:
    return [step for _, steps in answer.groups for step in steps]


def _how_to(answer: Answer) -> str:
    opening, closing = _ends(answer)
    lines = [f"{number}. {step}" for number, step in enumerate(_sentences(answer), 1)]
    return "\n".join([opening, *lines, closing])


def _day_plan(answer: Answer) -> str:
    opening, closing = _ends(answer)
    steps = _sentences(answer)
    lines = [f"{day}: {step}" for day, step in zip(answer.days, steps, strict=False)]
    return "\n".join([opening, *lines, closing])


def _checklist(answer: Answer) -> str:
    opening, closing = _ends(answer)
    return "\n".join([opening, *[f"- {step}" for step in _sentences(answer)], closing])


def _paragraph(answer: Answer) -> str:
    opening, closing = _ends(answer)
    return " ".join([opening, *_sentences(answer), closing])


def _explanation(answer: Answer) -> str:
    opening, closing = _ends(answer)
    lines = [
        f"{_capital(gerund(skill))} {reason}. {' '.join(steps)}"
        for (skill, steps), reason in zip(answer.groups, answer.reasons, strict=False)
    ]
    return "\n".join([opening, *lines, closing])


def _message(answer: Answer) -> str:
    opening, closing = _ends(answer)
    return f"Hi {answer.scene.person},\n{opening} {' '.join(_sentences(answer))}\n{closing}"


def _question_answer(answer: Answer) -> str:
    opening, closing = _ends(answer)
    lines = [
        f"Q: How do I {phrase(skill)}?\nA: {' '.join(steps)}" for skill, steps in answer.groups
    ]
    return "\n".join([opening, *lines, closing])


def _common_mistakes(answer: Answer) -> str:
    opening, closing = _ends(answer)
    lines = [
        f"Mistake: People forget to {phrase(skill)}.\nBetter: {' '.join(steps)}"
        for skill, steps in answer.groups
    ]
    return "\n".join([opening, *lines, closing])


_FORMS = {
    "how_to": _how_to,
    "day_plan": _day_plan,
    "advice": _paragraph,
    "checklist": _checklist,
    "explanation": _explanation,
    "message": _message,
    "question_answer": _question_answer,
    "common_mistakes": _common_mistakes,
}


# ---- flaws -------------------------------------------------------------------------------------


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
        if not taken & set(skill.split("_")) and _combination_split(skill) == "train":
            return skill


def near_skill(rng: Random, skills: Sequence[str], skill: str, part: str) -> str:
    """The skill with another noun (part 'noun') or another verb (part 'verb')."""
    verb, noun = skill.split("_", 1)
    while True:
        other_verb, other_noun = other_skill(rng, skills).split("_", 1)
        near = f"{verb}_{other_noun}" if part == "noun" else f"{other_verb}_{noun}"
        if _combination_split(near) == "train":
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
    return f"{_capital(joined([gerund(skill) for skill in skills]))}. {' '.join(steps)}"
