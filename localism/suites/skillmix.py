"""SKILL-MIX: a short text that shows k skills at once, about a topic that was drawn for them.

The model writes a text, looks it over and improves it within max(1, k - 1) sentences; the improved
one is graded by k + 3 points: each skill, topic, sense, sentences. Each combination is written
three times and each text graded three times. A point goes by the majority of a text's gradings, a
metric is that of the best of the three texts, and a score the mean over combinations (Yu et al.
2023, arXiv 2310.17567, with the defaults of the published code).

A grading that cannot be read earns no point, as published, and is counted; a call that failed has
no vote.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

from localism.records import Sampling
from localism.serving.client import Client
from localism.suites import intervals
from localism.suites import skillmix_rules as rules
from localism.suites.asking import on_scale, unusable, written
from localism.suites.records import Answer, Item, Judged, Judging, Judgment, Question, SuiteScore
from localism.suites.skillmix_files import combinations

NAME, HEADLINE = "skill-mix", "full_marks"
SAMPLES = 3
"""Texts for one combination."""
GRADINGS = 3
"""Of one text."""
TEMPERATURE = 0.7
"""Of the model and of the judge."""
TURNS = 2
UNREADABLE = "unreadable"
"""The label of a point whose grading cannot be read."""
NAMED = "the text names the skill"
PROMPTS: Mapping[str, Set[str]] = {
    "skill-mix-write": {"skills", "topic"},
    "skill-mix-improve": {"topic", "limit"},
    "skill-mix-grade": {"skills", "topic", "text", "structured"},
}

Given = Mapping[tuple[str, str, str, int], Judgment]
"""Judgments by model, item, aspect and sample."""


def read(source: Path) -> list[Item]:
    """Combinations drawn from skills.csv and topics.txt, as settings.json says.

    An item's one turn says what it is about; the messages are made of its detail.
    """
    return [
        Item(
            NAME,
            f"k={one.k} {one.number}",
            (f"{one.topic}: {', '.join(skill['name'] for skill in one.skills)}",),
            category=f"k={one.k}",
            tags=tuple(skill["name"] for skill in one.skills),
            detail={"topic": one.topic, "skills": [dict(skill) for skill in one.skills]},
        )
        for one in combinations(source)
    ]


# ---- asking --------------------------------------------------------------------------------


def turns(item: Item) -> int:
    """Two: write, then improve."""
    return TURNS


def message(item: Item, turn: int, render: Callable[..., str]) -> str:
    """What the model is asked to write, or to improve."""
    topic = item.detail["topic"]
    if turn == 1:
        return render("skill-mix-write", topic=topic, skills=item.detail["skills"])
    limit = rules.sentence_limit(len(item.tags))
    return render("skill-mix-improve", topic=topic, limit=limit)


def sampling(item: Item, turn: int, usual: Sampling) -> Sampling:
    """At temperature 0.7 from the whole distribution, as long as usual."""
    return Sampling(TEMPERATURE, 1.0, usual.max_tokens)


def questions(item: Item, answers: Sequence[Answer], judging: Judging) -> Iterator[Question]:
    """Three gradings of every improved text."""
    for answer in answers:
        if answer.turn == TURNS and answer.text is not None:
            for grading in range(GRADINGS):
                sample = sample_of(answer.sample, grading)
                ask = partial(_ask, item, rules.graded_text(answer.text), judging, sample)
                yield Question(item.item_id, answer.model_id, aspects(item), ask, sample)


def sample_of(text: int, grading: int) -> int:
    """The number that a judgment is stored under; text and grading from 0."""
    return text * GRADINGS + grading


def aspects(item: Item) -> tuple[str, ...]:
    """The points of an item, in the rules' order."""
    return (*(f"skill:{skill}" for skill in item.tags), *rules.OTHERS)


async def _ask(
    item: Item, text: str, judging: Judging, sample: int, client: Client
) -> list[Judged]:
    k = len(item.tags)
    is_short, found = rules.keeps_limit(text, k)
    if not found:
        return [Judged(0.0, "0", "the answer has no text")] * (k + len(rules.OTHERS))
    points, reply, turn_id = await _points(item, text, judging, sample, client)
    if points is None:
        judged = [Judged(None, UNREADABLE, unusable(reply), turn_id)] * (k + 2)
    else:
        judged = [
            _judged(point, skill, text, turn_id)
            for point, skill in zip(points, (*item.tags, "", ""), strict=True)
        ]
    limit = f"{found} of at most {rules.sentence_limit(k)}"
    return [*judged, Judged(float(is_short), limit, "counted", turn_id)]


def _judged(point: float, skill: str, text: str, turn_id: str) -> Judged:
    """A skill that the text names earns nothing; its label keeps what the judge gave."""
    is_named = bool(skill) and rules.names_skill(text, skill)
    reason = NAMED if is_named else None
    return Judged(0.0 if is_named else point, f"{point:g}", reason, turn_id)


async def _points(
    item: Item, text: str, judging: Judging, sample: int, client: Client
) -> tuple[list[float] | None, str, str]:
    """The judge's points of the skills, topic and sense; its reply; the turn's id."""
    names = [*(f"skill_{number}" for number in range(1, len(item.tags) + 1)), "topic", "sense"]
    template = "skill-mix-grade"
    prompt = judging.render(
        template,
        skills=item.detail["skills"],
        topic=item.detail["topic"],
        text=text,
        structured=judging.structured,
    )
    found, reply, turn_id = await written(
        client,
        prompt,
        template=template,
        fields={name: {"type": "integer", "enum": [0, 1]} for name in names},
        read=partial(_read, names, structured=judging.structured),
        judging=judging,
        temperature=TEMPERATURE,
        sample=sample,
    )
    if found is None:
        return None, reply, turn_id
    return [on_scale(found[name], 0, 1) or 0.0 for name in names], reply, turn_id


def _read(names: Sequence[str], reply: str, *, structured: bool) -> Mapping[str, Any] | None:
    # An object that is cut off is no grading; a line in it is quoted from the text.
    if structured and reply.lstrip().startswith("{"):
        return None
    points = rules.read_points(reply, len(names))
    return None if points is None else dict(zip(names, points, strict=True))


# ---- scores --------------------------------------------------------------------------------


def scores(
    items: Sequence[Item],
    answers: Sequence[Answer],
    judgments: Sequence[Judgment],
    judging: Judging,
) -> Iterator[SuiteScore]:
    """The three metrics in percent, whole and for each k, with gradings that cannot be read."""
    given = {(one.model_id, one.item_id, one.aspect, one.sample): one for one in judgments}
    parts = {"": [*items]}
    for item in items:
        parts.setdefault(item.category or "", []).append(item)
    for model in dict.fromkeys(answer.model_id for answer in answers):
        for part, inside in parts.items():
            yield from _of_part(model, part, inside, given, judging)


def _of_part(
    model: str, part: str, items: Sequence[Item], given: Given, judging: Judging
) -> Iterator[SuiteScore]:
    found = [_best(model, item, given) for item in items]
    for metric in rules.METRICS:
        yield _mean(model, metric, _shares(found, metric), part, judging)
    allowed = [_best(model, item, given, are_names_allowed=True) for item in items]
    shares = _shares(allowed, "full_marks")
    yield _mean(model, "full_marks_names_allowed", shares, part, judging)
    read = [
        one.label == UNREADABLE
        for item in items
        for sample in range(SAMPLES * GRADINGS)
        if (one := given.get((model, item.item_id, rules.OTHERS[0], sample)))
    ]
    yield SuiteScore(
        model, UNREADABLE, sum(read), None, None, len(read), 0, part,
        note="gradings that cannot be read; as published they earn no point",
    )  # fmt: skip


def _shares(found: Sequence[Mapping[str, float] | None], metric: str) -> list[float | None]:
    return [None if one is None else one[metric] for one in found]


def _mean(
    model: str, metric: str, shares: Sequence[float | None], part: str, judging: Judging
) -> SuiteScore:
    """In percent; a combination without a graded text is unscored."""
    percents = [None if share is None else 100 * share for share in shares]
    value, bounds = intervals.mean(percents, judging, scale=(0, 100))
    scored = [percent for percent in percents if percent is not None]
    error = statistics.stdev(scored) / math.sqrt(len(scored)) if len(scored) > 1 else None
    note = None if error is None else f"standard error {error:.2f}"
    unscored = len(percents) - len(scored)
    return SuiteScore(model, metric, value, *bounds, len(scored), unscored, part, note)


def _best(
    model: str, item: Item, given: Given, *, are_names_allowed: bool = False
) -> dict[str, float] | None:
    """Each metric of the best text of a combination; None when no text was graded."""
    texts = []
    for text in range(SAMPLES):
        gradings = [
            found
            for grading in range(GRADINGS)
            if (found := _grading(model, item, sample_of(text, grading), given, are_names_allowed))
        ]
        if gradings:
            texts.append(rules.metrics(rules.majority(gradings), len(item.tags)))
    return rules.best(texts) if texts else None


def _grading(
    model: str, item: Item, sample: int, given: Given, are_names_allowed: bool
) -> list[float] | None:
    """The points of one grading; None when the call failed or was not made."""
    points = []
    for aspect in aspects(item):
        one = given.get((model, item.item_id, aspect, sample))
        if one is None or (one.value is None and one.label != UNREADABLE):
            return None
        is_skill = aspect not in rules.OTHERS
        as_judged = one.label if are_names_allowed and is_skill else None
        points.append(one.value or 0.0 if as_judged in (None, UNREADABLE) else float(as_judged))
    return points
