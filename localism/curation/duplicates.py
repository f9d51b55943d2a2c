"""Instructions that say the same: exact search by word 3-grams, quick for 100,000 of them.

Two texts are alike when the Jaccard index of their sets of word 3-grams reaches a threshold. The
search is exact (MinHash would miss some): if all 3-grams are put in one order, rare ones first, two
sets with Jaccard >= t share one of their first |x| - ceil(t |x|) + 1 members (prefix filtering;
Bayardo, Ma, Srikant 2007), so that an index of these few finds every pair.

At the default threshold of 0.85, on 168 labelled pairs (tests/data/instruction_pairs.csv):
precision 0.94, recall 0.23, that is 15 of 32 small edits and none of 32 rewordings. meanings.py
looks beside it by embeddings; docs/curation.md has other thresholds of both.
"""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from localism.curation.candidate import Match, words

_WORD_BITS = 21  # three word numbers in 63 bits: up to two million different words


class Texts:
    """Texts of which some are kept, in an order of one's choice; finds a kept one that is alike."""

    def __init__(self, texts: Sequence[str], threshold: float) -> None:
        self._threshold = threshold
        self._plain = [_normalised(text) for text in texts]
        self._grams = _ranked(_word_grams(self._plain))
        self._kept_plain: dict[str, int] = {}
        self._kept_by_gram: dict[int, list[int]] = defaultdict(list)

    def keep(self, index: int) -> None:
        """From now on later texts are compared with this one."""
        self._kept_plain.setdefault(self._plain[index], index)
        for gram in self._prefix(index):
            self._kept_by_gram[int(gram)].append(index)

    def find(self, index: int) -> Match | None:
        """The kept text that is most like this one, if any is like it; the first kept of equals."""
        same = self._kept_plain.get(self._plain[index])
        if same is not None:
            return Match(same, 1.0, True)
        grams = self._grams[index]
        likely = {other for gram in self._prefix(index) for other in self._kept_by_gram[int(gram)]}
        best: Match | None = None
        for other in sorted(likely):
            sizes = sorted((len(grams), len(self._grams[other])))
            if sizes[0] < self._threshold * sizes[1]:
                continue  # sets of such different sizes cannot be alike enough
            shared = len(np.intersect1d(grams, self._grams[other], assume_unique=True))
            likeness = shared / (sum(sizes) - shared)
            if likeness >= self._threshold and (best is None or likeness > best.likeness):
                best = Match(other, likeness, False)
        return best

    def _prefix(self, index: int) -> NDArray[np.int64]:
        grams = self._grams[index]
        # A hair less, for 0.85 * 20 is 17.000000000000004 or 16.999999999999996.
        return grams[: len(grams) - math.ceil(self._threshold * len(grams) - 1e-9) + 1]


def _normalised(text: str) -> str:
    """The words in lower case; the text itself where it has none."""
    text = unicodedata.normalize("NFKC", text)
    return " ".join(words(text)) or text.strip()


def _word_grams(texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """The set of word 3-grams of each text; a text of one or two words is one gram."""
    numbers: dict[str, int] = defaultdict(lambda: len(numbers) + 1)
    grams = []
    for text in texts:
        found = np.array([numbers[word] for word in text.split()], dtype=np.int64)
        found = np.concatenate([found, np.zeros(max(0, 3 - len(found)), dtype=np.int64)])
        packed = (found[:-2] << 2 * _WORD_BITS) | (found[1:-1] << _WORD_BITS) | found[2:]
        grams.append(np.unique(packed))
    assert len(numbers) < 1 << _WORD_BITS, len(numbers)
    return grams


def _ranked(grams: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Each set as sorted ranks: 0 is the rarest 3-gram of all."""
    if not grams:
        return []
    values, places, counts = np.unique(
        np.concatenate(grams), return_inverse=True, return_counts=True
    )
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(counts, kind="stable")] = np.arange(len(values))
    ends = np.cumsum([len(found) for found in grams])[:-1]
    return [np.sort(found) for found in np.split(ranks[places], ends)]
