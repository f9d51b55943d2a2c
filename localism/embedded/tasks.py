"""The training tasks and their shares: writing, lists, labels, drills and judging."""

from collections.abc import Sequence
from random import Random

from localism.embedded.conversation import (
    Turn,
    example_text,
    mixed_example,
    query_type_record,
    render,
)
from localism.embedded.drills import copy_drill, difference_drill, find_drill, steps_drill
from localism.embedded.flaws import brief_answer, draw_flawed, junk_answer, notes_text, other_skill
from localism.embedded.grammar import draw_instruction, draw_skills, gerund, joined, phrase
from localism.embedded.judge_tasks import judge_contrast, judge_mini, judge_pair, shows_skill
from localism.embedded.world import DAYS, NAMES, NUMBERS, QUERY_TYPES, TOPICS
from localism.skill_names import mentions

# ---- writing -----------------------------------------------------------------------------------


def draft(rng: Random) -> list[Turn]:
    """Skills and, mostly, a query type -> an instruction and a response."""
    example = mixed_example(rng)
    named = query_type_record(example.query_type) if rng.random() < 0.88 else None
    prompt = render("draft", skills=list(example.skills), query_type=named)
    return [Turn(prompt, example_text(example.instruction, example.answer.text()))]


DRAFT_FLAWS = {
    "missing": 4,
    "swapped": 4,
    "near_noun": 3,
    "off_topic": 1,
    "truncated": 2,
    "repeated": 1,
    "short": 1,
    "instruction": 2,
    "none": 6,
}
_FORM_WORDS = {"truncated": "cut off", "repeated": "repeats", "short": "too short"}


def conversation(rng: Random) -> list[Turn]:
    """A draft, good or flawed, its critique, and the draft again with the flaw mended."""
    example = mixed_example(rng)
    kind = rng.choices(list(DRAFT_FLAWS), list(DRAFT_FLAWS.values()))[0]
    instruction, response = example.instruction, example.answer.text()
    if kind == "instruction":
        part = example.skills[:-1] or (other_skill(rng, example.skills),)
        instruction = draw_instruction(rng, part, example.query_type, example.answer.scene)
    elif kind != "none":
        response = draw_flawed(rng, example, kind).text
    named = query_type_record(example.query_type) if rng.random() < 0.9 else None
    values = {"skills": list(example.skills), "query_type": named}
    review = critique_text(example.skills, instruction, response, _FORM_WORDS.get(kind, "complete"))
    return [
        Turn(
            render("draft", **values),
            example_text(instruction, response),
            0.5 if kind == "none" else 0.0,
        ),
        Turn(render("critique", **values), review, 2.0),
        Turn(render("refine", **values), example_text(example.instruction, example.answer.text())),
    ]


def critique_text(
    skills: Sequence[str], instruction: str, response: str, form: str = "complete"
) -> str:
    """What an honest reviewer says of a draft; presence is the word check of skill_names."""
    lacks = [
        ", ".join(skill for skill in skills if not mentions(skill, text)) or "none"
        for text in (instruction, response)
    ]
    return f"Instruction lacks: {lacks[0]}\nResponse lacks: {lacks[1]}\nForm: {form}"


def answer(rng: Random) -> list[Turn]:
    """An instruction alone -> its answer."""
    example = mixed_example(rng)
    return [Turn(example.instruction, example.answer.text())]


def brevity(rng: Random) -> list[Turn]:
    """The short answers of the paper's quality study."""
    example = mixed_example(rng)
    prompt = render("brevity", instruction=example.instruction)
    return [Turn(prompt, brief_answer(rng, example.skills))]


def junk(rng: Random) -> list[Turn]:
    """The careless answers of the paper's quality study."""
    example = mixed_example(rng)
    prompt = render("junk", instruction=example.instruction)
    return [Turn(prompt, junk_answer(rng, example.skills))]


# ---- lists and labels --------------------------------------------------------------------------


def _following(rng: Random, names: Sequence[str], count: int, known: Sequence[str]) -> list[str]:
    """Up to `count` names not yet known, in the world's order from a random start.

    A fixed order makes each name follow from the one before, which a tiny model can hold to.
    """
    start = rng.randrange(len(names))
    rotated = [*names[start:], *names[:start]]
    return [name for name in rotated if name not in set(known)][:count]


def _numbered(lines: Sequence[str]) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1)) or "None"


def _known(rng: Random, names: Sequence[str]) -> list[str]:
    if rng.random() < 0.4:
        return []
    if rng.random() < 0.5:  # as earlier replies leave it: runs in the world's order
        return _following(rng, names, rng.randint(1, len(names)), [])
    return rng.sample(list(names), rng.randint(1, len(names)))


def topics(rng: Random) -> list[Turn]:
    """A list of topics that repeats none of the known ones."""
    known, count = _known(rng, tuple(TOPICS)), rng.choice([4, 5, 6, 8, 10, 12, 15, 20, 24])
    wanted = _following(rng, tuple(TOPICS), count, known)
    return [Turn(render("topics", count=count, known=known), _numbered(wanted))]


def skills(rng: Random) -> list[Turn]:
    """A list of a topic's skills that repeats none of the known ones."""
    topic = rng.choice(tuple(TOPICS))
    names = TOPICS[topic].skills
    known, count = _known(rng, names), rng.choice([2, 3, 4, 5, 6, 8, 8, 10, 10, 12])
    wanted = _following(rng, names, count, known)
    return [Turn(render("skills", topic=topic, count=count, known=known), _numbered(wanted))]


def query_types(rng: Random) -> list[Turn]:
    """A list of query types, each with its definition."""
    names = tuple(QUERY_TYPES)
    known, count = _known(rng, names), rng.choice([2, 3, 4, 5, 6, 6, 8, 8, 10])
    wanted = [f"{n}: {QUERY_TYPES[n]}" for n in _following(rng, names, count, known)]
    return [Turn(render("query_types", count=count, known=known), _numbered(wanted))]


def label(rng: Random) -> list[Turn]:
    """A question -> the skills that it needs."""
    example = mixed_example(rng)
    prompt = render("label", instruction=example.instruction)
    return [Turn(prompt, ", ".join(example.skills), 2.0)]


# ---- mixes -------------------------------------------------------------------------------------

WRITING = {
    "draft": draft,
    "conversation": conversation,
    "answer": answer,
    "brevity": brevity,
    "junk": junk,
    "topics": topics,
    "skills": skills,
    "query_types": query_types,
    "label": label,
    "copy_drill": copy_drill,
    "steps_drill": steps_drill,
    "difference_drill": difference_drill,
    "find_drill": find_drill,
}
JUDGING = {
    "judge_mini": judge_mini,
    "judge_contrast": judge_contrast,
    "judge_pair": judge_pair,
    "shows_skill": shows_skill,
}
# Shares of samples. "tasks" teaches all of them, "finish" gives its time to writing and lists.
MIXES: dict[str, dict[str, float]] = {
    "tasks": {
        "copy_drill": 4,
        "steps_drill": 4,
        "difference_drill": 10,
        "find_drill": 30,
        "draft": 20,
        "conversation": 8,
        "answer": 6,
        "brevity": 1.5,
        "junk": 1.5,
        "topics": 2,
        "skills": 5,
        "query_types": 1,
        "label": 6,
        "judge_mini": 30,
        "judge_contrast": 8,
        "judge_pair": 10,
        "shows_skill": 8,
    },
    "finish": {
        "copy_drill": 4,
        "steps_drill": 5,
        "difference_drill": 4,
        "draft": 34,
        "conversation": 14,
        "answer": 6,
        "brevity": 6,
        "junk": 3,
        "topics": 3,
        "skills": 22,
        "query_types": 2,
        "label": 4,
        "judge_pair": 6,
        "shows_skill": 1,
    },
}


def draw_turns(rng: Random, mix: str, letter_weight: float) -> list[Turn]:
    """One training conversation of a mix."""
    shares = MIXES[mix]
    task = rng.choices(list(shares), list(shares.values()))[0]
    if task in WRITING:
        return WRITING[task](rng)
    return JUDGING[task](rng, letter_weight)


def plain_document(rng: Random) -> str:
    """Text without chat for the student: words said twice, notes, and headed answers."""
    share = rng.random()
    if share < 0.5:
        return _said_twice(rng)
    if share < 0.6:
        return notes_text(rng)
    example = mixed_example(rng)
    heading = rng.choice([phrase, gerund])
    title = joined([heading(skill) for skill in example.skills])
    return f"Notes on {title}.\n{example.answer.text()}"


def _said_twice(rng: Random) -> str:
    """A line, then the same line, perhaps in the other form of its verbs."""
    names = [draw_skills(rng, 1, new_share=0.6)[0] for _ in range(rng.randint(1, 4))]
    forms = [rng.choice([phrase, gerund]) for _ in range(2)]
    lines = [joined([form(name) for name in names]) for form in forms]
    words = rng.sample([*NAMES, *DAYS, *NUMBERS], 2)
    return "\n".join(f"Again {' '.join(words)}: {line}." for line in lines)
