"""Clusters -> names and keywords, without a language model."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from localism.clustering.duplicates import by_label

KEYWORDS = 5


def medoids(
    counts: Mapping[str, int], vectors: NDArray[np.float64], labels: NDArray[np.int64]
) -> dict[int, str]:
    """Cluster label -> its medoid: the skill most like the mean of its skills, weighted by count.

    Ties go to the shorter name, then by letter. vectors are those of the skills in counts.
    """
    names = list(counts)
    weights = np.array(list(counts.values()), dtype=np.float64)
    found = {}
    for label, members in by_label(labels).items():
        if label < 0:
            continue
        centre = weights[members] @ vectors[members]
        # Rounded, so that a tie does not hang on the last bit of a sum.
        likeness = np.round(vectors[members] @ centre, 9)
        medoid = min(
            zip(members, likeness, strict=True),
            key=lambda pair: (-pair[1], len(names[pair[0]]), names[pair[0]]),
        )[0]
        found[label] = names[medoid]
    return found


def keywords(skills: Iterable[tuple[str, int, str]]) -> dict[str, str]:
    """Cluster -> its most telling words by c-TF-IDF: frequent in it, rare in the others.

    `skills` are (name, count, cluster). c-TF-IDF as in BERTopic (Grootendorst 2022): the words of
    a cluster are one document.
    """
    words: dict[str, Counter[str]] = defaultdict(Counter)
    everywhere: Counter[str] = Counter()
    for name, count, cluster in skills:
        for word in name.split("_"):
            words[cluster][word] += count
            everywhere[word] += count
    average = everywhere.total() / max(1, len(words))
    return {
        cluster: ", ".join(
            sorted(inside, key=lambda w: (-inside[w] * math.log1p(average / everywhere[w]), w))[
                :KEYWORDS
            ]
        )
        for cluster, inside in words.items()
    }
