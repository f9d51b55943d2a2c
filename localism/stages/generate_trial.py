"""The trial of stage generate: a minute of the plan itself -> what the rest will take.

Its conversations are ordinary ones: they are in the ledger, and the stage goes on from them.
Alone: localism generate --calibrate --run NAME
"""

import asyncio
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from localism import egress
from localism.calibration import Amount, Forecast, Lengths, Range, Steady, Trial, steady_part
from localism.context import Context
from localism.embedded.world import QUERY_TYPES, TOPICS
from localism.errors import OutOfTime, StageError
from localism.power import Meter, Power
from localism.progress import Progress, duration
from localism.prompting.packs import load_pack
from localism.records import STAGES, Mix
from localism.serving.client import Client
from localism.serving.crew import beside
from localism.serving.server import serve
from localism.stages import mix
from localism.stages.generate import Writer, in_order, outcome, unwritten
from localism.stages.mix import load_mixes
from localism.tables import number_of

JOULES_PER_KWH = 3.6e6
NOTHING = Range(0.0, 0.0, 0.0)
MADE_UP_MIXES = 5_000  # more than any machine begins in a minute
SHOWN_SECONDS = 0.5
AMOUNTS: tuple[Amount, ...] = ("completion_tokens", "prompt_tokens", "seconds")

Facts = dict[str, Any]


def calibrate(context: Context, seconds: float, watts: float | None) -> Facts:
    """Hold conversations of the plan for so long, and predict; see render for what comes out.

    watts: power to count with; None measures it, where this machine serves the teacher. Raises
    StageError when no reply came in the trial.
    """
    mixes = load_mixes(context.store)
    pending = unwritten(context.store, mixes)
    if not pending:
        return _nothing_left(context, len(mixes))
    context.progress.begin(STAGES.index("generate") + 1, len(STAGES), "generate")
    context.store.event("stage_started", "generate")
    facts = asyncio.run(_calibrate(context, mixes, pending, seconds, watts))
    context.store.event("calibrated", "generate", **facts)
    trial = facts["trial"]
    context.progress.end(f"a trial of {duration(trial['seconds'])}: {_done_in_words(trial)}")
    return facts


def made_up_plan(context: Context) -> None:
    """Mixes of everyday skills, for a trial before a run has skills of its own."""
    store = context.store
    for topic, (name, found) in enumerate(TOPICS.items()):
        store.add("cluster", cluster_id=name, name=name, medoid=found.skills[0], size=10)
        for skill in found.skills:
            store.add(
                "skill", skill_id=skill, name=skill, cluster_id=name, rare=False, count=1,
                hdbscan_label=topic, strength=1.0,
            )  # fmt: skip
    for ordinal, (name, definition) in enumerate(QUERY_TYPES.items()):
        store.add(
            "query_type", query_type_id=name, name=name, definition=definition, ordinal=ordinal
        )
    section = context.config.mix.model_copy(
        update={"train": MADE_UP_MIXES, "dev": 0, "test": 0, "unit": "skill"}
    )
    config = context.config.model_copy(update={"mix": section})
    silent = Progress(io.StringIO(), plain=True)  # nobody asked for these mixes
    mix.run(replace(context, config=config, progress=silent))


async def _calibrate(
    context: Context,
    mixes: Sequence[Mix],
    pending: Sequence[Mix],
    seconds: float,
    watts: float | None,
) -> Facts:
    started = time.monotonic()
    async with serve(context, role="teacher", stage="generate") as client:
        await client.ready()
        engine_seconds = time.monotonic() - started if client.engine else 0.0
        trial = Trial(min(time.monotonic() + seconds, context.deadline))
        meter = Meter()
        async with beside(meter.run()):
            await _hold(context, client, mixes, pending, trial)
        steady = steady_part(trial)
    power = Power(watts, "as given by --watts")
    if watts is None:
        power = _measured(context, meter, steady)
    found = _predicted(context, mixes, trial, steady, power)
    found["trial"] |= {"engine_start_seconds": engine_seconds, "in_flight": client.in_flight}
    return found


async def _hold(
    context: Context, client: Client, mixes: Sequence[Mix], pending: Sequence[Mix], trial: Trial
) -> None:
    """The trial itself; what is in flight at its end finishes its turn."""
    keep = partial(context.store.add, "candidate")
    writer = Writer(context, client, mixes, len(mixes) - len(pending), keep, trial)
    ordered = in_order(pending, client.in_flight)
    async with beside(_show(context, writer, trial)):
        try:
            await client.for_each(ordered, writer.write, until=trial.until)
        except OutOfTime:
            pass


async def _show(context: Context, writer: Writer, trial: Trial) -> None:
    """How much of the trial's time is over, and what was done in it."""
    whole = trial.until - trial.began
    while True:
        passed = time.monotonic() - trial.began
        ending = "   what is under way ends its turn" if passed > whole else ""
        context.progress.update(
            int(passed), unit=f"of {whole:,.0f} s", detail=writer.so_far() + ending
        )
        await asyncio.sleep(SHOWN_SECONDS)


def _measured(context: Context, meter: Meter, steady: Steady | None) -> Power:
    urls = context.config.teacher.endpoints
    if not all(egress.is_allowed(urlsplit(url).hostname, ()) for url in urls):
        return Power(None, "the teacher is served by other machines")
    return meter.between(steady.began, steady.ended) if steady else Power(None, "no trial")


# ---- the prediction ------------------------------------------------------------------------


def _predicted(
    context: Context, mixes: Sequence[Mix], trial: Trial, steady: Steady | None, power: Power
) -> Facts:
    left = len(unwritten(context.store, mixes))
    talks = list(trial.talks.values())
    if steady is None:
        raise StageError(
            f"no reply came in a trial of {trial.until - trial.began:.0f} s",
            where=str(context.folder),
            fix="a longer one: --seconds 600",
        )
    lengths = Lengths(talks, [turn.name for turn in load_pack(context.config.prompts.pack).turns])
    stopped = sum(talk.next_turn is not None for talk in talks)
    seed = context.config.seed
    of = {amount: lengths.forecast(amount, left - stopped, seed) for amount in AMOUNTS}
    taken = _seconds_left(of, steady, left)
    return {
        "mixes": len(mixes),
        "mixes_left": left,
        "trial": {
            "seconds": steady.ended - trial.began,
            "ramp_up_seconds": steady.began - trial.began,
            "conversations": len(talks),
            "finished": len(talks) - stopped,
            "turns": sum(heard.is_new for talk in talks for heard in talk.heard),
        },
        "tokens_per_second": steady.tokens_per_second,
        "each": {amount: of[amount].each for amount in AMOUNTS},
        "calls_each": lengths.calls(),
        "each_turn": lengths.turn_means("completion_tokens"),
        "unseen_turns": lengths.unseen,
        "left": {
            "completion_tokens": of["completion_tokens"].left,
            "prompt_tokens": of["prompt_tokens"].left,
            "seconds": taken,
            "kwh": _kwh(taken, power),
        },
        "whole": _whole(context, of, steady, power),
        "power": power._asdict(),
    }


def _seconds_left(of: dict[Amount, Forecast], steady: Steady, left: int) -> Range:
    if not left:
        return NOTHING
    return of["completion_tokens"].left.times(1 / steady.tokens_per_second, _end(of))


def _end(of: dict[Amount, Forecast]) -> float:
    """Seconds more for the end, when the engine runs empty.

    The last conversations to begin go on while fewer and fewer are left beside them: half the time
    of one is counted for that.
    """
    return of["seconds"].each / 2


def _kwh(seconds: Range, power: Power) -> Range | None:
    return None if power.watts is None else seconds.times(power.watts / JOULES_PER_KWH)


def _whole(context: Context, of: dict[Amount, Forecast], steady: Steady, power: Power) -> Facts:
    """What is done and what is left, together."""
    done = context.store.query("""
        SELECT coalesce(sum(completion_tokens), 0)::BIGINT AS completion_tokens,
               coalesce(sum(prompt_tokens), 0)::BIGINT AS prompt_tokens
        FROM turn WHERE stage = 'generate'
    """)[0]
    tokens = {
        "completion_tokens": done["completion_tokens"] + of["completion_tokens"].left.value,
        "prompt_tokens": done["prompt_tokens"] + of["prompt_tokens"].left.value,
    }
    seconds = tokens["completion_tokens"] / steady.tokens_per_second + _end(of)
    kwh = None if power.watts is None else seconds * power.watts / JOULES_PER_KWH
    return {**tokens, "seconds": seconds, "kwh": kwh}


def _nothing_left(context: Context, mixes: int) -> Facts:
    return {"mixes": mixes, "mixes_left": 0, "outcome": outcome(context.store)}


# ---- for people ----------------------------------------------------------------------------


def render(facts: Facts) -> str:
    """The facts as a few lines."""
    if "trial" not in facts:
        mixes = number_of(facts["mixes"], "mix is", "mixes are")
        words = f"{mixes} generated, all of them: nothing is left to predict"
        return "\n".join(filter(None, (words, facts["outcome"])))
    rows = {
        "trial": _trial_in_words(facts),
        "rate": f"{facts['tokens_per_second']:,.0f} completion tokens/s, with"
        f" {number_of(facts['trial']['in_flight'], 'conversation')} at once",
        "each": _each_in_words(facts),
        "left": f"{facts['mixes_left']:,} of {facts['mixes']:,} mixes:"
        f" {_span(facts['left']['completion_tokens'])} completion tokens,"
        f" {_span(facts['left']['prompt_tokens'])} prompt tokens",
        "time": _span(facts["left"]["seconds"], duration)
        + f", and {duration(facts['trial']['engine_start_seconds'])} for the engine's start",
        "energy": _energy_in_words(facts),
        "whole": f"{facts['whole']['completion_tokens']:,.0f} completion and"
        f" {facts['whole']['prompt_tokens']:,.0f} prompt tokens in"
        f" {duration(facts['whole']['seconds'])}, with what is done",
    }
    lines = [f"{name:<7} {text}" for name, text in rows.items()]
    note = "in brackets: 95% interval from the spread of lengths; the rate is taken as it was"
    return "\n".join([*lines, f"{'':<7} {note}"])


def _trial_in_words(facts: Facts) -> str:
    trial = facts["trial"]
    return (
        f"{duration(trial['seconds'])}, its first {duration(trial['ramp_up_seconds'])} not counted"
        f" in the rate; {_done_in_words(trial)}; all are kept"
    )


def _done_in_words(trial: Facts) -> str:
    turns = number_of(trial["turns"], "turn")
    conversations = number_of(trial["conversations"], "conversation")
    return f"{turns} of {conversations}, {trial['finished']:,} of them finished"


def _each_in_words(facts: Facts) -> str:
    turns = ", ".join(f"{name} {mean:,.0f}" for name, mean in facts["each_turn"].items())
    text = f"{facts['each']['completion_tokens']:,.0f} completion tokens a conversation ({turns})"
    if facts["unseen_turns"]:
        unseen = ", ".join(facts["unseen_turns"])
        text += f"; not reached and counted like the others: {unseen} (a longer --seconds helps)"
    return text


def _energy_in_words(facts: Facts) -> str:
    power = facts["power"]
    if power["watts"] is None:
        return f"unknown: {power['source']}; --watts N counts with a figure of yours"
    kwh = _span(facts["left"]["kwh"], lambda number: f"{number:,.3g}")
    return f"{kwh} kWh, at {power['watts']:,.0f} W ({power['source']})"


def _span(amount: Range, shown: Callable[[float], str] = "{:,.0f}".format) -> str:
    """12,300 (12,100 to 12,500)."""
    value, low, high = map(shown, amount)
    return f"{value} ({low} to {high})"
