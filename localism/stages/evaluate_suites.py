"""Benchmarks for the picked model, the base, any checkpoint or any model folder.

Models answer in one student engine, by swapping weights where they have its architecture; one judge
engine, after it or beside it (pick_beside.py), reads what they wrote. All suites of a call share
both engines. What a benchmark asks
and how it is scored is its protocol's business (localism/suites/); every answer and judgment is a
row, so a call that was cut off goes on where it was.

Alone: localism evaluate --run NAME --suite alpacaeval
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from localism import assets, weights
from localism.config import Config, Judge
from localism.context import Context
from localism.errors import ConfigError, UsageError
from localism.judging.calibration import calibrated
from localism.paths import embedded
from localism.prompting.packs import load_pack
from localism.records import Sampling, SuiteOptions
from localism.serving.crew import for_each
from localism.serving.server import serve
from localism.serving.swap import check_fits
from localism.stages import evaluate_lm
from localism.stages.pick import Contestant, Tally
from localism.stages.pick_beside import Beside, beside
from localism.stages.pick_keep import REMOVED, removed_weights
from localism.stages.train_plan import TEMPLATE
from localism.suites import prompts, rows
from localism.suites.known import LM_EVAL
from localism.suites.records import Item, Judging, Question, SuiteScore
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
    known_as = None if asked.judge is None else f"judge {judge_name(context.config)}"
    asyncio.run(_contest(_Work(context, staged, contestants, judging, known_as)))
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


@dataclass
class _Work:
    """What answering and judging have in common."""

    context: Context
    staged: Sequence[Staged]
    contestants: Sequence[Contestant]
    judging: Judging
    known_as: str | None
    """What table asset calls a judge that is not the run's own."""
    shared: Beside = Beside(False)
    """Whether both are done at once."""
    came: asyncio.Queue[tuple[Staged, str] | None] = field(default_factory=asyncio.Queue)
    """A suite and a model that has answered it whole; None when no more will."""

    def missing(self, suite: Staged, one: Contestant) -> list[tuple[Item, int]]:
        """Conversations that are not finished."""
        return rows.unanswered(self.context.store, suite, one.model_id)

    def unjudged(self, suite: Staged, models: Sequence[str]) -> list[Question]:
        """Questions to the judge that have no judgment."""
        judge = judge_name(self.context.config)
        return rows.unjudged(self.context.store, suite, models, judge, self.judging)


async def _contest(work: _Work) -> None:
    """Every answer and judgment that is missing; an engine with nothing to do stays off."""
    models = [one.model_id for one in work.contestants]
    pairs = [(suite, one) for suite in work.staged for one in work.contestants]
    absent = [one for suite, one in pairs if work.missing(suite, one)]
    if not absent and not any(work.unjudged(suite, models) for suite in work.staged):
        return
    groups = _by_architecture(work.context, list(dict.fromkeys(absent)))
    if len(groups) == 1:  # of several, one may need the GPUs that the judge would have
        work.shared = beside(work.context)
    for suite, one in pairs:
        if not work.missing(suite, one):
            work.came.put_nowait((suite, one.model_id))
    parts = (partial(_answer, work, groups), partial(_judge, work))
    await for_each(parts, lambda part: part(), 2 if work.shared.is_on else 1)


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


async def _answer(work: _Work, groups: Sequence[Sequence[Contestant]]) -> None:
    """Every answer that is missing; models of another architecture have an engine of their own."""
    for group in groups:
        await _answer_in_one_engine(work, group)
    work.came.put_nowait(None)


async def _answer_in_one_engine(work: _Work, contestants: Sequence[Contestant]) -> None:
    config, folder = work.context.config, contestants[0].folder
    student = config.student.model_copy(update={"path": str(folder)})
    context = replace(work.context, config=config.model_copy(update={"student": student}))
    template = None if weights.has_chat_template(folder) else TEMPLATE
    usual = Sampling(student.temperature, student.top_p, student.max_tokens)
    render = prompts.load(config.evaluate.judge_prompts).render
    asked = [
        (one, suite, missing)
        for one in contestants
        for suite in work.staged
        if (missing := work.missing(suite, one))
    ]
    async with serve(
        context,
        role="student",
        stage=STAGE,
        chat_template=template,
        gpus=work.shared.student,
        conversations=max(len(missing) for _, _, missing in asked),
    ) as client:
        tally = Tally(context.progress, client, "answers", 0, sum(len(each[2]) for each in asked))
        add = (lambda: None) if work.shared.is_on else tally.add  # judgments follow, and are shown
        for one, suite, missing in asked:
            await client.load_weights(one.folder)
            await rows.answer_all(
                client, context.store, suite, one.model_id, missing, usual, render, add
            )
            work.came.put_nowait((suite, one.model_id))


async def _judge(work: _Work) -> None:
    """Judge what has been answered, together, until no more answers come."""
    context, judge = work.context, judge_name(work.context.config)
    async with serve(
        context, role="judge", stage=STAGE, known_as=work.known_as, gpus=work.shared.judge
    ) as client:
        tally = Tally(context.progress, client, "judgments", 0, 0)
        more = True
        while more:
            came = [await work.came.get()]
            while not work.came.empty():
                came.append(work.came.get_nowait())
            more = None not in came
            models: dict[str, list[str]] = {}
            for suite, model in filter(None, came):
                models.setdefault(suite.name, []).append(model)
            asked = [
                (suite, work.unjudged(suite, models[suite.name]))
                for suite in work.staged
                if suite.name in models
            ]
            tally.total += sum(len(questions) for _, questions in asked)
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
