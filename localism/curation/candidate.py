"""What a gate is given and what it says: a candidate, a verdict, a match, and words."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from localism.records import Split

# Scripts without spaces: each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


class Verdict(NamedTuple):
    """What one gate says."""

    passed: bool
    """False rejects the candidate."""
    reason: str | None = None
    """Why it was rejected; particulars of the case stand behind ': '."""
    value: float | None = None
    """The number that was compared with a threshold."""


class Match(NamedTuple):
    """A kept text that another one repeats."""

    kept: int
    """Index of the kept text."""
    likeness: float
    """Jaccard index of their 3-grams, or the cosine of their vectors; 1 for the same words."""
    is_same: bool
    """Whether the two are equal but for case, spaces and punctuation."""


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
    def parts(self) -> tuple[str, str]:
        """Instruction and response, empty where there is none."""
        return self.instruction or "", self.response or ""

    @property
    def text(self) -> str:
        """Instruction and response together."""
        return "\n".join(self.parts)


def words(text: str) -> list[str]:
    """The words of a text in lower case; each character where a script writes without spaces."""
    return _WORD.findall(text.casefold())
