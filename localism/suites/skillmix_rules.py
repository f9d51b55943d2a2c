"""SKILL-MIX's rules on one text: what of a reply is graded, which points it has, what they make.

Points stand in one order: the k skills, topic, sense, sentences. The rules are those of the
published code (Yu et al. 2023, arXiv 2310.17567, aggregate_metrics.py) but for two, which
docs/evaluation.md compares: sentences are counted by sentences.py, and a skill counts as named
where its name begins a word.
"""

import re
from collections.abc import Mapping, Sequence

from localism.parsing.lists import without_thinking
from localism.suites import sentences
from localism.suites.asking import on_scale

OTHERS = ("topic", "sense", "sentences")
"""The points beside those of the skills."""
METRICS = ("full_marks", "all_skills", "skill_fraction")
# 'Answer:', '**Improved answer:** ...', '### Answer', at the start of a line.
_ANSWER = re.compile(
    r"^\W*(?:\w+[ \t]+){0,2}answer[*_)\]]*[ \t]*[:：][*_]*"
    r"|^[ \t]*[#*_]+[ \t]*(?:\w+[ \t]+){0,2}answer[*_ \t]*$",  # noqa: RUF001
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER_INSIDE = re.compile(r"\bAnswer[*_]*[:：][*_]*")  # noqa: RUF001
_EXPLANATION = re.compile(
    r"\bExplanations?[*_]*[ \t]*[:：]|(?mi:^\W*explanations?[*_ \t]*(?:[:：]|$))"  # noqa: RUF001
)
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("`", "`"))
_PARENTHESIS = re.compile(r"\([^)]*\)?")
_EARNED = re.compile(r"^(?P<criterion>.*)\bearned\b\W*:\W*(?P<points>\d+(?:\.\d+)?)", re.IGNORECASE)
_CELL = re.compile(r"\d+(?:\.\d+)?")


def sentence_limit(k: int) -> int:
    """How many sentences a text about k skills may have."""
    return max(1, k - 1)


def graded_text(reply: str) -> str:
    """What stands after the last answer marker and before an explanation; else the whole reply.

    Without a block of thinking, and without quotes or emphasis around all of it.
    """
    reply = without_thinking(reply)
    markers = [*_ANSWER.finditer(reply)] or [*_ANSWER_INSIDE.finditer(reply)]
    text = reply[markers[-1].end() :] if markers else reply
    explanation = _EXPLANATION.search(text)
    text = (text[: explanation.start()] if explanation else text).strip(" \t\r\n#*_>-")
    for opening, closing in _QUOTES:
        inside = text[len(opening) : -len(closing)]
        if text == f"{opening}{inside}{closing}" and opening not in inside:
            text = inside.strip()
    return text


def keeps_limit(text: str, k: int) -> tuple[bool, int]:
    """Whether a text has no more sentences than it may, and how many it has."""
    found = sentences.count(text)
    return found <= sentence_limit(k), found


def names_skill(text: str, skill: str) -> bool:
    """Whether a text names a skill, be it in the plural or with another ending.

    What the skill's name has in parentheses does not count; hyphens and spaces are alike.
    """
    words = re.findall(r"\w+", _PARENTHESIS.sub(" ", skill).replace("_", " ").lower())
    said = " ".join(re.findall(r"\w+", text.replace("_", " ").lower()))
    return bool(words) and f" {' '.join(words)}" in f" {said}"


def read_points(reply: str, count: int) -> list[float] | None:
    """The points of a reply in free text, in order: lines 'point earned: 1', else a table's rows.

    Fewer are filled up with 0, more are cut off, a total is left out; None when there are none.
    """
    lines = [line for line in reply.splitlines() if "total" not in line.lower()]
    found = [match["points"] for line in lines if (match := _EARNED.match(line))]
    if not found:
        rows = [[cell for cell in line.split("|") if cell.strip()] for line in lines if "|" in line]
        cells = [_CELL.search(row[1]) for row in rows if len(row) > 1]
        found = [cell[0] for cell in cells if cell]
    points = [on_scale(point, 0, 1) or 0.0 for point in found]
    return (points + [0.0] * count)[:count] if points else None


def majority(gradings: Sequence[Sequence[float]]) -> list[float]:
    """The points that more than half of the gradings of one text gave."""
    return [float(sum(votes) / len(votes) > 0.5) for votes in zip(*gradings, strict=True)]


def metrics(points: Sequence[float], k: int) -> dict[str, float]:
    """The three metrics of one text: 1 or 0, and the share of the skills for the third."""
    skills, others = sum(points[:k]), sum(points[k:])
    assert len(points) == k + len(OTHERS), points
    return {
        "full_marks": float(skills == k and others == len(OTHERS)),
        "all_skills": float(skills == k and others >= len(OTHERS) - 1),
        "skill_fraction": skills / k if others == len(OTHERS) else 0.0,
    }


def best(texts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each metric's highest value among the texts written for one combination."""
    return {metric: max(text[metric] for text in texts) for metric in METRICS}
