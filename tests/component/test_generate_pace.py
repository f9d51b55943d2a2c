"""Stage generate on a real engine: how many requests at once, a trial, and its time limit."""

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from engines import NewContext, ServedTeacher, embedded_config
from test_generate import candidates, config_of, plan

from localism.context import Context
from localism.errors import OutOfTime
from localism.gpus import Gpus
from localism.planning import predict, seen
from localism.planning.hardware import Machine
from localism.records import Sampling
from localism.serving import client as client_module
from localism.serving.client import Client
from localism.serving.server import serve
from localism.stages import generate, generate_trial

pytestmark = pytest.mark.component

PLACES = 64  # max_num_seqs of the session's engine
BELIEVED = 8
LONG = Sampling(temperature=0.7, top_p=1.0, max_tokens=96)


class Watched:
    """Conversations of one long reply each, and what was seen of the server meanwhile."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.limits: list[int] = []
        self.running: list[int] = []

    async def hold(self, context: Context, count: int) -> None:
        async with serve(context, "teacher", "generate") as client:
            watching = asyncio.create_task(self._watch(client))
            await client.for_each(range(count), lambda number: self._ask(client, number))
            watching.cancel()

    async def _ask(self, client: Client, number: int) -> None:
        reply = await client.conversation().say(
            f"Write at length about number {number}.",
            template="draft",
            sampling=LONG,
            extra={"ignore_eos": True},
        )
        self.texts[number] = reply.text

    async def _watch(self, client: Client) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.limits.append(client.in_flight)
            figures = client.endpoints.all[0].figures
            self.running.append(figures.running if figures else 0)


def test_an_engine_with_more_places_than_believed_is_filled_and_its_replies_stay_the_same(
    teacher: ServedTeacher, new_context: NewContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "LOOK_SECONDS", 0.2)
    behind = {**teacher.endpoints["teacher"], "max_num_seqs": BELIEVED}
    free = new_context(embedded_config(teacher=behind), "free")
    fixed = new_context(
        embedded_config(teacher=behind, generate={"requests_in_flight": 12}), "fixed"
    )
    followed, few = Watched(), Watched()
    asyncio.run(followed.hold(free, 260))
    asyncio.run(few.hold(fixed, 24))
    assert followed.limits[0] == 10
    assert max(followed.running) == PLACES
    # Once the engine is full, never below what fills it.
    full = followed.limits[followed.running.index(PLACES) :]
    assert min(full) >= PLACES and max(full) < 4 * PLACES
    assert set(few.limits) == {12} and max(few.running) <= 12
    assert {number: followed.texts[number] for number in few.texts} == few.texts


def facts_of(context: Context) -> dict[str, Any]:
    return json.loads(context.store.value("SELECT detail FROM event WHERE kind = 'calibrated'"))


def test_a_trial_is_part_of_the_stage_and_its_prediction_is_checked_at_the_end(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    few, many = (config_of(teacher, generate={"requests_in_flight": n}) for n in (16, 64))
    context, whole = new_context(few, "tried"), new_context(many, "whole")
    for one in (context, whole):
        plan(one.store, 100)
    # No engine start here: the ledger alone decides how far the trial comes.
    facts = generate_trial.calibrate(context, 4.0, watts=360.0)
    before = candidates(context)
    assert len(before) == facts["trial"]["finished"] < 100
    assert facts["mixes_left"] == 100 - len(before)
    assert facts["trial"]["turns"] == context.store.value("SELECT count(*) FROM turn")
    predicted = facts["left"]["completion_tokens"][0]
    kwh, seconds = facts["left"]["kwh"][0], facts["left"]["seconds"][0]
    assert kwh == pytest.approx(seconds * 360.0 / 3.6e6)
    assert facts_of(context) == json.loads(json.dumps(facts))
    assert "all are kept" in generate_trial.render(facts)

    done = context.store.value("SELECT sum(completion_tokens) FROM turn")
    summary = generate.run(context)
    assert context.store.value("SELECT count(*) FROM turn") == 300  # no turn is paid twice
    took = context.store.value("SELECT sum(completion_tokens) FROM turn") - done
    assert predicted == pytest.approx(took, rel=0.35)
    assert "took " in summary.splitlines()[1] and f"{took:,}" in summary.splitlines()[1]
    checked = json.loads(
        context.store.value("SELECT detail FROM event WHERE kind = 'prediction_checked'")
    )
    assert checked["actual"]["completion_tokens"] == [took]
    assert 0 < checked["actual"]["seconds"][0] < 600

    nothing = generate_trial.calibrate(context, 4.0, watts=None)
    assert nothing["mixes_left"] == 0
    assert generate_trial.render(nothing).startswith("100 mixes are generated, all of them")
    assert context.store.value("SELECT count(*) FROM turn") == 300

    generate.run(whole)
    assert candidates(whole) == candidates(context)


def test_a_plan_of_a_run_without_mixes_rests_on_a_trial_of_made_up_skills(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    context = new_context(config_of(teacher))
    generate_trial.made_up_plan(context)
    assert context.store.value("SELECT count(*) FROM mix") == generate_trial.MADE_UP_MIXES
    facts = generate_trial.calibrate(context, 3.0, watts=50.0)
    assert 2.5 < facts["calls_each"] <= 3.0
    trial = seen.calibrated(context.config, facts)
    assert trial is not None
    machine = Machine(Gpus(0, None), 2)
    rows = {row.stage: row for row in predict.rows(context.config, machine, None, None, trial)}
    found = rows["generate"]
    each = facts["each"]["completion_tokens"]
    assert found.basis == "calibrated" and found.output_tokens == pytest.approx(found.units * each)
    assert found.low_hours < found.hours < found.high_hours
    # Of a teacher behind endpoints nobody knows the size: only its own stages go at its pace.
    assert rows["extract"].basis == "calibrated, by parameters" and rows["pick"].basis == "assumed"
    assert machine.watts(None, trial).watts == 50.0


def test_out_of_time_ends_the_stage_with_whole_conversations_and_books_that_balance(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    config = config_of(teacher, generate={"requests_in_flight": 4})
    context = new_context(config)
    plan(context.store, 60)
    with pytest.raises(OutOfTime):
        generate.run(replace(context, deadline=time.monotonic() + 1.0))
    held = len(candidates(context))
    assert 0 < held < 60
    assert context.store.value("SELECT count(*) FROM turn") == 3 * held
    books = context.store.query("SELECT * FROM books WHERE stage = 'generate'")[0]
    assert (books["planned"], books["accepted"], books["pending"]) == (60, held, 60 - held)
    turns = context.store.query("SELECT turn_id FROM turn")
    assert generate.run(context).startswith("6")
    assert context.store.value("SELECT count(*) FROM turn") == 180
    assert len(turns) == 3 * held
