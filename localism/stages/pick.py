"""Stage pick: checkpoints and dev prompts -> answers, judgments, scores, and the chosen checkpoint.

One student engine answers for every checkpoint by swapping weights; one judge engine, after it or
beside it, compares every answer with the teacher's response. The pick is the highest
length-controlled win rate; checkpoints that these prompts cannot tell from it are its tie set. Its
score here is optimistic, because it was chosen by it: stage evaluate measures it on other prompts.
The judge's own taste for length is measured on rewritten references (pick_calibration.py). Several
trainings (--on SET) are picked from one by one, and share the engines.

Alone: localism pick --run NAME
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from localism.context import Context
from localism.errors import StageError
from localism.judging import scores
from localism.judging.calibration import calibrated
from localism.judging.heldout import HeldOutItem, answer_all, held_out, unanswered
from localism.judging.pairwise import battles, judge_all, unjudged
from localism.judging.picking import Comparison, compare
from localism.paths import embedded
from localism.progress import Progress
from localism.prompting.packs import load_pack
from localism.records import Sampling, Split
from localism.serving.client import Client
from localism.serving.crew import for_each
from localism.serving.server import serve
from localism.serving.swap import check_fits
from localism.stages.pick_beside import Beside, beside
from localism.stages.pick_calibration import Calibration
from localism.stages.pick_keep import REMOVED, discard, removed_weights
from localism.stages.train_plan import chat_template_file
from localism.tables import number_of
from localism.training.sets import Training, main_training


@dataclass(frozen=True)
class Contestant:
    """A model whose answers are compared with the teacher's."""

    model_id: str
    """A checkpoint_id, or 'base'."""
    folder: Path
    """Its weights, in the student's architecture."""


def run(context: Context, trainings: Sequence[Training] = ()) -> str:
    """Answer, judge and score the dev prompts for every checkpoint; mark the pick and its ties."""
    chosen = trainings or [main_training(context.config)]
    checkpoints = {training: _checkpoints(context, training) for training in chosen}
    contestants = [
        Contestant(row["checkpoint_id"], context.folder / row["path"])
        for rows in checkpoints.values()
        for row in rows
    ]
    items = items_of(context, "dev")
    calibration = Calibration(context, items)
    asyncio.run(contest(context, "pick", "dev", contestants, items, calibration))
    calibration.settle()
    return "\n".join(
        training.named(choose(context, training, rows, items) + _discarded(context, training))
        for training, rows in checkpoints.items()
    )


def _discarded(context: Context, training: Training) -> str:
    lost = discard(context, training)
    return f"; weights of {number_of(lost, 'checkpoint')} removed" if lost else ""


def _checkpoints(context: Context, training: Training) -> list[dict[str, Any]]:
    """Its checkpoints by epoch; StageError when there is none."""
    rows = context.store.query(
        "SELECT * FROM checkpoint WHERE training = ? ORDER BY epoch", [training.name]
    )
    if not rows:
        raise StageError(
            f"there is no checkpoint of {training.name} to pick from",
            where=str(training.home(context.folder)),
            fix=f"localism train --run {context.folder.name}{training.option()}",
        )
    return rows


def items_of(context: Context, split: Split) -> list[HeldOutItem]:
    """The held-out items of a split; StageError when curate accepted none."""
    items = held_out(context.store, split)
    if not items:
        raise StageError(
            f"no accepted example is left in split {split}",
            where=str(context.folder),
            fix=f"plan more with --set mix.{split}=N in a new run; view rejections says why "
            "those of this run were rejected",
        )
    return items


# ---- answers and judgments -----------------------------------------------------------------


async def contest(
    context: Context,
    stage: str,
    split: Split,
    contestants: Sequence[Contestant],
    items: Sequence[HeldOutItem],
    calibration: Calibration | None = None,
) -> None:
    """Collect every answer and judgment that is missing; an engine with nothing to do stays off.

    Judge and student work at once where neither has to share (pick_beside.py).
    """
    missing = _missing(context, contestants, items)
    both = context.config.both_orders()
    if not missing and not calibration and not unjudged(context.store, split, both=both):
        return
    if calibration:
        await calibration.rewrite()
    shared = beside(context)
    work = _Work(context, stage, split, len(contestants) * len(items), shared, asyncio.Queue())
    answering, judging = partial(_answer, work, missing), partial(_judge, work, calibration)
    await for_each((answering, judging), lambda part: part(), 2 if shared.is_on else 1)


@dataclass
class _Work:
    """What answering and judging have in common."""

    context: Context
    stage: str
    split: Split
    answers: int
    """Of all contestants to all items."""
    shared: Beside
    """Whether both are done at once."""
    came: asyncio.Queue[bool]
    """True for each contestant that has answered, and in the end False."""


def _missing(
    context: Context, contestants: Sequence[Contestant], items: Sequence[HeldOutItem]
) -> list[tuple[Contestant, list[HeldOutItem]]]:
    """Who has which items left to answer; ConfigError, StageError for weights that can't be had."""
    every = [(one, unanswered(context.store, one.model_id, items)) for one in contestants]
    missing = [(contestant, unasked) for contestant, unasked in every if unasked]
    for contestant, _ in missing:  # now, rather than after hours of answers
        if contestant.folder.name == REMOVED:
            raise removed_weights(contestant.model_id)
        check_fits(embedded(context.config.student.path), contestant.folder)
    return missing


async def _answer(work: _Work, missing: Sequence[tuple[Contestant, list[HeldOutItem]]]) -> None:
    context, student = work.context, work.context.config.student
    sampling = Sampling(student.temperature, student.top_p, student.max_tokens)
    done = work.answers - sum(len(unasked) for _, unasked in missing)
    template = chat_template_file(context)
    at_once = max((len(unasked) for _, unasked in missing), default=0)
    async with serve(
        context,
        "student",
        work.stage,
        chat_template=template,
        gpus=work.shared.student,
        conversations=at_once,
    ) as client:
        tally = Tally(context.progress, client, "answers", done, work.answers)
        add = (lambda: None) if work.shared.is_on else tally.add  # judgments follow, and are shown
        for contestant, unasked in missing:
            await client.load_weights(contestant.folder)
            await answer_all(
                client, context.store, contestant.model_id, work.split, unasked, sampling, add
            )
            work.came.put_nowait(True)
    work.came.put_nowait(False)


async def _judge(work: _Work, calibration: Calibration | None) -> None:
    """Judge what has been answered, together, until no more answers come."""
    context, split, both = work.context, work.split, work.context.config.both_orders()
    pack, kind = load_pack(context.config.prompts.pack), context.config.judge.kind
    judged = context.store.value("SELECT count(*) FROM judgment WHERE split = ?", [split])
    async with serve(context, "judge", work.stage, gpus=work.shared.judge) as client:
        if calibration:
            await calibration.judge(client)
        tally = Tally(context.progress, client, "judgments", judged, work.answers * (1 + both))
        more = True
        while more:
            more = await work.came.get()
            while not work.came.empty():
                more = work.came.get_nowait()
            pairings = unjudged(context.store, split, both=both)
            if not more:
                tally.total = tally.done + len(pairings)
            await judge_all(client, context.store, pack, split, pairings, tally.add, kind=kind)


@dataclass
class Tally:
    """Counts finished rows and shows them."""

    progress: Progress
    client: Client
    unit: str
    done: int
    total: int

    def add(self) -> None:
        self.done += 1
        detail = f"{self.client.tokens_per_second():,.0f} tok/s"
        self.progress.update(self.done, self.total, unit=self.unit, detail=detail)


# ---- the choice ----------------------------------------------------------------------------


def choose(
    context: Context,
    training: Training,
    checkpoints: Sequence[dict[str, Any]],
    items: Sequence[HeldOutItem],
) -> str:
    """Score a training's checkpoints on dev, mark the pick and its tie set, and say so in a line.

    Raises StageError, with the reasons, when the judge scored nothing.
    """
    store, config = context.store, context.config
    model_ids = [row["checkpoint_id"] for row in checkpoints]
    comparison = compare(
        battles(store, model_ids, items, both=config.both_orders()),
        seed=config.seed,
        resamples=config.pick.bootstrap,
        **calibrated(store),
    )
    found = list(scores.judged(comparison, "dev"))
    for model_id in model_ids:
        found += scores.counted(store, model_id, "dev", items)
    scores.write(store, "dev", found, training.name)
    best = comparison.pick.best
    tied = [model_ids[index] for index in comparison.pick.tied if index != best]
    store.execute(
        "UPDATE checkpoint SET picked = coalesce(checkpoint_id = ?, false), "
        "tied = list_contains(?, checkpoint_id) WHERE training = ?",
        [None if best is None else model_ids[best], tied, training.name],
    )
    if best is None:
        raise _nothing_scored(context)
    others = store.query("SELECT * FROM picks WHERE training = ?", [training.name])[0]
    return _summary(comparison, best, checkpoints, others)


def _summary(
    comparison: Comparison,
    best: int,
    checkpoints: Sequence[dict[str, Any]],
    others: dict[str, Any],
) -> str:
    """epoch 6 of 8: LC win rate 47.1 (95% CI 41.9 to 52.3), tied with epochs 5, 7."""
    score = comparison.scores[best]
    text = (
        f"epoch {checkpoints[best]['epoch']} of {len(checkpoints)}: "
        f"LC win rate {score.lc_win_rate:.1f}"
    )
    if score.lc_interval.low is not None:
        text += f" (95% CI {score.lc_interval.low:.1f} to {score.lc_interval.high:.1f})"
    tied = [str(checkpoints[m]["epoch"]) for m in comparison.pick.tied if m != best]
    if tied:
        text += f", tied with epoch{'s' if len(tied) > 1 else ''} {', '.join(tied)}"
    for column, criterion in (("by_dev_loss", "dev loss"), ("by_win_rate", "raw win rate")):
        if others[column] not in (None, checkpoints[best]["epoch"]):
            text += f"; {criterion} alone would pick epoch {others[column]}"
    unscored = sum(one.win_rate.unscored for one in comparison.scores)
    if unscored:
        text += f"; {number_of(unscored, 'answer')} unscored, not counted"
    return text


def _nothing_scored(context: Context) -> StageError:
    """No checkpoint has a scored answer: the commonest reasons, from answers and judgments."""
    rows = context.store.query(
        """
        SELECT reason, count(*) AS n FROM (
            SELECT reason FROM answer WHERE split = 'dev'
            UNION ALL SELECT reason FROM judgment WHERE split = 'dev'
        ) WHERE reason IS NOT NULL GROUP BY reason ORDER BY n DESC, reason LIMIT 3
        """
    )
    reasons = "; ".join(f"{number_of(row['n'], 'time')}: {row['reason']}" for row in rows)
    return StageError(
        "no answer of any checkpoint could be scored, so there is nothing to pick by",
        where=f"{context.folder}: {reasons}",
        fix="name another judge or prompt pack in a new run: localism fork "
        f"{context.folder.name} NEW --set judge.path=... (or prompts.pack=...)",
    )
