"""The half of stage curate that compares instructions: with a benchmark's, and with each other.

Both gates look at words and at vectors of the run's embedder, which stay in the corpus. Of a text
that is longer than the embedder reads a vector would say little: it is compared by its words alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from localism.benchmark_files import BenchmarkPrompt, read_prompts
from localism.clustering.embed import reads_whole, vectors_of
from localism.context import Context
from localism.curation.candidate import Candidate, Match, Verdict
from localism.curation.duplicates import Texts
from localism.curation.meanings import Meanings
from localism.curation.overlap import Prompts, nearest_prompts
from localism.paths import embedded

Vectors = NDArray[np.float64]


def duplicate_verdicts(context: Context, candidates: Sequence[Candidate]) -> dict[str, Verdict]:
    """Each instruction against those accepted before it, in the way of [curate].duplicates_by."""
    curate = context.config.curate
    instructions = [candidate.instruction or "" for candidate in candidates]
    # The same words in the same order are the same instruction whichever way is chosen.
    texts = Texts(instructions, 1.0 if curate.duplicates_by == "meaning" else curate.near_duplicate)
    rows: dict[int, int] = {}
    vectors = np.zeros((0, 1))
    if curate.duplicates_by != "words" and candidates:
        vectors, rows = _embedded(context, instructions)
    meanings = Meanings(vectors, context.config.seed)
    return kept_apart(candidates, texts, meanings, rows, curate.near_cosine)


def kept_apart(
    candidates: Sequence[Candidate],
    texts: Texts,
    meanings: Meanings,
    rows: Mapping[int, int],
    least_cosine: float,
) -> dict[str, Verdict]:
    """The first of those that are alike is kept; the value is the likeness to it.

    rows: place among the candidates -> row of its vector, for those that have one. The value of a
    candidate that passes is the cosine to the nearest one before it.
    """
    verdicts: dict[str, Verdict] = {}
    place_of = {row: place for place, row in rows.items()}
    for place, candidate in enumerate(candidates):
        verdict = _by_words(candidates, texts.find(place))
        row = rows.get(place)
        if verdict is None and row is not None and (near := meanings.nearest(row)):
            verdict = Verdict(True, value=near.likeness)
            if near.likeness >= least_cosine:
                other = candidates[place_of[near.kept]].mix_id
                reason = f"the same meaning: {other}, cosine {near.likeness:.3f}"
                verdict = Verdict(False, reason, near.likeness)
        verdicts[candidate.mix_id] = verdict or Verdict(True)
        if verdicts[candidate.mix_id].passed:
            texts.keep(place)
            if row is not None:
                meanings.keep(row)
    return verdicts


def _by_words(candidates: Sequence[Candidate], match: Match | None) -> Verdict | None:
    if match is None:
        return None
    other = candidates[match.kept].mix_id
    if match.is_same:
        return Verdict(False, f"same instruction: {other}", match.likeness)
    reason = f"nearly the same instruction: {other}, {match.likeness:.2f} of their 3-grams"
    return Verdict(False, reason, match.likeness)


def overlap_verdicts(context: Context, candidates: Sequence[Candidate]) -> dict[str, Verdict]:
    """Each instruction against the benchmark prompts: shared words, then the cosine of vectors."""
    curate = context.config.curate
    prompts = [prompt for path in curate.benchmarks for prompt in read_prompts(embedded(path))]
    index = Prompts(prompts)
    verdicts = {
        candidate.mix_id: index.overlap(candidate, curate.overlap_words, curate.overlap_share)
        for candidate in candidates
    }
    passed = [candidate for candidate in candidates if verdicts[candidate.mix_id].passed]
    if prompts and passed and curate.overlap_cosine < 1:
        verdicts |= _by_meaning(context, passed, prompts)
    return verdicts


def _by_meaning(
    context: Context, candidates: Sequence[Candidate], prompts: Sequence[BenchmarkPrompt]
) -> dict[str, Verdict]:
    """Verdicts on those candidates that have a vector."""
    asked, prompt_rows = _embedded(context, [prompt.text for prompt in prompts])
    told, rows = _embedded(context, [candidate.instruction or "" for candidate in candidates])
    if not prompt_rows or not rows:
        return {}
    nearest, cosines = nearest_prompts(told, asked)
    prompt_of, verdicts = list(prompt_rows), {}
    for place, row in rows.items():
        cosine = float(cosines[row])
        verdicts[candidates[place].mix_id] = Verdict(True, value=cosine)
        if cosine >= context.config.curate.overlap_cosine:
            where = prompts[prompt_of[nearest[row]]].place
            reason = f"means what a benchmark's prompt means: {where}, cosine {cosine:.2f}"
            verdicts[candidates[place].mix_id] = Verdict(False, reason, cosine)
    return verdicts


def _embedded(context: Context, texts: Sequence[str]) -> tuple[Vectors, dict[int, int]]:
    """(unit vectors, place of a text -> its row) of the texts that the embedder reads to the end.

    Says how many it does not.
    """
    embedder = context.config.embedder
    whole = [place for place, is_whole in enumerate(reads_whole(texts, embedder)) if is_whole]
    if len(whole) < len(texts):
        context.progress.say(
            f"{len(texts) - len(whole):,} of {len(texts):,} texts are longer than the embedder"
            " reads and are compared by their words alone"
        )
    if not whole:
        return np.zeros((0, 1)), {}

    def told(done: int) -> None:
        context.progress.update(done, len(whole), unit="instructions", detail="embedding")

    vectors = vectors_of(context.store, [texts[place] for place in whole], embedder, told)
    return vectors, {place: row for row, place in enumerate(whole)}
