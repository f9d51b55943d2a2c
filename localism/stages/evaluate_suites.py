"""Benchmarks for the picked model, the base, any checkpoint or any model folder.

Models answer in one student engine, by swapping weights where they have its architecture; then one
judge engine reads what they wrote. All suites of a call share both engines. What a benchmark asks
and how it is scored is its protocol's business (localism/suites/); every answer and judgment is a
row, so a call that was cut off goes on where it was.

Alone: localism evaluate --run NAME --suite alpacaeval
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from localism import assets, weights
from localism.config import Config, Judge
from localism.context import Context
from localism.errors import ConfigError, UsageError
from localism.judging.calibration import calibrated
from localism.paths import embedded
from localism.prompting.packs import load_pack
from localism.records import Sampling, SuiteOptions
from localism.serving.server import serve
from localism.serving.swap import check_fits
from localism.stages import evaluate_lm
from localism.stages.pick import Contestant, Tally
from localism.stages.pick_keep import REMOVED, removed_weights
from localism.stages.train_plan import TEMPLATE
from localism.suites import prompts, rows
from localism.suites.known import LM_EVAL
from localism.suites.records import Judging, SuiteScore
from localism.suites.staging import Staged, load
from localism.tables import number_of

STAGE = "evaluate"
BASE, PICKED = "base", "picked"


def run(context: Context, asked: SuiteOptions) -> str:
    """Answer, judge and score; a line for each suite and model.

    Raises UsageError for a suite or model that there is not, ConfigError for files that are not
    what they should be, before an engine is started.
    """
    staged = load_all(context, asked)
    contestants = [_contestant(context, name) for name in dict.fromkeys(asked.models)]
    context = with_judge(context, asked.judge)
    judging = _judging(context)
    _check_prompts(context, staged)
    for suite in staged:
        rows.note(context.store, suite)
    asyncio.run(_answer(context, staged, contestants))
    asyncio.run(_judge(context, staged, contestants, judging, is_own=asked.judge is None))
    said = [_settle(context, suite, judging) for suite in staged]
    if LM_EVAL in asked.suites:
        said.append(evaluate_lm.run(context, asked, contestants))
    return "\n".join(said)


def load_all(context: Context, asked: SuiteOptions) -> list[Staged]:
    """The benchmarks asked for; UsageError or ConfigError for one that cannot be used.

    Not lm-eval, which is no suite of ours, but it is looked at too.
    """
    if LM_EVAL in asked.suites:
        evaluate_lm.check(context, asked)
    names = [name for name in dict.fromkeys(asked.suites) if name != LM_EVAL]
    return [_load(context, name, asked) for name in names]


def _load(context: Context, name: str, asked: SuiteOptions) -> Staged:
    folder = Path(context.config.evaluate.staged)
    may_sample = asked.may_sample or context.config.is_rehearsal()
    found = load(name, folder, may_sample=may_sample)
    if asked.limit is None or asked.limit >= len(found.items):
        return found
    note = f"only the first {asked.limit} of {len(found.items)} items"
    items = found.items[: asked.limit]
    return replace(found, items=items, note="; ".join(filter(None, (found.note, note))))


# ---- models --------------------------------------------------------------------------------


def _contestant(context: Context, name: str) -> Contestant:
    """The model behind picked, base, a checkpoint_id or a path."""
    if name == BASE:
        return Contestant(BASE, embedded(context.config.student.path))
    wanted = "picked AND training = 'main'" if name == PICKED else "checkpoint_id = ?"
    found = context.store.query(
        f"SELECT checkpoint_id, path FROM checkpoint WHERE {wanted}",
        [] if name == PICKED else [name],
    )
    if found:
        if found[0]["path"] == REMOVED:
            raise removed_weights(found[0]["checkpoint_id"])
        return Contestant(found[0]["checkpoint_id"], context.folder / found[0]["path"])
    folder = embedded(name)
    if name == PICKED or not folder.exists():
        raise _unknown_model(context, name)
    weights.check_model_folder(folder, "--model")
    assets.pin(context.store, assets.of_folder(f"evaluated {folder.resolve().name}", str(folder)))
    return Contestant(folder.resolve().name, folder)


def _unknown_model(context: Context, name: str) -> UsageError:
    if name == PICKED:
        return UsageError(
            "no checkpoint has been picked",
            where=str(context.folder),
            fix=f"localism pick --run {context.folder.name}; or name others with --model",
        )
    known = context.store.query("SELECT checkpoint_id FROM checkpoint ORDER BY training, epoch")
    names = ", ".join([PICKED, BASE, *(row["checkpoint_id"] for row in known)])
    return UsageError(
        f"no model {name!r}",
        where="--model",
        fix=f"name one of {names}; or give the path of a model folder",
    )


def with_judge(context: Context, path: str | None) -> Context:
    """The context with another judge, served as the run's own is."""
    config = context.config
    if path is None:
        return context
    weights.check_model_folder(embedded(path), "--judge", needs_chat_template=True)
    own = config.served("judge").model_dump() | {"path": path, "endpoints": (), "served_name": ""}
    judge = Judge(**{**own, "kind": config.judge.kind, "same_as": ""})
    return replace(context, config=config.model_copy(update={"judge": judge}))


def judge_name(config: Config) -> str:
    """What table suite_judgment calls the judge: its folder's, or its endpoint's, own name."""
    served = config.served("judge")
    return embedded(served.path).name if served.path else served.served_name or "judge"


def _judging(context: Context) -> Judging:
    config = context.config
    judge_prompts = prompts.load(config.evaluate.judge_prompts)
    slope: Mapping[str, float] = {**calibrated(context.store)}  # type: ignore[dict-item]
    return Judging(
        pack=load_pack(config.prompts.pack),
        kind=config.judge.kind,
        both_orders=config.both_orders(),
        render=judge_prompts.render,
        max_tokens=config.evaluate.verdict_tokens,
        structured=config.evaluate.structured,
        seed=config.seed,
        resamples=config.pick.bootstrap,
        length_slope=slope,
    )


def _check_prompts(context: Context, staged: Sequence[Staged]) -> None:
    """The judge's prompts of each suite are whole, and those that this run was judged with before.

    Each suite has a pin of its own: another's prompts may change.
    """
    folder = context.config.evaluate.judge_prompts
    judge_prompts = prompts.load(folder)
    for suite in staged:
        needed = suite.protocol.PROMPTS
        judge_prompts.check(needed)
        if not needed:
            continue
        role = f"judge prompts of {suite.protocol.NAME}"
        fingerprint = judge_prompts.fingerprint(needed)
        beside = {"path": folder, "parameters": None, "bytes": None}
        asset = {"asset_id": role, "role": role, "fingerprint": fingerprint, **beside}
        assets.pin(context.store, asset)


# ---- answers and judgments -----------------------------------------------------------------


async def _answer(
    context: Context, staged: Sequence[Staged], contestants: Sequence[Contestant]
) -> None:
    """Every answer that is missing; models of another architecture have an engine of their own."""
    missing = [
        one
        for one in contestants
        if any(rows.unanswered(context.store, suite, one.model_id) for suite in staged)
    ]
    for group in _by_architecture(context, missing):
        await _answer_in_one_engine(context, staged, group)


def _by_architecture(context: Context, contestants: Sequence[Contestant]) -> list[list[Contestant]]:
    base = embedded(context.config.student.path)
    alike: list[Contestant] = []
    others: list[list[Contestant]] = []
    for one in contestants:
        try:
            check_fits(base, one.folder)
            alike.append(one)
        except ConfigError:
            others.append([one])
    return [group for group in (alike, *others) if group]


async def _answer_in_one_engine(
    context: Context, staged: Sequence[Staged], contestants: Sequence[Contestant]
) -> None:
    config = context.config
    folder = contestants[0].folder
    student = config.student.model_copy(update={"path": str(folder)})
    context = replace(context, config=config.model_copy(update={"student": student}))
    template = None if weights.has_chat_template(folder) else TEMPLATE
    usual = Sampling(student.temperature, student.top_p, student.max_tokens)
    render = prompts.load(config.evaluate.judge_prompts).render
    asked = [
        (one, suite, rows.unanswered(context.store, suite, one.model_id))
        for one in contestants
        for suite in staged
    ]
    at_once = max((len(conversations) for _, _, conversations in asked), default=0)
    async with serve(
        context, role="student", stage=STAGE, chat_template=template, conversations=at_once
    ) as client:
        total = sum(len(conversations) for _, _, conversations in asked)
        tally = Tally(context.progress, client, "answers", 0, total)
        for one, suite, conversations in asked:
            if conversations:
                await client.load_weights(one.folder)
                await rows.answer_all(
                    client, context.store, suite, one.model_id, conversations, usual, render,
                    tally.add,
                )  # fmt: skip


async def _judge(
    context: Context,
    staged: Sequence[Staged],
    contestants: Sequence[Contestant],
    judging: Judging,
    *,
    is_own: bool,
) -> None:
    models, judge = [one.model_id for one in contestants], judge_name(context.config)
    asked = [
        (suite, rows.unjudged(context.store, suite, models, judge, judging)) for suite in staged
    ]
    total = sum(len(questions) for _, questions in asked)
    if not total:
        return
    known_as = None if is_own else f"judge {judge}"
    async with serve(context, role="judge", stage=STAGE, known_as=known_as) as client:
        tally = Tally(context.progress, client, "judgments", 0, total)
        for suite, questions in asked:
            await rows.judge_all(client, context.store, suite, judge, questions, tally.add)


# ---- scores --------------------------------------------------------------------------------


def _settle(context: Context, suite: Staged, judging: Judging) -> str:
    """Score every model that was ever evaluated on this suite, by each judge; a line for this one.

    All of them, because a length-controlled win rate belongs to the pool that it was fitted on, and
    over the items of this call, which table suite describes.
    """
    store, said = context.store, ""
    own = judge_name(context.config)
    rows.drop_scores(store, suite.name)
    for judge, models in rows.evaluated(store, suite).items():
        scores = list(
            suite.protocol.scores(
                suite.items,
                rows.answers_of(store, suite, models),
                rows.judgments_of(store, suite, models, judge),
                judging,
            )
        )
        rows.replace_scores(store, suite.name, judge, scores)
        said = _summary(suite, scores) if judge == own else said
    return said or f"{suite.name}: nothing was judged"


def _summary(suite: Staged, scores: Sequence[SuiteScore]) -> str:
    """mt-bench score of 80 items: base 3.1 (2.8 to 3.4), epoch-11 5.2 (4.9 to 5.5)."""
    main = suite.protocol.HEADLINE
    shown = [
        f"{score.model_id} {'–' if score.value is None else format(score.value, '.1f')}"
        + (f" ({score.low:.1f} to {score.high:.1f})" if score.low is not None else "")
        for score in scores
        if score.metric == main and not score.part
    ]
    sample = " (sample, not the benchmark)" if suite.is_sample else ""
    asked = f"{main.replace('_', ' ')} of {number_of(len(suite.items), 'item')}"
    return f"{suite.name}{sample} {asked}: {', '.join(shown)}"
