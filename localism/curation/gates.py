"""The gates that need little more than the text: parsed, complete, length, markers, skills.

A gate is a function of one candidate and its thresholds that says pass or reject, with a reason and
the number that it looked at. The others have a file each: repetition, talk (refusal, self_talk),
language, personal, duplicates, overlap. docs/curation.md has their thresholds and error rates.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from localism.curation.candidate import Candidate, Verdict
from localism.curation.unfinished import breaks_off
from localism.parsing.fences import has_open_fence, outside_fences
from localism.parsing.headings import has_heading
from localism.skill_names import mentions

# Of models in general; those of the run's own tokenizers are added to these.
_CONTROL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?(?:think|thinking|start_of_turn|end_of_turn)>"
    r"|<(?:bos|eos|pad|unk)>|</s>"
)
_ROLE = re.compile(r"^\s*(?:#+\s*|\*\*)?(?:human|assistant)\s*(?:\*\*)?\s*[:：]", re.I | re.M)
# The cast of a play, the credits of a film: labels of the same form in the next lines.
_LABEL = re.compile(
    r"^\s*(?:\*\*)?(?!(?:human|assistant|user)\b)[^\W\d][\w .'’-]{0,30}(?:\*\*)?[:：]", re.I
)
_DIALOGUE = re.compile(
    r"\b(?:dialog|conversation|transcript|script|screenplay|sketch|scene|interview|chat|role.?play)",
    re.I,
)
# Headings of the turns before, and what marks the end of a part.
_LEFTOVER = re.compile(
    r"^\s*(?:#+|\*\*)\s*(?:self-)?critique\b.{0,20}$"
    r"|\[(?:end|start) of (?:the )?(?:response|answer|instruction|query|example)\]"
    r"|^\s*\[(?:refined|revised|improved|final|draft)\]"
    r"|^\W*end of (?:the )?(?:response|answer|instruction|query|example)\W*$"
    r"|^\s*[-=*_]{2,}\s*(?:instruction|response|query|answer)\s*[-=*_]{2,}\s*$",
    re.I | re.M,
)
_ASKS_FOR_CRITIQUE = re.compile(r"critique|critic|review|feedback|essay", re.I)
_BARE_HASHES = re.compile(r"^\s*#{2,}\s*$|#{3,}\s*\Z", re.M)


def parsed(candidate: Candidate) -> Verdict:
    """The last reply had an instruction and a response."""
    if candidate.instruction is None or candidate.response is None:
        return Verdict(False, candidate.reason)
    return Verdict(True)


def complete(candidate: Candidate) -> Verdict:
    """The last reply was not cut off, closes its fences, and does not break off."""
    if candidate.finish_reason == "length":
        return Verdict(False, "cut off")
    if any(has_open_fence(part) for part in candidate.parts):
        return Verdict(False, "code fence not closed")
    if found := breaks_off(candidate.parts[1]):
        return Verdict(False, f"breaks off: {found}")
    return Verdict(True)


@dataclass(frozen=True)
class Bounds:
    """Least and most tokens of the two parts."""

    instruction: tuple[int, int]
    """Of the instruction."""
    response: tuple[int, int]
    """Of the response."""


def length(candidate: Candidate, bounds: Bounds, count: Callable[[str], int]) -> Verdict:
    """Both parts are within their bounds; the value is the response's tokens, or the wrong part's.

    count(text) is the number of tokens that the student's tokenizer makes of it.
    """
    tokens = 0
    named = zip(
        ("instruction", "response"),
        candidate.parts,
        (bounds.instruction, bounds.response),
        strict=True,
    )
    for name, part, (least, most) in named:
        tokens = count(part)
        if tokens < least:
            return Verdict(False, f"{name} shorter than {least:,} tokens: {tokens:,}", tokens)
        if tokens > most:
            return Verdict(False, f"{name} longer than {most:,} tokens: {tokens:,}", tokens)
    return Verdict(True, value=tokens)


@dataclass(frozen=True)
class Markers:
    """Text of the machinery that must not stay in an example."""

    instruction: str
    """The pack's heading of the instruction."""
    response: str
    """The pack's heading of the response."""
    special_tokens: frozenset[str] = frozenset()
    """Control tokens of the run's own tokenizers."""


def special_tokens(found: Iterable[str]) -> frozenset[str]:
    """Those that can only be control tokens: some tokenizers mark ordinary words as special."""
    return frozenset(token for token in found if len(token) > 2 and not token.isalnum())


def no_markers(candidate: Candidate, markers: Markers) -> Verdict:
    """No pack marker, chat role, control token or skill name of the prompt stayed in the text.

    A Markdown heading is content, '###' alone on a line is a leftover; code fences may hold both.
    Control tokens are refused anywhere, since the student's tokenizer would obey them.
    """
    text = candidate.text
    if _CONTROL.search(text) or any(token in text for token in markers.special_tokens):
        return Verdict(False, "control token left in the text")
    parts = [outside_fences(part) for part in candidate.parts]
    if any(has_heading(part, markers.instruction, markers.response) for part in parts):
        return Verdict(False, "marker left in the text")
    if any(_BARE_HASHES.search(part) for part in parts):
        return Verdict(False, "bare ### left in the text")
    asks_for_dialogue = bool(_DIALOGUE.search(parts[0]))
    if _has_role(parts[0]) or (not asks_for_dialogue and _has_role(parts[1])):
        return Verdict(False, "chat role left in the text")
    if not _ASKS_FOR_CRITIQUE.search(parts[0]) and any(_LEFTOVER.search(part) for part in parts):
        return Verdict(False, "marker left in the text")
    # In snake_case a name is no English; a one-word skill is a word like any other.
    if any(
        "_" in skill and re.search(rf"\b{re.escape(skill)}\b", text) for skill in candidate.skills
    ):
        return Verdict(False, "skill named as in the prompt")
    return Verdict(True)


def _has_role(text: str) -> bool:
    """Whether a chat role opens a line, other than among other labels of its kind."""
    lines = [line for line in text.split("\n") if line.strip()]
    for place, line in enumerate(lines):
        beside = lines[max(0, place - 1) : place] + lines[place + 1 : place + 2]
        if _ROLE.match(line) and not any(_LABEL.match(other) for other in beside):
            return True
    return False


def says_skills(candidate: Candidate) -> Verdict:
    """The response has the words of every skill, in any inflection; the value is their share."""
    response = candidate.parts[1]
    missing = [skill for skill in candidate.skills if not mentions(skill, response)]
    share = 1 - len(missing) / len(candidate.skills)
    if missing:
        return Verdict(False, f"does not show every skill: {', '.join(missing)}", share)
    return Verdict(True, value=share)
