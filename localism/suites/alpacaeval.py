"""AlpacaEval 2: one answer against the baseline's, win rate and length-controlled win rate.

The judge reads both answers and its choice is taken as a probability (judging/pairwise.py), shown
in both orders unless [pick].both_orders is off, which shows each pair once on AlpacaEval's own
side. Scores are those of the estimator that picks checkpoints: win rate with its standard error,
discrete win rate (a verdict of exactly one half is half a win), length-controlled win rate. A file
of a lab's own prompts with answers is judged in the same way.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path

import numpy as np

from localism.judging.pairwise import Pairing, orders, verdict_on
from localism.judging.picking import Comparison, Interval, compare
from localism.judging.verdicts import LIKELIHOOD, SIDES
from localism.judging.winrate import Battles
from localism.records import Sampling
from localism.serving.client import Client
from localism.suites import intervals
from localism.suites.files import only_file, rows, unique
from localism.suites.records import Answer, Item, Judged, Judging, Judgment, Question, SuiteScore

NAME, HEADLINE = "alpacaeval", "lc_win_rate"
SAMPLES = 1
PROMPTS: Mapping[str, Set[str]] = {}
"""It uses the pairwise prompt of the run's own pack."""


def read(source: Path, suite: str = NAME) -> list[Item]:
    """Rows of instruction, output (the baseline's answer), dataset; as in alpaca_eval.json."""
    names = ("alpaca_eval_gpt4_baseline.json", "alpaca_eval.json", "*.jsonl", "*.json", "*.parquet")
    file = only_file(source, names, "instructions and the baseline's outputs")
    items = []
    for number, row in enumerate(rows(file)):
        instruction = row.text("instruction", "prompt")
        reference = row.text("output", "response", "reference", empty=True)
        dataset = row.values.get("dataset")
        items.append(
            Item(suite, str(number), (instruction,), reference, str(dataset) if dataset else None)
        )
    unique([item.own_id for item in items], str(file))
    return items


def turns(item: Item) -> int:
    """One."""
    return len(item.turns)


def message(item: Item, turn: int, render: Callable[..., str]) -> str:
    """The instruction as it is."""
    return item.turns[turn - 1]


def sampling(item: Item, turn: int, usual: Sampling) -> Sampling:
    """As the student is sampled in pick: the benchmark leaves it to the model's owner."""
    return usual


# ---- the judge -----------------------------------------------------------------------------


def questions(item: Item, answers: Sequence[Answer], judging: Judging) -> Iterator[Question]:
    """Each order in which the pair is shown; a comparison of likelihoods has none."""
    for answer in answers:
        if answer.text is None:
            continue
        for side in orders(item.turns[0], both=judging.both_orders):
            aspect = LIKELIHOOD if judging.kind == LIKELIHOOD else SIDES[side]
            pairing = Pairing(
                answer.item_id, answer.model_id, item.item_id, item.turns[0], answer.text,
                item.reference or "", side,
            )  # fmt: skip
            ask = partial(_ask, pairing, judging)
            yield Question(item.item_id, answer.model_id, (aspect,), ask)


async def _ask(pairing: Pairing, judging: Judging, client: Client) -> list[Judged]:
    verdict, turn_id = await verdict_on(client, judging.pack, pairing, judging.kind)  # type: ignore[arg-type]
    return [Judged(verdict.preference, None, verdict.reason, turn_id)]


# ---- scores --------------------------------------------------------------------------------


def scores(
    items: Sequence[Item],
    answers: Sequence[Answer],
    judgments: Sequence[Judgment],
    judging: Judging,
) -> Iterator[SuiteScore]:
    """Win rates of every model against the baseline, whole and by dataset."""
    battles = _battles(items, answers, judgments, judging)
    comparison = compare(
        battles, seed=judging.seed, resamples=judging.resamples, **judging.length_slope
    )
    yield from _of_models(comparison, battles, judging)
    categories = sorted({item.category for item in items if item.category})
    for category in categories if len(categories) > 1 else ():
        inside = np.array([item.category == category for item in items])
        for row, model in enumerate(battles.models):
            yield _share(model, "win_rate", battles.preference[row, inside], judging, category)


def _battles(
    items: Sequence[Item],
    answers: Sequence[Answer],
    judgments: Sequence[Judgment],
    judging: Judging,
) -> Battles:
    """An item is unscored unless every order that is asked has a preference."""
    models = tuple(dict.fromkeys(answer.model_id for answer in answers))
    row_of = {model: row for row, model in enumerate(models)}
    column_of = {item.item_id: column for column, item in enumerate(items)}
    shape = (len(models), len(items))
    lengths, total, count = np.full(shape, np.nan), np.zeros(shape), np.zeros(shape)
    for answer in answers:
        if answer.text is not None:
            lengths[row_of[answer.model_id], column_of[answer.item_id]] = len(answer.text)
    for judgment in judgments:
        if judgment.value is not None:
            cell = row_of[judgment.model_id], column_of[judgment.item_id]
            total[cell] += judgment.value
            count[cell] += 1
    shown = len(orders("", both=judging.both_orders))
    preference = np.where(count >= shown, total / np.maximum(count, 1), np.nan)
    references = np.array([float(len(item.reference or "")) for item in items])
    return Battles(
        models, tuple(column_of), preference, lengths, np.broadcast_to(references, shape)
    )


def _of_models(comparison: Comparison, battles: Battles, judging: Judging) -> Iterator[SuiteScore]:
    note = "; ".join(comparison.notes) or None
    if comparison.approximate:
        note = f"approximate: {note}"
    for row, model in enumerate(comparison.scores):
        rate = model.win_rate
        for metric, value, bounds, beside in (
            ("win_rate", rate.value, model.win_rate_interval, None),
            ("standard_error", rate.standard_error, Interval(None, None), None),
            ("lc_win_rate", model.lc_win_rate, model.lc_interval, note),
        ):
            yield SuiteScore(
                model.model, metric, value, *bounds, rate.n, rate.unscored, note=beside
            )
        preference = battles.preference[row]
        decided = np.where(np.isnan(preference), np.nan, np.sign(preference - 0.5) / 2 + 0.5)
        yield _share(model.model, "discrete_win_rate", decided, judging)
        lengths = battles.len_model[row]
        yield SuiteScore(
            model.model, "mean_length", _mean_or_none(lengths), None, None,
            int((~np.isnan(lengths)).sum()), int(np.isnan(lengths).sum()), note="characters",
        )  # fmt: skip


def _share(
    model: str, metric: str, preference: "np.ndarray", judging: Judging, part: str = ""
) -> SuiteScore:
    values = [None if np.isnan(value) else 100 * float(value) for value in preference]
    value, bounds = intervals.mean(values, judging, scale=(0, 100))
    unscored = values.count(None)
    return SuiteScore(model, metric, value, *bounds, len(values) - unscored, unscored, part)


def _mean_or_none(values: "np.ndarray") -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))
