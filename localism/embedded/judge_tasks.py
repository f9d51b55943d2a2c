"""The judge's training: pairs of answers and a letter, single answers and yes or no."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from localism.embedded.conversation import LABELS, Turn, mixed_example, mixed_skills, render
from localism.embedded.flaws import FLAWS, draw_flawed, near_skill, other_skill
from localism.embedded.grammar import (
    Answer,
    Example,
    Scene,
    draw_answer,
    draw_instruction,
    draw_scene,
    draw_skills,
    draw_steps,
    gerund,
    joined,
    phrase,
    split_of,
)
from localism.embedded.world import QUERY_TYPES
from localism.skill_names import mentions


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
        mine = mixed_skills(rng)
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
    example = mixed_example(rng)
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
    example = _redrawn(rng, mixed_example(rng))
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
