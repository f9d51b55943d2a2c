"""Answers and comparisons -> rows of table score.

Everything is in percent points, 0 to 100 (a gain from -100), but mean_length is in characters,
mean_tokens in tokens, word_entropy in bits and the judge's length_slope in logits. A number that
nothing carries is NULL, never 0; the items that it lacks are counted in `unscored`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from localism.judging.heldout import HeldOutItem
from localism.judging.picking import Comparison, Interval, PairedDifference
from localism.records import Split
from localism.skill_names import mentions
from localism.store import Store

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Score:
    """A row of table score."""

    model_id: str
    """A checkpoint_id, or 'base', 'reference', 'judge'."""
    split: Split
    """Whose items were scored."""
    metric: str
    """What was measured."""
    value: float | None
    """None when nothing was scored."""
    low: float | None
    """Lower end of the 95% interval."""
    high: float | None
    """Upper end."""
    n: int
    """Items behind the value."""
    unscored: int
    """Items that should be behind it and are not."""
    note: str | None = None
    """What belongs beside the number."""


def write(store: Store, split: Split, scores: Sequence[Score], training: str) -> None:
    """Replace the scores of a training's checkpoints in a split, and of the other models named.

    Other metrics of theirs stay. Scores are derived from rows that are kept, so replacing loses
    nothing; it matters when a run is extended by further mixes and another checkpoint is picked.
    """
    metrics = sorted({score.metric for score in scores})
    store.execute(
        "DELETE FROM score WHERE split = ? AND list_contains(?, metric) AND (list_contains(?,"
        " model_id) OR model_id IN (SELECT checkpoint_id FROM checkpoint WHERE training = ?))",
        [split, metrics, sorted({score.model_id for score in scores}), training],
    )
    store.add_rows("score", [asdict(score) for score in scores])
    store.flush()


def judged(comparison: Comparison, split: Split) -> Iterator[Score]:
    """Win rate, its standard error, and length-controlled win rate of every model compared."""
    note = "; ".join(comparison.notes) or None
    if comparison.approximate:
        note = f"approximate: {note}"
    for model in comparison.scores:
        rate = model.win_rate
        for metric, value, interval, beside in (
            ("win_rate", rate.value, model.win_rate_interval, None),
            ("win_rate_standard_error", rate.standard_error, Interval(None, None), None),
            ("lc_win_rate", model.lc_win_rate, model.lc_interval, note),
        ):
            yield Score(model.model, split, metric, value, *interval, rate.n, rate.unscored, beside)


def gain(difference: PairedDifference, model_id: str, other: str, split: Split) -> Score:
    """How much more the judge prefers one model than the other on the same items."""
    return Score(
        model_id,
        split,
        "preference_gain",
        difference.value,
        difference.low,
        difference.high,
        difference.n,
        difference.unscored,
        f"against {other}, paired by prompt",
    )


def counted(
    store: Store, model_id: str, split: Split, items: Sequence[HeldOutItem]
) -> Iterator[Score]:
    """What needs no judge, of a model's answers: skills, lengths, variety, ended by themselves."""
    rows = store.query(
        "SELECT mix_id, a.text, a.finish_reason, completion_tokens FROM answer a"
        " LEFT JOIN turn USING (turn_id) WHERE model_id = ? AND a.text IS NOT NULL",
        [model_id],
    )
    wanted = {item.mix_id for item in items}
    answered = [row for row in rows if row["mix_id"] in wanted]
    finished = sum(row["finish_reason"] == "stop" for row in answered)
    yield _share("finished", finished, len(answered), model_id, split, len(items))
    tokens = [r["completion_tokens"] for r in answered if r["completion_tokens"] is not None]
    yield _mean("mean_tokens", tokens, model_id, split, len(items))
    yield from of_texts({r["mix_id"]: r["text"] for r in answered}, model_id, split, items)


def of_texts(
    texts: Mapping[str, str], model_id: str, split: Split, items: Sequence[HeldOutItem]
) -> Iterator[Score]:
    """Of texts (by mix_id): how many name every skill of their item, mean length, word entropy."""
    covered = sum(
        all(mentions(skill, texts[item.mix_id]) for skill in item.skills)
        for item in items
        if item.mix_id in texts
    )
    yield _share("skill_coverage", covered, len(texts), model_id, split, len(items))
    lengths = [len(text) for text in texts.values()]
    yield _mean("mean_length", lengths, model_id, split, len(items))
    bits, missing = word_entropy(texts.values()), len(items) - len(texts)
    yield Score(model_id, split, "word_entropy", bits, None, None, len(texts), missing, ENTROPY)


def _mean(metric: str, values: Sequence[float], model_id: str, split: Split, asked: int) -> Score:
    mean = float(np.mean(values)) if values else None
    low, high = interval_of_mean(values)
    low = None if low is None else max(0.0, low)  # the normal approximation knows no bounds
    return Score(model_id, split, metric, mean, low, high, len(values), asked - len(values))


ENTROPY = "bits a word, of all words together, Miller-Madow"


def word_entropy(texts: Iterable[str]) -> float | None:
    """Shannon entropy, in bits, of the words of all texts together; None without a word.

    How varied the answers are as a whole: it falls where a model repeats itself, within an answer
    or from one to the next. Words are runs of letters and digits, capitals aside. Counted entropy
    is too low for short texts, by about (different words - 1) / (2 * words) nats, which is added
    (Miller 1955); over texts of very different length it still compares badly.
    """
    counts = Counter(word for text in texts for word in re.findall(r"\w+", text.casefold()))
    total = counts.total()
    if not total:
        return None
    shares = np.array(list(counts.values())) / total
    nats = -(shares * np.log(shares)).sum() + (len(counts) - 1) / (2 * total)
    return float(nats / math.log(2))


def _share(metric: str, successes: int, n: int, model_id: str, split: Split, asked: int) -> Score:
    value = 100 * successes / n if n else None
    return Score(model_id, split, metric, value, *wilson(successes, n), n, asked - n)


def wilson(successes: int, n: int) -> Interval:
    """Wilson's 95% interval of a share, in percent points; it is honest at 0 of n and at n of n."""
    if n == 0:
        return Interval(None, None)
    share, z2 = successes / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 100 * (centre - half) if successes else 0.0
    high = 100 * (centre + half) if successes < n else 100.0
    return Interval(low, high)


def interval_of_mean(values: Sequence[float]) -> Interval:
    """Normal 95% interval of a mean; none below two values."""
    if len(values) < 2:
        return Interval(None, None)
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean - Z_95 * error, mean + Z_95 * error)
