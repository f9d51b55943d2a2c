"""Stage generate: planned mixes -> conversations with the teacher -> instruction and response.

Each mix is one conversation through the turns of the prompt pack (draft, critique, refine; a turn
may be left out unless the reply before it was cut off), and each conversation runs on its own: no
turn waits for the turns of others. The last reply is parsed into a candidate; what does not parse,
or fails, is a candidate too, with its reason.
Alone: localism generate --run NAME
"""

import asyncio
import json
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from localism.calibration import Stopped, Trial
from localism.context import Context
from localism.errors import StageError
from localism.parsing import structured
from localism.parsing.example import Example, Unparsed, split_example
from localism.parsing.fences import has_open_fence
from localism.progress import duration
from localism.prompting.packs import Pack, Turn, load_pack
from localism.records import Mix, Reply
from localism.serving.client import Client, RequestFailed
from localism.serving.server import serve
from localism.stages.mix import load_mixes
from localism.store import Row, Store
from localism.tables import number_of

CUT_OFF = "cut off"
# What an example lacks that was begun and not ended; the others are of another form altogether.
UNFINISHED = frozenset(
    {
        "thinking not finished",
        "no response marker",
        "empty response",
        "code fence not closed",
        "JSON not readable",
    }
)
EARLY = 50
SHOWN = 3


class Said(NamedTuple):
    """One turn of a conversation."""

    turn: Turn
    """The pack's."""
    reply: Reply
    """What the teacher answered."""
    example: Example | Unparsed | None
    """What is in the reply; None where the pack expects no example, as of a critique."""


def run(context: Context) -> str:
    """Write a candidate for every mix that has none; calls that failed before are tried again.

    Raises StageError when more than half of the first 50 replies cannot be used; candidates that
    are written stay.
    """
    mixes = load_mixes(context.store)
    pending = unwritten(context.store, mixes)
    if pending:
        asyncio.run(_generate(context, mixes, pending))
    return "\n".join(filter(None, (summary(context.store), outcome(context.store))))


def unwritten(store: Store, mixes: Sequence[Mix]) -> list[Mix]:
    """Those without a candidate; candidates that failed are forgotten, to be tried again."""
    store.execute("DELETE FROM candidate WHERE status = 'failed'")
    written = {row["mix_id"] for row in store.query("SELECT mix_id FROM candidate")}
    return [mix for mix in mixes if mix.mix_id not in written]


async def _generate(context: Context, mixes: Sequence[Mix], pending: Sequence[Mix]) -> None:
    waiting = len(pending)
    async with serve(context, "teacher", "generate", conversations=waiting) as client:
        keep = partial(context.store.add, "candidate")
        writer = Writer(context, client, mixes, len(mixes) - waiting, keep)
        await client.for_each(in_order(pending, client.in_flight), writer.write)


def in_order(mixes: Sequence[Mix], window: int) -> list[Mix]:
    """The plan's order, with mixes of one query type side by side where they are asked at once.

    Prompts that begin alike share the engine's prefix cache; a whole sort by query type would
    share no more, and would leave a lopsided corpus when a run is stopped early.
    """
    return sorted(mixes, key=lambda mix: (mix.ordinal // window, mix.query_type or "", mix.ordinal))


def sample_numbers(mixes: Sequence[Mix]) -> dict[str, int]:
    """For each mix how many earlier ones have the same prompt, so that each is a fresh sample."""
    seen: Counter[tuple[tuple[str, ...], str | None]] = Counter()
    numbers = {}
    for mix in sorted(mixes, key=lambda mix: mix.ordinal):
        prompt = (mix.skills, mix.query_type)
        numbers[mix.mix_id] = seen[prompt]
        seen[prompt] += 1
    return numbers


class Writer:
    """Holds the conversations of one call of the stage and counts what comes of them."""

    def __init__(
        self,
        context: Context,
        client: Client,
        mixes: Sequence[Mix],
        done: int,
        keep: Callable[..., object],
        trial: Trial | None = None,
    ) -> None:
        self._progress, self._client, self._keep = context.progress, client, keep
        self._pack = load_pack(context.config.prompts.pack)
        self._samples = sample_numbers(mixes)
        self._alarm, self._trial = EarlyAlarm(self._pack), trial
        self._done, self._before, self._total = done, done, len(mixes)
        self._turns, self._started = 0, time.monotonic()

    async def write(self, mix: Mix) -> None:
        """Hold the conversation of a mix and keep its candidate, given as keyword arguments.

        One that a trial stops between two turns has none yet: a later call goes on with it.
        """
        said: list[Said] = []
        try:
            await self._converse(mix, said)
        except Stopped:
            return
        except RequestFailed as failed:
            candidate = _row(mix, said, status="failed", reason=failed.reason)
        else:
            candidate = read_candidate(mix, said)
        self._keep(**candidate)
        self._done += 1
        if not self._trial:  # which is no beginning of the whole plan: see so_far
            self._progress.update(self._done, self._total, unit="mixes", detail=self._rates())
        self._alarm.note(candidate, said)

    async def _converse(self, mix: Mix, said: list[Said]) -> None:
        conversation = self._client.conversation(sample=self._samples[mix.mix_id])
        values = prompt_values(mix)
        for turn in self._pack.turns:
            if turn.only_if_cut_off and not is_cut_off(said[-1]):
                continue
            began = self._trial.before(mix.mix_id, turn.name) if self._trial else 0.0
            reply = await conversation.say(
                self._pack.render(turn.template, **values, structured=turn.structured),
                template=turn.name,
                sampling=turn.sampling,
                extra=structured.an_example() if turn.structured else None,
            )
            if self._trial:
                self._trial.note(mix.mix_id, turn.name, reply, began)
            said.append(heard(turn, reply, said, self._pack))
            self._turns += not reply.from_ledger

    def so_far(self) -> str:
        """What this call did, as '129 turns, 21 conversations finished   41 turns/s, 610 tok/s'."""
        finished = number_of(self._done - self._before, "conversation")
        return f"{number_of(self._turns, 'turn')}, {finished} finished   {self._rates()}"

    def _rates(self) -> str:
        turns = self._turns / max(1e-9, time.monotonic() - self._started)
        return f"{turns:,.0f} turns/s, {self._client.tokens_per_second():,.0f} tok/s"


def prompt_values(mix: Mix) -> dict[str, object]:
    """What the templates of the turns are filled with."""
    kind = {"name": mix.query_type, "definition": mix.query_type_definition or ""}
    return {"skills": list(mix.skills), "query_type": kind if mix.query_type else None}


def heard(turn: Turn, reply: Reply, said: Sequence[Said], pack: Pack) -> Said:
    """A reply with its example; one with a response alone keeps the instruction of those before."""
    if not turn.has_example:
        return Said(turn, reply, None)
    before = (one.example for one in reversed(said) if isinstance(one.example, Example))
    earlier = next((example.instruction for example in before), None)
    markers = (pack.instruction_marker, pack.response_marker)
    example = split_example(reply.text, *markers, earlier)
    return Said(turn, reply, example)


def is_cut_off(said: Said) -> bool:
    """Whether the reply ended at max_tokens, or has an example that was begun and not ended."""
    if said.reply.finish_reason == "length":
        return True
    if isinstance(said.example, Example):
        return has_open_fence(said.example.instruction) or has_open_fence(said.example.response)
    return said.example is not None and said.example.reason in UNFINISHED


def read_candidate(mix: Mix, said: Sequence[Said]) -> Row:
    """A finished conversation -> its candidate row: the example of the last reply.

    One whose last reply was cut off is kept with that reason, for curate to reject.
    """
    last = said[-1]
    if isinstance(last.example, Example):
        reason = CUT_OFF if last.reply.finish_reason == "length" else None
        return _row(mix, said, example=last.example, reason=reason)
    assert last.example, f"{last.turn.name} ends a conversation, and has no example"
    return _row(mix, said, reason=last.example.reason)


def _row(
    mix: Mix,
    said: Sequence[Said],
    *,
    status: str = "written",
    reason: str | None = None,
    example: Example | None = None,
) -> Row:
    return {
        "mix_id": mix.mix_id,
        "instruction": example.instruction if example else None,
        "response": example.response if example else None,
        "status": status,
        "reason": reason,
        "turn_id": said[-1].reply.turn_id if said else None,
        "completion_tokens": sum(turn.reply.completion_tokens for turn in said),
    }


class Useless(NamedTuple):
    """A conversation that gave no example."""

    reason: str
    """Why the last reply does not parse, or what failed."""
    text: str
    """The last reply; empty when the first call failed."""
    is_failed: bool
    """The server did not answer."""
    is_cut_off: bool
    """The last reply ended at max_tokens."""


class EarlyAlarm:
    """Stops the stage when more than half of its first EARLY conversations cannot be used.

    Better after 50 than after 4,000: a teacher that does not follow the format seldom learns it.
    """

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self._finished = 0
        self._useless: list[Useless] = []

    def note(self, candidate: Row, said: Sequence[Said]) -> None:
        """Count one finished conversation; raises StageError when the alarm goes off."""
        self._finished += 1
        if self._finished > EARLY or candidate["instruction"] is not None:
            return
        text, end = (said[-1].reply.text, said[-1].reply.finish_reason) if said else ("", "")
        is_failed = candidate["status"] == "failed"
        self._useless.append(Useless(candidate["reason"], text, is_failed, end == "length"))
        if len(self._useless) * 2 > EARLY:
            raise StageError(
                f"{len(self._useless)} of the first {self._finished} conversations gave no example",
                where=f"prompt pack {self._pack.name}; {self._examples()}",
                fix=self._fix(),
            )

    def _examples(self) -> str:
        """How often each reason came, and SHOWN of the texts."""
        counts = Counter(useless.reason for useless in self._useless).most_common(SHOWN)
        shown = [
            f"[{useless.reason}]\n{textwrap.indent(_shortened(useless.text), '  | ')}"
            for useless in self._useless[:SHOWN]
        ]
        return "\n".join(["; ".join(f"{reason} ({n})" for reason, n in counts), *shown])

    def _fix(self) -> str:
        half = len(self._useless) / 2
        if sum(useless.is_failed for useless in self._useless) > half:
            return "mend what the server says; the same command then tries these again"
        if sum(useless.is_cut_off for useless in self._useless) > half:
            return (
                f"most were cut off: raise max_tokens in a copy of {self._pack.folder}, name it in"
                " [prompts].pack, then localism fork"
            )
        return (
            "name another [prompts].pack, or a teacher that keeps to the two headings, then"
            " localism fork; what is written stays"
        )


def _shortened(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 400 else f"{text[:300]}\n[...]\n{text[-80:]}"


def summary(store: Store) -> str:
    """For instance '4,012 of 4,100 mixes gave an example, 61 did not parse, 27 failed'."""
    counts = store.query("""
        SELECT count(*) AS mixes, count(instruction) AS parsed,
               count(*) FILTER (c.status <> 'failed' AND instruction IS NULL) AS unparsed,
               count(*) FILTER (c.status = 'failed') AS failed
        FROM mix LEFT JOIN candidate c USING (mix_id)
    """)[0]
    text = f"{counts['parsed']:,} of {counts['mixes']:,} mixes gave an example"
    for number, words in ((counts["unparsed"], "did not parse"), (counts["failed"], "failed")):
        text += f", {number:,} {words}" if number else ""
    return text


# From the moment of the last prediction on: what was written, and in how much time, not counting
# the hours in which no request was under way (a run that was stopped and continued).
_TOOK = """
    WITH asked AS (
        SELECT completion_tokens, finished_at AS ended,
               finished_at - to_microseconds((seconds * 1e6)::BIGINT) AS began
        FROM turn WHERE stage = 'generate' AND finished_at > ?
    ), before AS (
        SELECT *, max(ended) OVER (
            ORDER BY began, ended ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS covered FROM asked
    )
    SELECT sum(completion_tokens)::BIGINT AS tokens,
           sum(epoch(ended - greatest(began, covered))) FILTER (
               ended > covered OR covered IS NULL
           ) AS seconds
    FROM before
"""


def outcome(store: Store) -> str:
    """What the trial predicted beside what it took; empty where there is nothing to compare."""
    rows = store.query(
        "SELECT happened_at, detail FROM event WHERE kind = 'calibrated' ORDER BY happened_at"
    )
    if not rows:
        return ""
    predicted, since = json.loads(rows[-1]["detail"]), rows[-1]["happened_at"]
    is_same_plan = predicted["mixes"] == store.value("SELECT count(*) FROM mix")
    took = store.query(_TOOK, [since])[0]
    if not is_same_plan or not predicted["mixes_left"] or not took["tokens"]:
        return ""
    left = predicted["left"]
    store.event(
        "prediction_checked",
        "generate",
        predicted={"seconds": left["seconds"], "completion_tokens": left["completion_tokens"]},
        actual={"seconds": [took["seconds"]], "completion_tokens": [took["tokens"]]},
    )
    return (
        f"after the trial, predicted {duration(left['seconds'][0])} and "
        f"{left['completion_tokens'][0]:,.0f} completion tokens; "
        f"took {duration(took['seconds'])} and {took['tokens']:,}"
    )
