"""Skill labels as text: one spelling for each name, and whether a text shows a skill's words."""

import functools
import re
import unicodedata
from typing import NamedTuple

_MARKS = ("Mn", "Mc")
# Words that carry no skill: present or absent, the skill is the same one.
_STOP_WORDS = frozenset("a an and for in of on or the to with".split())
# What is lost with the punctuation and makes another skill.
_SPELLED = {"c++": "cpp", "c#": "csharp", "f#": "fsharp", ".net": "dotnet", "&": " and "}
_SPELLED_OUT = re.compile(r"(?<![^\W_])(?:c\+\+|c#|f#|\.net)(?![^\W_])|&")
_APOSTROPHE = re.compile(r"(?<=\w)['\u2019](?=\w)")
# What sentences begin with, and verbs that only sentences have. Neither is in a name of the
# paper's lists; "know_your_customer" and "thank_you_notes" are names, so pronouns inside are not.
_OPENINGS = frozenset(
    "i im ive you youre we they he she here sure okay hello please sorry lets dont".split()
)
_VERBS = frozenset("is are was were should would could must cannot".split())
_STOPS = ".!?\u3002\uff01\uff1f"
MAX_WORDS = 8
MAX_LETTERS = 60  # of a word; the longest in the paper's lists has 17, German compounds reach 40


class Name(NamedTuple):
    """What became of a raw label."""

    text: str | None
    """The one spelling, or None when the label is unusable."""
    problem: str | None
    """Why it is unusable, or None."""


def normalise(raw: str) -> Name:
    """One snake_case spelling of a label: 'Budget Management!' -> 'budget_management'.

    Compatibility forms, case, invisible characters, emoji and punctuation are evened out; letters
    of every script and digits stay. Plurals and the order of words stay too: those are merged
    where skills are compared (clustering/duplicates.py). Unusable are labels without a word, words
    of more than MAX_LETTERS letters, and sentences: more than MAX_WORDS words, an opening or a
    verb that only sentences have, or a full stop after five words or more.
    """
    words = _words(raw)
    if not words:
        return Name(None, "no word in it")
    if max(map(len, words)) > MAX_LETTERS:
        return Name(None, f"a word of more than {MAX_LETTERS} letters")
    if len(words) > MAX_WORDS:
        return Name(None, f"a sentence: more than {MAX_WORDS} words")
    if len(words) >= 3 and words[0] in _OPENINGS:
        return Name(None, f"a sentence: it begins with {words[0]!r}")
    if len(words) >= 4 and not _VERBS.isdisjoint(words):
        return Name(None, "a sentence: it has a verb")
    if len(words) >= 5 and raw.rstrip().endswith(tuple(_STOPS)):
        return Name(None, "a sentence: it ends with a full stop")
    return Name("_".join(words), None)


def _words(raw: str) -> list[str]:
    """Words of a label, in lower case; none when it has no letter."""
    text = unicodedata.normalize("NFKC", raw)
    # Zero-width characters, soft hyphens and emoji variants are part of no word and end none.
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" and not _is_variant(c))
    text = _APOSTROPHE.sub("", text.casefold())
    text = _SPELLED_OUT.sub(lambda found: _SPELLED[found[0]], text)
    # In many scripts a vowel is a mark, which Python's \w leaves out.
    kept = "".join(c if c.isalnum() or unicodedata.category(c) in _MARKS else " " for c in text)
    words = [word for word in kept.split() if any(map(str.isalnum, word))]
    return words if any(map(str.isalpha, "".join(words))) else []


def _is_variant(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f"


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
    return frozenset(stem(word) for word in _words(text))


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
