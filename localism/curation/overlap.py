"""Gate overlap: instructions that a benchmark asks too, by shared word n-grams and by vectors.

Two rules about words: a run of 13 in common (the length of the GPT-3 paper's search, Brown et al.
2020, appendix C), or the larger share of the shorter text's 8-grams. A prompt of less than eight
words counts when it is the whole instruction. And one about meaning: the cosine of the embedder's
vectors. At 0.85, on 172 labelled pairs (benchmarks/overlap_pairs.jsonl), MiniLM finds 36 of 66
paraphrases, and takes none of 106 other tasks for one; the words find none.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from localism.benchmark_files import BenchmarkPrompt
from localism.curation.candidate import Candidate, Verdict, words

Vectors = NDArray[np.float64]
Indices = NDArray[np.int64]

_GRAM = 8
_ROWS_AT_ONCE = 4096


class Prompts:
    """Benchmark prompts, indexed by their 8-grams of words."""

    def __init__(self, prompts: Iterable[BenchmarkPrompt]) -> None:
        self._places: list[str] = []
        self._words: list[str] = []
        self._sizes: list[int] = []
        self._by_gram: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._whole: dict[tuple[str, ...], str] = {}
        for prompt in prompts:
            found = words(prompt.text)
            if not found:
                continue
            self._whole.setdefault(tuple(found), prompt.place)
            grams = _grams(found)
            for gram in grams:
                self._by_gram[gram].append(len(self._places))
            self._places.append(prompt.place)
            self._words.append(_spaced(found))
            self._sizes.append(len(grams))

    def overlap(self, candidate: Candidate, run: int, most: float) -> Verdict:
        """The instruction is no benchmark's; the value is the largest share of shared 8-grams.

        run: words in a row that may not be shared; most: share of the 8-grams of the shorter of
        the two that may be.
        """
        found = words(candidate.parts[0])
        if place := self._whole.get(tuple(found)):
            return Verdict(False, f"a benchmark's prompt: {place}", 1.0)
        grams = _grams(found)
        hits = Counter(prompt for gram in grams for prompt in self._by_gram.get(gram, ()))
        value = 0.0
        for prompt, shared in hits.most_common():
            share = shared / min(len(grams), self._sizes[prompt])
            if share > most:
                reason = f"mostly a benchmark's prompt: {self._places[prompt]}, {share:.2f} of it"
                return Verdict(False, reason, share)
            if shared + _GRAM > run and self._has_run(found, prompt, run):
                reason = f"{run} words of a benchmark's prompt: {self._places[prompt]}"
                return Verdict(False, reason, share)
            value = max(value, share)
        return Verdict(True, value=value)

    def _has_run(self, found: list[str], prompt: int, run: int) -> bool:
        """Whether `run` words in a row of the instruction stand in the prompt."""
        text = self._words[prompt]
        starts = range(len(found) - run + 1)
        return any(_spaced(found[start : start + run]) in text for start in starts)


def _grams(found: list[str]) -> set[tuple[str, ...]]:
    return {tuple(found[start : start + _GRAM]) for start in range(len(found) - _GRAM + 1)}


def _spaced(found: list[str]) -> str:
    """Words with a space at either side, so that no word matches a part of another."""
    return f" {' '.join(found)} "


def nearest_prompts(texts: Vectors, prompts: Vectors) -> tuple[Indices, Vectors]:
    """(index, cosine) of the prompt nearest to each text, from unit vectors, both of shape (t,).

    All pairs are compared, a block at a time.
    """
    nearest = np.zeros(len(texts), dtype=np.int64)
    cosines = np.full(len(texts), -1.0)
    for row in range(0, len(texts), _ROWS_AT_ONCE):
        rows = slice(row, row + _ROWS_AT_ONCE)
        for column in range(0, len(prompts), _ROWS_AT_ONCE):
            block = texts[rows] @ prompts[column : column + _ROWS_AT_ONCE].T
            best = block.argmax(axis=1)
            top = block[np.arange(len(best)), best]
            better = top > cosines[rows]
            nearest[rows] = np.where(better, column + best, nearest[rows])
            cosines[rows] = np.where(better, top, cosines[rows])
    return nearest, cosines
