"""FLASK: each answer scored from 1 to 5 by the few skills that its instruction needs.

Twelve skills, each with a criterion and five levels (the rubric); an instruction is tagged with
three. The judge sees the instruction, a reference answer and the answer, comments first, and then
scores all three in one call; N/A is no score. Scores are means over what was scored, by skill,
domain and difficulty (Ye et al. 2023, arXiv 2307.10928). The instruction-mixing paper keeps the
items whose skills are all among the eight most frequent and multiplies by twenty.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from localism.serving.client import Client
from localism.suites import intervals

# Asked as AlpacaEval's items are: the instruction as it is, sampled as the student is.
from localism.suites.alpacaeval import message as message
from localism.suites.alpacaeval import sampling as sampling
from localism.suites.alpacaeval import turns as turns
from localism.suites.asking import on_scale, reasons, unusable, written
from localism.suites.files import Row, only_file, rows, unique
from localism.suites.records import Answer, Item, Judged, Judging, Judgment, Question, SuiteScore

NAME, HEADLINE = "flask", "score"
SAMPLES = 1
PROMPTS: Mapping[str, Set[str]] = {
    "flask": {"rubrics", "instruction", "reference", "response", "structured"}
}
LEVELS = 5
NOT_APPLICABLE = "N/A"
FREQUENT = (
    "comprehension", "commonsense understanding", "factuality", "logical correctness",
    "completeness", "readability", "conciseness", "insightfulness",
)  # fmt: skip
"""The eight most frequent skills of the public file, of the instruction-mixing paper's table 2."""
POINTS = 20
"""What a level is worth on the scale to 100: every cell of that table is a multiple of 0.2."""
RUBRICS = "skillset_description.json"
OWN_RUBRICS = Path(__file__).parent / "samples" / NAME / RUBRICS
SAID_NOT_APPLICABLE = ("na", "n/a", "not applicable")
_OBJECT = re.compile(r"\{([^}]+)\}")


# ---- files ---------------------------------------------------------------------------------


def read(source: Path) -> list[Item]:
    """flask_evaluation.jsonl, with the rubrics of skillset_description.json where that is there.

    Else the rubrics are those that ship with localism. The columns may be called as in any version
    of the public files (instruction or text, skill or metrics, idx or question_id).
    """
    names = ("flask_evaluation.jsonl", "flask_hard_evaluation.jsonl", "*.jsonl", "*.parquet")
    file = only_file(source, names, "instructions with their skills")
    described = _brought_rubrics(source) or OWN_RUBRICS
    rubrics, is_own = _rubrics(described), described == OWN_RUBRICS
    items = [_item(row, number, rubrics, is_own=is_own) for number, row in enumerate(rows(file), 1)]
    unique([item.own_id for item in items], str(file))
    return items


def _brought_rubrics(source: Path) -> Path | None:
    if not source.is_dir():
        beside = source.with_name(RUBRICS)
        return beside if beside.is_file() else None
    found = [path for path in source.rglob(RUBRICS) if path.is_file()]
    return only_file(source, (RUBRICS,), "the skills' rubrics") if found else None


def _rubrics(file: Path) -> dict[str, dict[str, Any]]:
    """{skill: its key in a verdict, criterion and the texts of levels 1 to 5}."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows(file):
        scoring = row.values.get("Scoring")
        levels = Row(row.where, scoring if isinstance(scoring, dict) else {})
        skill = _normal(row.text("Skill"))
        found[skill] = {
            "key": skill.replace(" ", "_"),
            "criterion": " ".join(row.text("Criteria").split()),
            "levels": [" ".join(levels.text(str(level)).split()) for level in range(1, LEVELS + 1)],
        }
    return found


def _item(row: Row, number: int, rubrics: Mapping[str, Mapping[str, Any]], *, is_own: bool) -> Item:
    own_id = next(iter(_texts(row, "idx", "question_id")), str(number))
    skills = _skills(row, rubrics)
    detail = {
        "task": next(iter(_texts(row, "task")), None),
        "domains": _texts(row, "domain", "domain_labeled"),
        "rubrics": {skill: dict(rubrics[skill]) for skill in skills},
        "rubrics_are_own": is_own,
    }
    reference = next(iter(_texts(row, "answer", "reference")), None)
    difficulty = next(iter(_texts(row, "difficulty", "difficulty_labeled")), None)
    instruction = row.text("instruction", "text")
    return Item(NAME, own_id, (instruction,), reference or None, difficulty, skills, detail)


def _skills(row: Row, rubrics: Mapping[str, object]) -> tuple[str, ...]:
    """Its skills by their full names; as in FLASK's own code, a part of a name stands for it."""
    name = "skill" if "skill" in row.values else "metrics"
    found = []
    for label in map(_normal, row.texts(name)):
        meant = [skill for skill in rubrics if label and label in skill]
        if label not in rubrics and len(meant) != 1:
            row.refuse(
                f"{label!r} is no skill that has a rubric",
                f"{name} may hold {', '.join(rubrics)}; or bring {RUBRICS} with others",
            )
        found.append(label if label in rubrics else meant[0])
    return tuple(dict.fromkeys(found))


def _normal(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _texts(row: Row, *names: str) -> list[str]:
    """What the first of these columns that is there holds: one value, a list of them, or none."""
    name = next((name for name in names if row.values.get(name) is not None), names[0])
    value = row.values.get(name)
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return [Row(row.where, {name: str(one)}).text(name, empty=True) for one in listed]


# ---- the judge --------------------------------------------------------------------------------


def questions(item: Item, answers: Sequence[Answer], judging: Judging) -> Iterator[Question]:
    """One about all skills of the item."""
    for answer in answers:
        if answer.text is not None:
            ask = partial(_ask, item, answer.text, judging)
            yield Question(item.item_id, answer.model_id, _aspects(item), ask)


def _aspects(item: Item) -> tuple[str, ...]:
    return tuple(f"skill:{skill}" for skill in item.tags)


async def _ask(item: Item, response: str, judging: Judging, client: Client) -> list[Judged]:
    rubrics = [item.detail["rubrics"][skill] for skill in item.tags]
    prompt = judging.render(
        "flask",
        rubrics=rubrics,
        instruction=item.turns[0],
        reference=item.reference,
        response=response,
        structured=judging.structured,
    )
    found, reply, turn_id = await written(
        client,
        prompt,
        template="flask",
        fields=_fields(rubrics, judging),
        read=partial(_read, item.tags, structured=judging.structured),
        judging=judging,
    )
    return [_judged((found or {}).get(rubric["key"]), reply, turn_id) for rubric in rubrics]


def _fields(rubrics: Iterable[Mapping[str, Any]], judging: Judging) -> dict[str, Any]:
    level = {"enum": [*range(1, LEVELS + 1), NOT_APPLICABLE]}
    return {"feedback": reasons(judging)} | {rubric["key"]: level for rubric in rubrics}


def _judged(score: object, reply: str, turn_id: str) -> Judged:
    if score == NOT_APPLICABLE:
        return Judged(None, NOT_APPLICABLE, "not applicable", turn_id)
    value = on_scale(score, 1, LEVELS)
    if value is None:
        return Judged(None, None, unusable(reply), turn_id)
    return Judged(value, f"{value:g}", None, turn_id)


def _read(skills: Iterable[str], reply: str, *, structured: bool) -> Mapping[str, object] | None:
    # An object that is cut off has no scores; a {...} in it is quoted from the answer.
    if structured and reply.lstrip().startswith("{"):
        return None
    said = read_scores(reply)
    by_word = {_word(name): score for name, score in said.items()}
    return {skill.replace(" ", "_"): said.get(skill, by_word.get(_word(skill))) for skill in skills}


def read_scores(reply: str) -> dict[str, object]:
    """What the last {...} of a reply says of each name, read as FLASK's own code does.

    That is: in small letters, underscores as spaces, and three spellings of N/A.
    """
    found = _OBJECT.findall(reply)
    inside = found[-1].replace("_", " ").lower() if found else ""
    scores: dict[str, object] = {}
    for entry in inside.split(","):
        name, _, value = (text.strip(" \n\t'\"") for text in entry.partition(":"))
        scores[name] = NOT_APPLICABLE if value in SAID_NOT_APPLICABLE else value
    return scores


def _word(skill: str) -> str:
    """FLASK's code knows a skill by its second word after 'logical', else by its first."""
    words = skill.split()
    return words[1] if words[:1] == ["logical"] and len(words) > 1 else " ".join(words[:1])


# ---- scores --------------------------------------------------------------------------------


def scores(
    items: Sequence[Item],
    answers: Sequence[Answer],
    judgments: Sequence[Judgment],
    judging: Judging,
) -> Iterator[SuiteScore]:
    """Means of the levels and on the scale to 100, whole and by part; the mixing paper's subset.

    n and unscored count scores, three an item; N/A is in neither.
    """
    given = {(one.model_id, one.item_id, one.aspect): one for one in judgments}
    frequent = [item for item in items if set(item.tags) <= set(FREQUENT)]
    for model in dict.fromkeys(answer.model_id for answer in answers):
        table = Table(model, given, judging)
        for part, skills, inside in _parts(items):
            yield from table.part(part, skills, inside)
        for skill in FREQUENT:
            yield from table.frequent(f"skill: {skill}", (skill,), frequent)
        yield from table.frequent("", FREQUENT, frequent)


def _parts(items: Sequence[Item]) -> Iterator[tuple[str, list[str], list[Item]]]:
    """(name, skills, items) of the whole, each skill, each domain and each difficulty."""
    every = sorted({skill for item in items for skill in item.tags})
    yield "", every, [*items]
    for skill in every:
        yield f"skill: {skill}", [skill], [item for item in items if skill in item.tags]
    for domain in sorted({domain for item in items for domain in item.detail["domains"]}):
        inside = [item for item in items if domain in item.detail["domains"]]
        yield f"domain: {domain}", every, inside
    for difficulty in sorted({item.category for item in items if item.category}):
        inside = [item for item in items if item.category == difficulty]
        yield f"difficulty: {difficulty}", every, inside


class Table:
    """What the judge said of one model's answers."""

    def __init__(
        self, model: str, given: Mapping[tuple[str, str, str], Judgment], judging: Judging
    ) -> None:
        self._model, self._given, self._judging = model, given, judging

    def part(self, part: str, skills: Sequence[str], items: Sequence[Item]) -> Iterator[SuiteScore]:
        """The mean of all scores, in levels and to 100, and how many were not applicable."""
        found = self._score("score", part, [skills], items)
        yield replace(found, note=_note(items))
        yield _to_100(found, "score_100")
        asked = self._asked(skills, items)
        refused = sum(one.label == NOT_APPLICABLE for one in asked if one)
        yield SuiteScore(
            self._model, "not_applicable", refused, None, None, len(asked), 0, part,
            note="scores of N/A; they are in no mean",
        )  # fmt: skip

    def frequent(
        self, part: str, skills: Sequence[str], items: Sequence[Item]
    ) -> Iterator[SuiteScore]:
        """As in the instruction-mixing paper: a skill's mean, and the mean of the skills' means."""
        if any(skill in item.tags for item in items for skill in skills):
            found = self._score("score", part, [[skill] for skill in skills], items)
            note = (
                "items of the eight most frequent skills alone, the skills' means averaged, as in "
                f"the instruction-mixing paper: {len(items)} items"
            )
            yield replace(_to_100(found, "score_100_frequent"), note=note)

    def _score(
        self, metric: str, part: str, groups: Sequence[Sequence[str]], items: Sequence[Item]
    ) -> SuiteScore:
        """The mean over groups of skills of their pooled means; items are resampled whole."""
        values = [[self._values(group, item) for item in items] for group in groups]
        value, bounds = intervals.mean_of_means(
            [[sum(of_item) for of_item in row] for row in values],
            [[len(of_item) for of_item in row] for row in values],
            self._judging,
            scale=(1, LEVELS),
        )
        asked = [one for group in groups for one in self._asked(group, items)]
        scored = sum(one.value is not None for one in asked if one)
        refused = sum(one.label == NOT_APPLICABLE for one in asked if one)
        unscored = len(asked) - scored - refused
        return SuiteScore(self._model, metric, value, *bounds, scored, unscored, part)

    def _values(self, skills: Sequence[str], item: Item) -> list[float]:
        return [one.value for one in self._asked(skills, [item]) if one and one.value is not None]

    def _asked(self, skills: Sequence[str], items: Sequence[Item]) -> list[Judgment | None]:
        return [
            self._given.get((self._model, item.item_id, f"skill:{skill}"))
            for item in items
            for skill in item.tags
            if skill in skills
        ]


def _to_100(found: SuiteScore, metric: str) -> SuiteScore:
    value, low, high = (
        None if number is None else POINTS * number
        for number in (found.value, found.low, found.high)
    )
    return replace(found, metric=metric, value=value, low=low, high=high)


def _note(items: Sequence[Item]) -> str | None:
    is_own = any(item.detail["rubrics_are_own"] for item in items)
    return "judged by rubrics in localism's words" if is_own else None
