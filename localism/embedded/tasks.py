"""Training conversations: the grammar's texts in the prompts of prompts/compact.

Prompts come from the very template files that the pipeline renders. A new wording there asks for
new training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from localism.embedded.grammar import (
    FLAWS,
    Answer,
    Example,
    Scene,
    brief_answer,
    draw_answer,
    draw_example,
    draw_flawed,
    draw_instruction,
    draw_scene,
    draw_skills,
    draw_steps,
    gerund,
    joined,
    junk_answer,
    near_skill,
    notes_text,
    other_skill,
    phrase,
    split_of,
)
from localism.embedded.world import DAYS, NAMES, NOUNS, NUMBERS, QUERY_TYPES, TOPICS, VERBS
from localism.prompts import load_pack
from localism.skill_names import mentions

LABELS = ("m", "M")


@dataclass(frozen=True)
class Turn:
    """One user message, the reply, and how much the reply's tokens count in the loss."""

    user: str
    """Rendered prompt."""
    assistant: str
    """Wanted reply."""
    weight: float = 1.0
    """0 shows a reply (a flawed draft) without teaching it."""


def render(template: str, **values: object) -> str:
    """A prompt of the compact pack."""
    return load_pack("compact").render(template, **values)


def query_type_record(name: str) -> dict[str, str]:
    """A query type as draft.txt reads it."""
    return {"name": name, "definition": QUERY_TYPES[name]}


def example_text(instruction: str, response: str) -> str:
    """Instruction and response under the pack's markers."""
    pack = load_pack("compact")
    return f"{pack.instruction_marker}\n{instruction}\n{pack.response_marker}\n{response}"


def _skills(rng: Random) -> tuple[str, ...]:
    count = rng.choices([1, 2, 3], [12, 64, 24])[0]
    return draw_skills(rng, count, new_share=rng.choice([0.0, 0.35, 0.7]))


def _example(rng: Random) -> Example:
    return draw_example(rng, _skills(rng))


# ---- writing -----------------------------------------------------------------------------------


def draft(rng: Random) -> list[Turn]:
    """Skills and, mostly, a query type -> an instruction and a response."""
    example = _example(rng)
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
    example = _example(rng)
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
    example = _example(rng)
    return [Turn(example.instruction, example.answer.text())]


def brevity(rng: Random) -> list[Turn]:
    """The short answers of the paper's quality study."""
    example = _example(rng)
    prompt = render("brevity", instruction=example.instruction)
    return [Turn(prompt, brief_answer(rng, example.skills))]


def junk(rng: Random) -> list[Turn]:
    """The careless answers of the paper's quality study."""
    example = _example(rng)
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
    example = _example(rng)
    prompt = render("label", instruction=example.instruction)
    return [Turn(prompt, ", ".join(example.skills), 2.0)]


# ---- drills ------------------------------------------------------------------------------------


def copy_drill(rng: Random) -> list[Turn]:
    """Words said again in another spelling: copying is learned here before it is used elsewhere."""
    names = [
        draw_skills(rng, 1, new_share=0.7)[0] if rng.random() < 0.7 else rng.choice(NOUNS)
        for _ in range(rng.randint(2, 6))
    ]
    skills = [name for name in names if name.split("_")[0] in VERBS]
    share = rng.random()
    if share < 0.3:
        words = " ".join(phrase(name) for name in names)
        return [Turn(f"Repeat: {words}", f"Said: {words}")]
    if share < 0.6 or not skills:
        words = joined([phrase(name) for name in names])
        return [Turn(f"Say in words: {', '.join(names)}", f"Said: {words}")]
    listed = ", ".join(skills)
    if share < 0.8:
        words = joined([gerund(name) for name in skills])
        return [Turn(f"Say with -ing: {listed}", f"Said: {words}")]
    spoken = joined([rng.choice([gerund, phrase])(name) for name in skills])
    return [Turn(f"Say as names: {spoken}", listed)]


def steps_drill(rng: Random) -> list[Turn]:
    """A sentence or two for each skill in turn: the middle of every answer, without the rest."""
    skills = draw_skills(rng, rng.choice([2, 2, 3]), new_share=rng.choice([0.0, 0.5]))
    scene, count = draw_scene(rng, skills), rng.choice([1, 1, 2])
    steps = [step for s in skills for step in draw_steps(rng, s, count, "advice", scene)]
    asked = ", ".join(rng.choice([phrase, gerund])(skill) for skill in skills)
    return [Turn(f"Say {count} steps each: {asked}", " ".join(steps))]


def difference_drill(rng: Random) -> list[Turn]:
    """Which of these are not among those: the look-up behind critique and judgment."""
    names = [draw_skills(rng, 1, new_share=0.5)[0] for _ in range(rng.randint(2, 5))]
    shown = rng.sample(names, rng.randint(0, len(names)))
    extra = [draw_skills(rng, 1, new_share=0.5)[0] for _ in range(rng.randint(0, 2))]
    text = [
        rng.choice([gerund, phrase])(name) for name in rng.sample(shown + extra, len(shown + extra))
    ]
    missing = ", ".join(name for name in names if name not in {*shown, *extra}) or "none"
    said = joined(text) if text else "nothing"
    return [Turn(f"Which skills are missing?\nSkills: {', '.join(names)}\nText: {said}", missing)]


# ---- judging -----------------------------------------------------------------------------------


def _question(instruction: str) -> str:
    """The end of judge.txt, asked again of the answers already shown."""
    shown = render("judge", instruction=instruction, first="", second="")
    return shown[shown.index("Instruction:") :]


def judge_turns(
    first: str, second: str, asked: Sequence[tuple[str, str]], weight: float
) -> list[Turn]:
    """Two answers, and for each (instruction, label) asked of them one letter."""
    turns = []
    for index, (instruction, letter) in enumerate(asked):
        prompt = render("judge", instruction=instruction, first=first, second=second)
        turns.append(Turn(prompt if index == 0 else _question(instruction), letter, weight))
    return turns


def judge_contrast(rng: Random, letter_weight: float) -> list[Turn]:
    """Two fluent answers of one scene; only the skills asked for decide, and they change."""
    while True:
        mine = _skills(rng)
        place = rng.randrange(len(mine))
        yours = list(mine)
        kind = rng.choices(["swap", "noun", "verb", "all"], [5, 3, 1, 2])[0]
        if kind == "swap":
            yours[place] = other_skill(rng, mine)
        elif kind == "all":
            yours = [other_skill(rng, mine) for _ in mine]
        else:
            yours[place] = near_skill(rng, mine, mine[place], kind)
        if split_of(yours) == "train":
            break
    form = rng.choice(tuple(QUERY_TYPES))
    scene = draw_scene(rng, mine)
    answers = [_contrast_answer(rng, shown, form, scene) for shown in (mine, tuple(yours))]
    texts = _contrast_texts(rng, answers)
    order = rng.sample([0, 1], 2)
    asked = []
    for _ in range(rng.choice([1, 2, 3, 4, 5])):
        side = rng.randrange(2)
        instruction = draw_instruction(rng, answers[side].skills, form, scene)
        asked.append((instruction, LABELS[order.index(side)]))
    return judge_turns(texts[order[0]], texts[order[1]], asked, letter_weight)


def find_drill(rng: Random) -> list[Turn]:
    """In which of two texts is each skill: what the judge's letter rests on, asked word by word."""
    skills = draw_skills(rng, rng.choice([2, 3, 3]), new_share=0.4)
    scene = draw_scene(rng, skills)
    sides = [rng.randrange(2) for _ in skills]
    texts = []
    for side in range(2):
        shown = [skill for skill, own in zip(skills, sides, strict=True) if own == side]
        steps = [draw_steps(rng, skill, 1, "advice", scene)[0] for skill in shown]
        texts.append(" ".join(steps) or "Small efforts are enough.")
    absent = [other_skill(rng, skills)] if rng.random() < 0.4 else []
    asked = rng.sample([*skills, *absent], len(skills) + len(absent))
    where = {skill: LABELS[side] for skill, side in zip(skills, sides, strict=True)}
    spoken = {skill: rng.choice([phrase, gerund])(skill) for skill in asked}
    shown_pair = render("judge", instruction="", first=texts[0], second=texts[1])
    prompt = shown_pair[: shown_pair.index("Instruction:")]
    prompt += f"Where is each skill: {', '.join(spoken.values())}?"
    reply = " ".join(f"{spoken[skill]} [{where.get(skill, '')}]" for skill in asked)
    return [Turn(prompt, reply, 2.0)]


def judge_mini(rng: Random, letter_weight: float) -> list[Turn]:
    """The judge's question over answers of a sentence or a few words, asked several times."""
    mine = draw_skills(rng, rng.choice([1, 1, 2]), new_share=0.4)
    yours = [other_skill(rng, mine) for _ in mine]
    if len(mine) == 2 and rng.random() < 0.5:
        yours[rng.randrange(2)] = rng.choice(mine)
        if len(set(yours)) < 2:
            yours = [mine[0], other_skill(rng, mine)]
    scene = draw_scene(rng, mine)
    texts = []
    for shown in (mine, tuple(yours)):
        steps = [draw_steps(rng, skill, 1, "advice", scene)[0] for skill in shown]
        texts.append(" ".join(rng.sample(steps, len(steps))))
    order = rng.sample([0, 1], 2)
    asked = []
    for _ in range(rng.choice([2, 3, 4, 5])):
        side = rng.randrange(2)
        skills = mine if side == 0 else yours
        form = rng.choice(tuple(QUERY_TYPES))
        instruction = joined([rng.choice([phrase, gerund])(skill) for skill in skills]) + "."
        if rng.random() < 0.5:
            instruction = draw_instruction(rng, skills, form, scene)
        asked.append((instruction, LABELS[order.index(side)]))
    return judge_turns(texts[order[0]], texts[order[1]], asked, letter_weight)


def _contrast_answer(rng: Random, shown: tuple[str, ...], form: str, scene: Scene) -> Answer:
    return draw_answer(rng, shown, form, scene, rng.choice([None, None, 1, 2]))


def _contrast_texts(rng: Random, answers: Sequence[Answer]) -> list[str]:
    """Whole answers, or a sentence a skill: short pairs teach the look-up for fewer tokens."""
    if rng.random() < 0.5:
        return [" ".join(steps[0] for _, steps in answer.groups) for answer in answers]
    return [answer.text() for answer in answers]


def judge_pair(rng: Random, letter_weight: float) -> list[Turn]:
    """Two answers of different quality, or two equal ones with a letter by chance."""
    example = _example(rng)
    better, worse, equal = _pair_texts(rng, example)
    letter = rng.randrange(2)
    shown = (better, worse) if letter == 0 else (worse, better)
    weight = letter_weight * (0.3 if equal else 1.0)
    return judge_turns(*shown, [(example.instruction, LABELS[letter])], weight)


def _redrawn(rng: Random, example: Example) -> Example:
    """The same instruction with another answer to it."""
    scene = example.answer.scene if rng.random() < 0.6 else draw_scene(rng, example.skills)
    return replace(example, answer=draw_answer(rng, example.skills, example.query_type, scene))


def _pair_texts(rng: Random, example: Example) -> tuple[str, str, bool]:
    """The better text, the worse one, and whether they are in truth equal."""
    share = rng.random()
    kinds, weights = list(FLAWS), list(FLAWS.values())
    if share < 0.08:
        return example.answer.text(), _redrawn(rng, example).answer.text(), True
    other = _redrawn(rng, example) if rng.random() < 0.5 else example
    flawed = draw_flawed(rng, other, rng.choices(kinds, weights)[0])
    if share < 0.85:
        return example.answer.text(), flawed.text, False
    while True:
        second = draw_flawed(rng, _redrawn(rng, example), rng.choices(kinds, weights)[0])
        if abs(second.quality - flawed.quality) > 0.12:
            high, low = sorted([flawed, second], key=lambda item: -item.quality)
            return high.text, low.text, False


def shows_skill(rng: Random, letter_weight: float) -> list[Turn]:
    """One answer, and for several skills whether it shows them."""
    example = _redrawn(rng, _example(rng))
    kind = rng.choice(["none", "none", "missing", "swapped", "near_noun", "truncated"])
    response = example.answer.text()
    if kind != "none":
        response = draw_flawed(rng, example, kind).text
    asked = []
    for _ in range(rng.choice([1, 3, 4, 5, 6])):
        skill = rng.choice(example.skills)
        wrong = rng.random()
        if wrong < 0.25:
            skill = other_skill(rng, example.skills)
        elif wrong < 0.4:
            skill = near_skill(rng, example.skills, skill, rng.choice(["noun", "noun", "verb"]))
        asked.append(skill)
    turns: list[Turn] = []
    for skill in asked:
        prompt = render(
            "shows_skill", instruction=example.instruction, response=response, skill=skill
        )
        verdict = "yes" if mentions(skill, response) else "no"
        user = prompt if not turns else prompt[prompt.rindex("Skill:") :]
        turns.append(Turn(user, verdict, letter_weight * 0.5))
    return turns


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
# Shares of samples. "early" drills copying and builds the language, "middle" adds the judge,
# "late" weighs all tasks and lowers the rate.
MIXES: dict[str, dict[str, float]] = {
    "early": {
        "copy_drill": 60,
        "difference_drill": 15,
        "draft": 24,
        "conversation": 5,
        "answer": 8,
        "brevity": 1,
        "junk": 1,
        "topics": 2,
        "skills": 4,
        "query_types": 1,
        "label": 8,
        "judge_contrast": 10,
        "judge_pair": 3,
        "shows_skill": 10,
    },
    "middle": {
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
    "late": {
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
    example = _example(rng)
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
