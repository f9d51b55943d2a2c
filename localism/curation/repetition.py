"""Gate repetition: a response that goes round in circles, as models do that have lost the thread.

Three measures, for loops come in three kinds. Back to back: the same words four times running (a
period of up to 60 words). Scattered: the share of words that lie in an 8-gram, or of lines, that
stood there before (as in the filters of Gopher, Rae et al. 2021, table A1). And for what has no
words: the compressed size. Code and tables repeat by nature and count for the last alone. What an
instruction asks to be written ten times may be.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np

from localism.curation.candidate import Candidate, Verdict, words
from localism.parsing.fences import outside_fences

_GRAM = 8
_LONGEST_PERIOD = 60
_TIMES = 4
# Fewer words may be a chant, a chorus, or an example of repetition.
_LEAST_LOOP = 24
_LINE_WORDS = 4
# zlib needs some text before its ratio means something.
_LEAST_BYTES = 600
_CODE_OR_TABLE = re.compile(r"\s*\||.*[;{}]\s*$")
_ASKS_TO_REPEAT = re.compile(
    r"\b(?:writ|say|repeat|copy|typ|print|chant)\w*\b[^.?!]{0,120}\btimes\b", re.IGNORECASE
)


def repetition(candidate: Candidate, most: float, least_compressed: float) -> Verdict:
    """No loops in the response; the value is the repeated share, or the compression ratio.

    most: share of words or lines that may repeat earlier ones; least_compressed: zlib's size over
    the size in bytes, below which a text says next to nothing.
    """
    response = candidate.parts[1]
    if _ASKS_TO_REPEAT.search(candidate.parts[0]):
        return Verdict(True)
    lines = [
        line for line in outside_fences(response).split("\n") if not _CODE_OR_TABLE.match(line)
    ]
    found = words("\n".join(lines))
    if looped := loop_length(found):
        share = looped / len(found)
        return Verdict(False, f"the same words over and over: {share:.2f} of its words", share)
    share, unit = max((repeated_words(found), "words"), (repeated_lines(lines), "lines"))
    if share > most:
        return Verdict(False, f"repeats itself: {share:.2f} of its {unit}", share)
    raw = response.encode()
    ratio = len(zlib.compress(raw)) / len(raw) if len(raw) >= _LEAST_BYTES else 1.0
    if ratio < least_compressed:
        reason = f"next to nothing in many characters: {ratio:.3f} of them when compressed"
        return Verdict(False, reason, ratio)
    return Verdict(True, value=share)


def loop_length(found: Sequence[str]) -> int:
    """Words of the longest back-to-back loop; 0 when there is none of note.

    Numbers never repeat: rows of digits are data.
    """
    if len(found) < _LEAST_LOOP:
        return 0
    index: dict[str, int] = {}
    numbers = np.array(
        [-i - 1 if w.isdigit() else index.setdefault(w, len(index)) for i, w in enumerate(found)]
    )
    longest = 0
    for period in range(1, min(_LONGEST_PERIOD, len(found) // _TIMES) + 1):
        breaks = np.flatnonzero(numbers[period:] != numbers[:-period])
        edges = np.concatenate([[-1], breaks, [len(found) - period]])
        run = int(np.diff(edges).max()) - 1
        if run >= (_TIMES - 1) * period:
            longest = max(longest, run + period)
    return longest if longest >= _LEAST_LOOP else 0


def repeated_words(found: Sequence[str]) -> float:
    """Share of the words that lie in an 8-gram which occurred before."""
    seen: set[tuple[str, ...]] = set()
    repeated = np.zeros(len(found), dtype=bool)
    for start in range(len(found) - _GRAM + 1):
        gram = tuple(found[start : start + _GRAM])
        if gram in seen:
            repeated[start : start + _GRAM] = True
        seen.add(gram)
    return float(repeated.mean()) if len(found) else 0.0


def repeated_lines(lines: Sequence[str]) -> float:
    """Share of the lines of four words or more that occurred before; 0 for fewer than four."""
    told = [tuple(found) for line in lines if len(found := words(line)) >= _LINE_WORDS]
    return 1 - len(set(told)) / len(told) if len(told) >= _TIMES else 0.0
