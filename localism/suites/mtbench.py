"""MT-Bench: conversations of two questions, each answer graded from 1 to 10 by itself.

The judge sees the first question with its answer, then both with the second to be graded; answers
about math, reasoning and code are graded beside one that is known to be right. The score is the
mean over all (question, turn) that the judge's grade could be read of (FastChat's llm_judge, single
grading). Grades are read by FastChat's own pattern where replies are free text.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path

from localism.errors import ConfigError
from localism.parsing.lists import without_thinking
from localism.records import Sampling
from localism.serving.client import Client
from localism.suites import intervals
from localism.suites.asking import on_scale, reasons, unusable, written
from localism.suites.files import Row, only_file, rows, unique
from localism.suites.records import Answer, Item, Judged, Judging, Judgment, Question, SuiteScore

NAME, HEADLINE = "mt-bench", "score"
SAMPLES = 1
TURNS = 2
TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
OTHER_TEMPERATURE = 0.7
REFERENCE_GUIDED = ("math", "reasoning", "coding")
LOWEST, HIGHEST = 1, 10
UNREADABLE = "-1"
"""The grade that FastChat writes down where it can read none."""
PROMPTS: Mapping[str, Set[str]] = {
    "mt-bench-single": {"question", "answer", "reference", "structured"},
    "mt-bench-multi-turn": {"questions", "answers", "references", "structured"},
}
RATING = {"type": "integer", "enum": [*range(LOWEST, HIGHEST + 1)]}
_RATING = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_RATING_ELSE = re.compile(r"\[(\d+\.?\d*)\]")


def rating_of(judgment: str) -> float:
    """The grade in what a judge wrote: the first [[n]], else the first [n], else -1."""
    found = _RATING.search(judgment) or _RATING_ELSE.search(judgment)
    return float(found[1]) if found else -1.0


# ---- files ---------------------------------------------------------------------------------


def read(source: Path) -> list[Item]:
    """question.jsonl, with the right answers of reference_answer/gpt-4.jsonl where that is there.

    Else those of question.jsonl's own column `reference` are taken. Raises ConfigError for a
    question without two turns, and for one about math, reasoning or code without a right answer.
    """
    file = only_file(source, ("question.jsonl", "question.json"), "questions")
    answered = _right_answers(source)
    items = [_item(row, answered) for row in rows(file)]
    unique([item.own_id for item in items], str(file))
    return items


def _right_answers(source: Path) -> dict[str, tuple[str, ...]]:
    """The turns of each right answer, by question_id."""
    # A model's own answers may lie beside them as model_answer/gpt-4.jsonl.
    inside = sorted(source.rglob("reference_answer/gpt-4.jsonl")) if source.is_dir() else []
    files = [file for file in (*inside, source / "gpt-4.jsonl") if file.is_file()]
    return {_own_id(row): _choice(row) for row in rows(files[0])} if files else {}


def _choice(row: Row) -> tuple[str, ...]:
    choices = row.values.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        row.refuse("no choices with turns", "take the benchmark's reference_answer/gpt-4.jsonl")
    return _two(Row(f"{row.where} choices[0]", choices[0]), "turns")


def _item(row: Row, answered: Mapping[str, tuple[str, ...]]) -> Item:
    own_id, category = _own_id(row), row.text("category")
    detail = {}
    if category in REFERENCE_GUIDED:
        own = _two(row, "reference") if "reference" in row.values else ()
        detail["references"] = list(answered.get(own_id, own))
        if not any(text.strip() for text in detail["references"]):
            row.refuse(
                f"no right answer to question {own_id} ({category})",
                "bring reference_answer/gpt-4.jsonl and give the folder that holds both",
            )
    return Item(NAME, own_id, _two(row, "turns"), category=category, detail=detail)


def _own_id(row: Row) -> str:
    value = row.values.get("question_id")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ConfigError("no question_id", where=row.where, fix="take the benchmark's own file")
    return str(value)


def _two(row: Row, name: str) -> tuple[str, ...]:
    texts = row.texts(name)
    if len(texts) != TURNS:
        row.refuse(f"{name} holds {len(texts)} texts", "MT-Bench has two turns a question")
    return texts


# ---- asking --------------------------------------------------------------------------------


def turns(item: Item) -> int:
    """Two, in one conversation."""
    return TURNS


def message(item: Item, turn: int, render: Callable[..., str]) -> str:
    """The question as it is."""
    return item.turns[turn - 1]


def sampling(item: Item, turn: int, usual: Sampling) -> Sampling:
    """At the temperature of its category, from the whole distribution, as long as usual."""
    temperature = TEMPERATURES.get(item.category or "", OTHER_TEMPERATURE)
    return Sampling(temperature, 1.0, usual.max_tokens)


def questions(item: Item, answers: Sequence[Answer], judging: Judging) -> Iterator[Question]:
    """One for each turn that was answered; the second shows the first turn too."""
    texts = {answer.turn: answer.text for answer in answers}
    given = [texts.get(turn) for turn in range(1, TURNS + 1)]
    for turn in range(1, TURNS + 1):
        shown = [text for text in given[:turn] if text is not None]
        if len(shown) == turn:
            ask = partial(_ask, item, shown, judging)
            yield Question(item.item_id, answers[0].model_id, (aspect(turn),), ask)


def aspect(turn: int) -> str:
    """What the judgment of a turn is stored under."""
    return f"turn-{turn}"


async def _ask(
    item: Item, answers: Sequence[str], judging: Judging, client: Client
) -> list[Judged]:
    """The grade of the last of the answers."""
    template, prompt = _prompt(item, answers, judging)
    fields = {"explanation": reasons(judging), "rating": RATING}
    found, reply, turn_id = await written(
        client, prompt, template=template, fields=fields, read=lambda _: None, judging=judging
    )
    value = _grade(found, without_thinking(reply), structured=judging.structured)
    if value is None:
        return [Judged(None, UNREADABLE, unusable(reply), turn_id)]
    return [Judged(value, f"{value:g}", None, turn_id)]


def _prompt(item: Item, answers: Sequence[str], judging: Judging) -> tuple[str, str]:
    """The template's name, and what it comes to."""
    references = [text.strip() for text in item.detail.get("references", ("", ""))]
    if len(answers) == 1:
        values = {"question": item.turns[0], "answer": answers[0], "reference": references[0]}
        template = "mt-bench-single"
    else:
        values = {"questions": item.turns, "answers": answers, "references": references}
        template = "mt-bench-multi-turn"
    return template, judging.render(template, **values, structured=judging.structured)


def _grade(found: Mapping[str, object] | None, reply: str, *, structured: bool) -> float | None:
    if found is not None:
        return on_scale(found["rating"], LOWEST, HIGHEST)
    # An object that is cut off has no rating; a [[10]] in it is quoted from the answer.
    if structured and reply.lstrip().startswith("{"):
        return None
    rating = rating_of(reply)
    return rating if rating >= 0 and math.isfinite(rating) else None


# ---- scores --------------------------------------------------------------------------------


def scores(
    items: Sequence[Item],
    answers: Sequence[Answer],
    judgments: Sequence[Judgment],
    judging: Judging,
) -> Iterator[SuiteScore]:
    """Means over graded answers: all, each turn, each category; and grades that cannot be read.

    n and unscored count answers, two a question.
    """
    graded = {(one.model_id, one.item_id, one.aspect): one for one in judgments}
    both = range(1, TURNS + 1)
    categories = dict.fromkeys(item.category for item in items)
    for model in dict.fromkeys(answer.model_id for answer in answers):
        of_model = {
            (item, turn): graded.get((model, item, aspect(turn)))
            for item in (one.item_id for one in items)
            for turn in both
        }
        yield _mean(model, "score", items, both, of_model, judging)
        for turn in both:
            yield _mean(model, f"score_turn_{turn}", items, [turn], of_model, judging)
        for category in categories:
            inside = [item for item in items if item.category == category]
            yield _mean(model, "score", inside, both, of_model, judging, category or "none")
        yield _failures(model, [one for one in of_model.values() if one])


def _mean(
    model: str,
    metric: str,
    items: Sequence[Item],
    asked: Sequence[int],
    graded: Mapping[tuple[str, int], Judgment | None],
    judging: Judging,
    part: str = "",
) -> SuiteScore:
    """The pooled mean; items are resampled with both their turns."""
    found = [[graded[item.item_id, turn] for turn in asked] for item in items]
    values = [[one.value for one in of_item if one and one.value is not None] for of_item in found]
    counts = [len(of_item) for of_item in values]
    value, bounds = intervals.pooled_mean(
        [sum(of_item) for of_item in values], counts, judging, scale=(LOWEST, HIGHEST)
    )
    unscored = len(items) * len(asked) - sum(counts)
    return SuiteScore(model, metric, value, *bounds, sum(counts), unscored, part)


def _failures(model: str, judgments: Sequence[Judgment]) -> SuiteScore:
    failed = sum(one.label == UNREADABLE for one in judgments)
    return SuiteScore(
        model, "parse_failures", failed, None, None, len(judgments), 0,
        note="verdicts whose grade cannot be read; they are in no mean",
    )  # fmt: skip
