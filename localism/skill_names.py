"""Skill labels as text: one spelling for each name, and whether a text shows a skill's words."""

import functools
import re
import unicodedata
from typing import NamedTuple

_WORD = re.compile(r"[^\W_]+")
# Words that carry no skill: present or absent, the skill is the same one.
_STOP_WORDS = frozenset("a an and for in of on or the to with".split())
MAX_WORDS = 8


class Name(NamedTuple):
    """What became of a raw label."""

    text: str | None
    """The one spelling, or None when the label is unusable."""
    problem: str | None
    """Why it is unusable, or None."""


def normalise(raw: str) -> Name:
    """One snake_case spelling of a label: 'Budget Management!' -> 'budget_management'.

    Unusable are labels without a word, and sentences (more than MAX_WORDS words).
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", raw).casefold())
    if not any(word.isalpha() for word in words):
        return Name(None, "no word in it")
    if len(words) > MAX_WORDS:
        return Name(None, f"a sentence: more than {MAX_WORDS} words")
    return Name("_".join(words), None)


def readable(name: str) -> str:
    """'budget_management' -> 'budget management', as the embedder reads it."""
    return name.replace("_", " ")


@functools.lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """English Snowball stem of one lower-case word."""
    return _stemmer().stemWord(word)


@functools.cache
def _stemmer():  # type: ignore[no-untyped-def]  # snowballstemmer has no types
    import snowballstemmer

    return snowballstemmer.stemmer("english")


def stems(text: str) -> frozenset[str]:
    """The stems of all words in a text."""
    return frozenset(stem(word) for word in _WORD.findall(text.lower()))


def content_stems(name: str) -> frozenset[str]:
    """The stems that carry a skill's meaning: its words without 'and', 'of' and their kin."""
    words = [word for word in name.split("_") if word not in _STOP_WORDS]
    return frozenset(stem(word) for word in words or name.split("_"))


def mentions(name: str, text: str) -> bool:
    """Whether every content word of the skill occurs in the text, in any inflection.

    A check of wording, not of meaning: right for the miniature, whose skills are spoken of by
    name; real teachers show a skill without naming it, and there a judge decides (curate).
    """
    return content_stems(name) <= stems(text)
