"""The gates that look at one candidate alone: candidate -> verdict with a reason and a value."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from localism.parse_example import has_heading, has_open_fence, outside_fences
from localism.records import Split
from localism.skill_names import mentions

# Shorter than this is no example of anything; real texts are ten times as long.
MIN_INSTRUCTION_WORDS = 4
MIN_RESPONSE_WORDS = 10
# Of models in general; those of the run's own tokenizers are added to these.
_CONTROL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?(?:think|thinking|start_of_turn|end_of_turn)>"
    r"|<(?:bos|eos|pad|unk)>|</s>"
)
_ROLE = re.compile(r"^\s*(?:#+\s*|\*\*)?(?:human|assistant)\s*(?:\*\*)?\s*[:：]", re.I | re.M)
_BARE_HASHES = re.compile(r"^\s*#{2,}\s*$|#{3,}\s*\Z", re.M)
# Scripts without spaces: each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


class Verdict(NamedTuple):
    """What one gate says."""

    passed: bool
    """False rejects the candidate."""
    reason: str | None = None
    """Why it was rejected."""
    value: float | None = None
    """The number that was compared with a threshold."""


@dataclass(frozen=True)
class Candidate:
    """A row of table candidate with what the gates need beside it."""

    mix_id: str
    """Its mix."""
    split: Split
    """train, dev or test."""
    ordinal: int
    """Place in the plan."""
    skills: tuple[str, ...]
    """Skills that it is to show."""
    instruction: str | None
    """None when the last reply did not parse."""
    response: str | None
    """None when the last reply did not parse."""
    reason: str | None
    """Why it did not parse."""
    finish_reason: str | None
    """Of its last turn; None when the ledger does not have it."""

    @property
    def text(self) -> str:
        """Instruction and response together."""
        return f"{self.instruction or ''}\n{self.response or ''}"


def words(text: str) -> list[str]:
    """The words of a text in lower case; each character where a script writes without spaces."""
    return _WORD.findall(text.casefold())


def parsed(candidate: Candidate) -> Verdict:
    """The last reply had an instruction and a response."""
    if candidate.instruction is None or candidate.response is None:
        return Verdict(False, candidate.reason)
    return Verdict(True)


def complete(candidate: Candidate) -> Verdict:
    """The last reply was not cut off, and neither part is a scrap."""
    instruction, response = candidate.instruction or "", candidate.response or ""
    if candidate.finish_reason == "length":
        return Verdict(False, "cut off")
    if has_open_fence(instruction) or has_open_fence(response):
        return Verdict(False, "code fence not closed")
    if (length := len(words(instruction))) < MIN_INSTRUCTION_WORDS:
        return Verdict(False, "instruction too short", float(length))
    length = len(words(response))
    if length < MIN_RESPONSE_WORDS:
        return Verdict(False, "response too short", float(length))
    return Verdict(True, value=float(length))


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
    parts = [
        outside_fences(part) for part in (candidate.instruction or "", candidate.response or "")
    ]
    if any(has_heading(part, markers.instruction, markers.response) for part in parts):
        return Verdict(False, "marker left in the text")
    if any(_BARE_HASHES.search(part) for part in parts):
        return Verdict(False, "bare ### left in the text")
    if any(_ROLE.search(part) for part in parts):
        return Verdict(False, "chat role left in the text")
    # In snake_case a name is no English; a one-word skill is a word like any other.
    if any(
        "_" in skill and re.search(rf"\b{re.escape(skill)}\b", text) for skill in candidate.skills
    ):
        return Verdict(False, "skill named as in the prompt")
    return Verdict(True)


def says_skills(candidate: Candidate) -> Verdict:
    """The response has the words of every skill, in any inflection; the value is their share."""
    response = candidate.response or ""
    missing = [skill for skill in candidate.skills if not mentions(skill, response)]
    share = 1 - len(missing) / len(candidate.skills)
    if missing:
        return Verdict(False, f"does not show every skill: {', '.join(missing)}", share)
    return Verdict(True, value=share)
