"""The grammar of the embedded models: skills -> scenes, instructions, answers and flawed answers.

Every function draws from the random.Random it is given, so a seed fixes the text. Pairs of skills
and new verb-noun combinations belong to one split each by hash: training never sees those of dev
and test.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from localism.embedded.world import (
    ANY_VERB_STEPS,
    CLOSINGS,
    DAYS,
    INSTRUCTIONS,
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
    parts = [combination_split(skill) for skill in skills]
    parts += [
        _bucket("|".join(sorted(pair)), 100, 4)
        for index, first in enumerate(skills)
        for pair in [(first, second) for second in skills[index + 1 :]]
    ]
    return next((part for part in ("test", "dev") if part in parts), "train")


def combination_split(skill: str) -> str:
    """The split of one skill: listed skills are train, new combinations go by hash."""
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


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
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
    return capital(text)


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
            V=capital(verb),
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
        f"{capital(gerund(skill))} {reason}. {' '.join(steps)}"
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
