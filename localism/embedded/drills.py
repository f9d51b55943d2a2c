"""Drills: copying, comparing and finding words in short lines, learned before they are needed."""

from random import Random

from localism.embedded.conversation import LABELS, Turn, render
from localism.embedded.flaws import other_skill
from localism.embedded.grammar import draw_scene, draw_skills, draw_steps, gerund, joined, phrase
from localism.embedded.world import NOUNS, VERBS


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
