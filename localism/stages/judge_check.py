"""How far a judge can be trusted: the run's own, or another one that is asked beside it.

Agreement with people (where a file of preferences is given), position bias, length slope, self-
preference, test-retest, and what attacks on it win. What the corpus has is read; the rest is asked
in one engine, every call a turn of the ledger, so a check that was cut off goes on where it was.
Results are rows of table judge_check. Another judge is asked about the answers to the run's dev
prompts too, so that the two can be compared (judge_settle.py).

Alone: localism judge check --run NAME
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from localism.config import Config
from localism.context import Context
from localism.errors import UsageError
from localism.judging.calibration import kinship
from localism.judging.checks import Check
from localism.judging.heldout import HeldOutItem, held_out
from localism.judging.pairwise import Pairing
from localism.judging.preference_files import RatedPairs, read_rated_pairs
from localism.judging.verdicts import Corpus, both_ways, judges, shared
from localism.paths import embedded
from localism.reader import Table, read
from localism.serving.server import serve
from localism.stages import judge_settle
from localism.stages.evaluate_suites import judge_name, with_judge
from localism.stages.judge_questions import (
    Plan,
    ask_all,
    attacked,
    corpus_of,
    own_pairs,
    pairs_of,
    questions,
    retest,
)
from localism.stages.pick_calibration import JUDGE, Calibration
from localism.store import Store
from localism.tables import number_of

STAGE = "judge-check"
COLUMNS = ("judge", "metric", "value", "low", "high", "n", "unscored", "note")
ITEMS, RETESTED = 40, 60
"""So many prompts, and pairs that are asked again, unless there is a limit."""


@dataclass(frozen=True)
class Asked:
    """What `localism judge check` was asked for."""

    judge: str | None = None
    """Folder of another judge than the run's own."""
    preferences: Path | None = None
    """File of what people preferred."""
    limit: int | None = None
    """Most pairs or prompts of each check."""
    only: tuple[str, ...] = tuple(judge_settle.WAYS)
    """Which checks."""


def run(context: Context, asked: Asked) -> tuple[str, ...]:
    """Measure and write down; returns the judges that table judge_check now says more of.

    Raises ConfigError for a bad file or model folder, before an engine is started.
    """
    own, kin = judge_name(context.config), kinship(context.config)
    return measure(_with_second(context, asked.judge, own), own, kin, asked)


def measure(context: Context, own: str, kin: str | None, asked: Asked) -> tuple[str, ...]:
    """The same for the judge of `context`; own and kin are name and kinship of the run's own."""
    rated = read_rated_pairs(asked.preferences) if asked.preferences else None
    plan = _plan(context, asked, Plan(judge_name(context.config), own, kin, asked.only), rated)
    _say_costs(context, plan)
    asyncio.run(_ask(context, plan))
    found = list(judge_settle.settle(context, plan))
    _write(context, found)
    return tuple(dict.fromkeys(judge for judge, _ in found))


def _with_second(context: Context, path: str | None, own: str) -> Context:
    """The context with the judge that is checked; UsageError where its name is the other's."""
    if path is None:
        return context
    second = with_judge(context, path)
    first = context.config.served("judge").path
    if first and embedded(first).resolve() == embedded(path).resolve():
        return context
    if judge_name(second.config) == own:
        raise UsageError(
            f"two judges cannot both be called {own!r}, the name of the folder",
            where=f"--judge {path}",
            fix="give it through a symbolic link with another name",
        )
    return second


# ---- what is asked -------------------------------------------------------------------------


def _plan(context: Context, asked: Asked, plan: Plan, rated: RatedPairs | None) -> Plan:
    config, judge, own = context.config, plan.judge, plan.own
    is_letter = config.judge.kind == "letter"
    if rated and "agreement" in asked.only:
        plan.rated = _sampled(rated, asked.limit, config.seed)
        plan.agreement = questions(pairs_of(plan.rated), both=config.both_orders())
    dev = held_out(context.store, "dev")
    items = _drawn([*dev, *held_out(context.store, "test")], asked.limit or ITEMS, config.seed)
    pairs = own_pairs(context.store, _drawn(dev, asked.limit or ITEMS, config.seed))
    if pairs and judge != own and {"second_judge", "self_preference"} & set(asked.only):
        plan.second = questions(pairs, both=is_letter, known_as=judge)
    _plan_retest(context, plan, pairs, asked.limit or RETESTED)
    if "injection" in asked.only and items:
        plan.attacked = attacked(items, both=config.both_orders())
    if "length_slope" in asked.only and not _slope_is_known(context, plan):
        plan.calibration = _calibration(context, dev, asked.limit)
    return plan


def _plan_retest(context: Context, plan: Plan, pairs: Sequence[Pairing], count: int) -> None:
    """Pairs to ask twice; once, for the bias of positions, where nothing tells it yet."""
    config, is_letter = context.config, context.config.judge.kind == "letter"
    if not pairs:
        return
    if "retest" in plan.only:
        plan.retest = retest(pairs, count, both=is_letter, seed=config.seed)
        plan.pairs = plan.retest.first
    elif "position_bias" in plan.only and is_letter and not plan.second:
        if not len(both_ways(corpus_of(context, plan.own), plan.judge)[0]):
            plan.pairs = retest(pairs, count, both=True, seed=config.seed).first


def _drawn(items: Sequence[HeldOutItem], count: int, seed: int) -> list[HeldOutItem]:
    """A seeded sample, in the order of the plan."""
    chosen = Random(f"judge check {seed}").sample(range(len(items)), min(count, len(items)))
    return [items[place] for place in sorted(chosen)]


def _sampled(rated: RatedPairs, limit: int | None, seed: int) -> RatedPairs:
    if limit is None or limit >= len(rated.pairs):
        return rated
    chosen = sorted(Random(f"judge check {seed}").sample(range(len(rated.pairs)), limit))
    return replace(rated, pairs=tuple(rated.pairs[place] for place in chosen))


def _slope_is_known(context: Context, plan: Plan) -> bool:
    """Whether stage pick wrote down what it found of this judge, if only why there is nothing."""
    return plan.judge == plan.own and bool(
        context.store.value(
            "SELECT count(*) FROM score WHERE model_id = ? AND metric = 'length_slope'", [JUDGE]
        )
    )


def _calibration(
    context: Context, dev: Sequence[HeldOutItem], limit: int | None
) -> Calibration | None:
    config = context.config
    if not dev:
        return None
    most = min(config.pick.calibration, limit or config.pick.calibration)
    pick = config.pick.model_copy(update={"calibration": most})
    return Calibration(replace(context, config=config.model_copy(update={"pick": pick})), dev)


def _say_costs(context: Context, plan: Plan) -> None:
    """How often the judge is asked at most, before it is."""
    each = 1 if context.config.judge.kind == "letter" else 2
    counts = {
        name: each * sum(len(one.pairings) for one in some) for name, some in plan.asked().items()
    }
    if plan.calibration and not plan.calibration.impossible:
        counts["length_slope"] = each * plan.calibration.calls
    if not counts:
        context.progress.say(f"judge {plan.judge}: nothing to ask")
        return
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    context.progress.say(
        f"judge {plan.judge}: at most {number_of(sum(counts.values()), 'call')} ({parts}), fewer "
        "where the ledger has them"
    )


async def _ask(context: Context, plan: Plan) -> None:
    asked = [one for some in plan.asked().values() for one in some]
    if plan.calibration:
        await plan.calibration.rewrite()
    elif not asked:
        return
    known_as = None if plan.judge == plan.own else f"judge {plan.judge}"
    async with serve(context, role="judge", stage=STAGE, known_as=known_as) as client:
        if plan.calibration:
            await plan.calibration.judge(client)
        await ask_all(context, client, asked)


def _write(context: Context, found: Sequence[tuple[str, Check]]) -> None:
    """In place of what was known; what was measured stays where nothing could be this time."""
    store = context.store
    with store.transaction():
        for judge, check in found:
            store.execute(
                "DELETE FROM judge_check WHERE judge = ? AND metric = ? AND (value IS NULL OR ?)",
                [judge, check.metric, check.value is not None],
            )
        # A key that is still there is left alone.
        store.add_rows("judge_check", [{"judge": judge, **asdict(check)} for judge, check in found])


# ---- what came of it -----------------------------------------------------------------------


def table(store: Store, names: Sequence[str]) -> Table:
    """What is known of these judges."""
    rows = store.query(
        "SELECT * FROM judge_check WHERE list_contains(?, judge) ORDER BY judge, metric",
        [list(names)],
    )
    return Table(list(COLUMNS), [[_rounded(row[name]) for name in COLUMNS] for row in rows])


def compare(folder: Path, config: Config, first: str, second: str) -> Table:
    """Two judges on every suite that both judged; UsageError where there is none."""
    corpus = Corpus(lambda sql: read(folder, sql).as_dicts(), judge_name(config), config.judge.kind)
    known = judges(corpus)
    for name in (first, second):
        if name not in known:
            raise UsageError(
                f"no judge named {name!r} has judged anything in this run",
                where=str(folder),
                fix=f"name two of: {', '.join(known) or 'none yet'}; localism judge check --judge "
                "DIR asks another one",
            )
    found = [
        check
        for suite in shared(corpus, first, second)
        for check in judge_settle.compared(
            suite, second, seed=config.seed, resamples=config.pick.bootstrap
        )
    ]
    if first == second or not found:
        raise UsageError(
            f"no answers were judged by both {first} and {second}" if first != second
            else "these are one judge",
            where=str(folder),
            fix=f"localism judge check --run {folder.name} --judge DIR --only second_judge",
        )  # fmt: skip
    rows = [{"judge": first, **asdict(check)} for check in found]
    return Table(list(COLUMNS), [[_rounded(row[name]) for name in COLUMNS] for row in rows])


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
