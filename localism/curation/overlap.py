"""Gate overlap: instructions that a benchmark asks too, found by shared word n-grams.

Two rules: a run of 13 words in common (the length of the GPT-3 paper's search, Brown et al. 2020,
appendix C), or the larger share of the shorter text's 8-grams. A prompt of less than eight words
counts when it is the whole instruction.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from localism.benchmark_files import BenchmarkPrompt
from localism.curation.candidate import Candidate, Verdict, words

_GRAM = 8


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
                reason = f"mostly a benchmark's prompt: {self._places[prompt]}"
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
