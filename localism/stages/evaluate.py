"""Stage evaluate: the picked checkpoint and the base on the test prompts -> the verdict.

No earlier stage has seen these prompts, so the scores are not optimistic as those of pick are.
Both models answer the same prompts and meet the same references: their difference is paired by
prompt, and its interval is the answer to whether the fine-tuned model got better. Several trainings
(--on SET) share the engines, and the base's answers. Benchmarks that the recipe names follow
(evaluate_suites.py).

Alone: localism evaluate --run NAME
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from localism.context import Context
from localism.errors import StageError
from localism.judging import scores
from localism.judging.calibration import calibrated
from localism.judging.heldout import HeldOutItem, held_out
from localism.judging.pairwise import battles
from localism.judging.picking import PairedDifference, compare, paired_difference
from localism.judging.winrate import FEW_MODELS, length_controlled
from localism.paths import embedded
from localism.records import SuiteOptions
from localism.stages import evaluate_suites
from localism.stages.pick import Contestant, contest, items_of
from localism.tables import number_of
from localism.training.sets import MAIN, Training, main_training

BASE = "base"
REFERENCE = "reference"


def run(context: Context, trainings: Sequence[Training] = ()) -> str:
    """Answer and judge the test prompts for base and picks, and say which is better by how much."""
    chosen = trainings or [main_training(context.config)]
    picks = {training: _picked(context, training) for training in chosen}
    items = items_of(context, "test")
    contestants = [
        Contestant(BASE, embedded(context.config.student.path)),
        *(Contestant(row["checkpoint_id"], context.folder / row["path"]) for row in picks.values()),
    ]
    asyncio.run(contest(context, "evaluate", "test", contestants, items))
    said = [
        training.named(settle(context, training, row["checkpoint_id"], items))
        for training, row in picks.items()
    ]
    if context.config.evaluate.suites and not trainings:
        said.append(evaluate_suites.run(context, SuiteOptions(context.config.evaluate.suites)))
    return "\n".join(said)


def check(context: Context) -> None:
    """Raise UsageError or ConfigError, hours before, for a benchmark that cannot be used."""
    evaluate_suites.load_all(context, SuiteOptions(context.config.evaluate.suites))


def _picked(context: Context, training: Training) -> dict[str, Any]:
    rows = context.store.query(
        "SELECT * FROM checkpoint WHERE picked AND training = ?", [training.name]
    )
    if not rows:
        raise StageError(
            f"no checkpoint of {training.name} has been picked",
            where=str(training.home(context.folder)),
            fix=f"localism pick --run {context.folder.name}{training.option()}",
        )
    return rows[0]


def settle(context: Context, training: Training, picked: str, items: Sequence[HeldOutItem]) -> str:
    """Score base and picked checkpoint on test, and the paired difference between them."""
    store, config = context.store, context.config
    models = [BASE, picked]
    fought = battles(store, models, items, both=config.both_orders())
    comparison = compare(
        fought,
        seed=config.seed,
        resamples=config.pick.bootstrap,
        phi_calibrated=judge_slope(context, training),
    )
    difference = paired_difference(fought.preference[1], fought.preference[0], seed=config.seed)
    found = list(scores.judged(comparison, "test"))
    found.append(scores.gain(difference, picked, BASE, "test"))
    for model_id in models:
        found += scores.counted(store, model_id, "test", items)
    references = {item.mix_id: item.reference for item in items}
    found += scores.of_texts(references, REFERENCE, "test", items)
    if training.name != MAIN:
        # Those of base and reference are what the run's own training makes of them.
        found = [score for score in found if score.model_id == picked]
    scores.write(store, "test", found, training.name)
    base, best = (score.win_rate.value for score in comparison.scores)
    return _summary(picked, best, base, difference)


def judge_slope(context: Context, training: Training) -> float | None:
    """The judge's length slope as the checkpoints on dev show it; None where they are too few.

    Two models on test cannot tell length from quality; the dev pool can, and the slope is the same
    judge's. The difficulty of items cannot be carried over: these are other items.
    """
    store = context.store
    rows = store.query(
        "SELECT checkpoint_id FROM checkpoint WHERE training = ? ORDER BY epoch", [training.name]
    )
    pool = battles(
        store,
        [row["checkpoint_id"] for row in rows],
        held_out(store, "dev"),
        both=context.config.both_orders(),
    )
    if int(pool.scored.any(axis=1).sum()) < FEW_MODELS:
        return None
    return length_controlled(pool, **calibrated(store)).phi_mean


def _summary(
    picked: str, best: float | None, base: float | None, difference: PairedDifference
) -> str:
    """epoch-06 47.3 against base 3.1 on 58 unseen prompts: +44.2 points (95% CI 38.0 to 50.1)."""
    asked = difference.n + difference.unscored
    if difference.value is None:
        return f"no verdict: none of {number_of(asked, 'unseen prompt')} has both models scored"
    prompts = number_of(difference.n, "unseen prompt")
    text = f"{picked} {best:.1f} against base {base:.1f} on {prompts}: "
    text += f"{difference.value:+.1f} points"
    beside = []
    if difference.low is not None:
        beside.append(f"95% CI {difference.low:.1f} to {difference.high:.1f}")
    if difference.unscored:
        beside.append(f"{difference.unscored} unscored, not counted")
    return f"{text} ({'; '.join(beside)})" if beside else text
