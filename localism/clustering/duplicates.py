"""Which names are one skill in other words.

Two rules: the same content words in any order and inflection, or vectors at least
[cluster].merge_cosine alike, but not equal; complete linkage, so that every two names of a skill
are that alike.

With the default of .90, precision / recall on pairs of the paper's lists that one reader judged
(tests/data/skill_pairs.csv, benchmarks/skill_lists.py; recall over pairs with a cosine of .6 or
more): 1.00 / .25 on the skills that a model listed, .89 / .17 on the clusters of seed examples,
whose names of the form x_and_y are close to each other without being the same. .86 gives .91 / .45
and .85 / .18, .94 gives 1.00 / .21 and .94 / .16. Only 16 and 14 of the judged pairs are merged by
the default, so a precision is good to about a tenth. False merges near the cut look like
creative_writing_and_literature and creative_writing_and_storytelling.
"""

import functools
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from localism.clustering.neighbours import close_pairs
from localism.skill_names import content_stems, stem

Vectors = NDArray[np.float64]
Labels = NDArray[np.int64]

# Words that say "this is a skill" and not which one: present or absent, the skill is the same.
# Not here: advanced, basic, online and other words that narrow a skill.
GENERIC_WORDS = (
    "ability aptitude capability competence competency expertise fundamental knowledge"
    " mastery method practice principle proficiency skill strategy technique"
)
# Names whose distances are held at once: 2,000 take 32 MB, and no honest list has such a group.
LARGEST_COMPONENT = 2_000
# Equal vectors of different words: the embedder knows neither (every Thai word is one and the same
# unknown token to MiniLM), so its likeness says nothing.
INDISTINCT = 1 - 1e-6
FARTHEST = 2.0


def merge_duplicates(
    names: Sequence[str], vectors: Vectors, cosine: float, seed: int = 0
) -> list[list[int]]:
    """Groups of indices that are one skill: the same content words, or alike in every pair.

    Complete linkage, so that a chain of near neighbours does not join its two ends. A group lies
    within a connected component of the graph of close pairs, so only components are linked: the
    outcome is that of the whole distance matrix, without its memory.
    """
    numbers: dict[frozenset[str], int] = {}
    words = np.array(
        [numbers.setdefault(content_words(name), len(numbers)) for name in names], dtype=np.int64
    )
    pairs = np.column_stack(close_pairs(vectors, cosine, INDISTINCT, seed))
    groups: list[list[int]] = []
    for component in _components(words, pairs):
        for members in _bounded(component, vectors):
            groups += [members] if len(members) == 1 else _linked(members, words, vectors, cosine)
    return groups


def content_words(name: str) -> frozenset[str]:
    """Stems of a name without generic words, or all its stems when nothing else is there.

    Accents on Latin letters do not count, for people leave them out.
    """
    words = content_stems(_without_accents(name))
    return words - _generic_stems() or words


def _without_accents(name: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return plain if plain.isascii() else name  # in other scripts marks are vowels


@functools.cache
def _generic_stems() -> frozenset[str]:
    return frozenset(stem(word) for word in GENERIC_WORDS.split())


def _components(words: Labels, pairs: Labels) -> list[list[int]]:
    """Indices that are joined by close pairs or by the same words."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    same = [pair for group in by_label(words).values() for pair in pairwise(group)]
    joined = np.concatenate([pairs, np.array(same, dtype=np.int64).reshape(-1, 2)])
    graph = coo_array((np.ones(len(joined)), joined.T), shape=(len(words), len(words)))
    _, component_of = connected_components(graph, directed=False)
    return list(by_label(component_of).values())


def _bounded(members: list[int], vectors: Vectors) -> Iterator[list[int]]:
    """The component, or where it is too large for linkage, parts of it that lie apart.

    Halved at the median of its widest direction, again and again: what a cut parts stays unmerged.
    """
    if len(members) <= LARGEST_COMPONENT:
        yield members
        return
    inside = vectors[members] - vectors[members].mean(axis=0)
    widest = np.linalg.eigh(inside.T @ inside)[1][:, -1]
    order = np.argsort(inside @ widest, kind="stable")
    for half in np.array_split(order, 2):
        yield from _bounded([members[place] for place in np.sort(half)], vectors)


def _linked(members: list[int], words: Labels, vectors: Vectors, cosine: float) -> list[list[int]]:
    """Complete linkage within a component."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distances = 1 - vectors[members] @ vectors[members].T
    distances[distances <= 1 - INDISTINCT] = FARTHEST
    distances[words[members, None] == words[members]] = 0
    tree = linkage(squareform(distances.clip(0), checks=False), "complete")
    cut = fcluster(tree, 1 - cosine + 1e-9, "distance")
    return [[members[i] for i in group] for group in by_label(cut).values()]


def by_label(labels: Labels) -> dict[int, list[int]]:
    """Indices by label, in order of first appearance."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[int(label)].append(index)
    return members
