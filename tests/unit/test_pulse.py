"""A slow engine is waited for, and a hung one is left: on made-up looks, and through the client."""

import asyncio
import os
import time

import pytest
from engines import embedded_config
from stubs import say, short_waits, stub, with_client

from localism.serving import endpoint as endpoint_module
from localism.serving import endpoints as endpoints_module
from localism.serving import heartbeat
from localism.serving import pulse as pulse_module
from localism.serving.load import Beat, Figures
from localism.serving.pulse import STILL_SECONDS, STOPS_SEEN, Pulse
from localism.serving.server import serve

__all__ = ["short_waits", "stub"]  # fixtures


def figures(*written: float, busy: bool = True) -> Figures:
    """Of a server whose engines wrote so many tokens."""
    beats = {str(n): Beat(busy, tokens, (1.0,)) for n, tokens in enumerate(written)}
    return Figures(1, 0, 0.1, 0, beats)


def looked(pulse: Pulse, seconds: int, advances: int | None, began: int = 0) -> int:
    """Look every second; the one engine writes 10 tokens every `advances` seconds, or none."""
    for moment in range(began, began + seconds):
        written = 10 * (moment // advances) if advances else 10_000
        pulse.note(figures(written), float(moment))
    return began + seconds


def test_an_engine_that_stops_after_regular_steps_hangs_within_two_minutes():
    pulse = Pulse()
    now = looked(pulse, 60, advances=1)
    assert pulse.advances(now) and pulse.tokens_per_second() == pytest.approx(10)
    now = looked(pulse, 50, advances=None, began=now)
    assert not pulse.is_hung(now) and pulse.still_seconds(now) > 45
    now = looked(pulse, 70, advances=None, began=now)
    assert pulse.is_hung(now) and not pulse.advances(now)


def test_an_engine_that_needs_half_a_minute_a_step_is_slow_and_never_hung():
    pulse = Pulse()
    for moment in range(3600):
        pulse.note(figures(float(moment // 25)), float(moment))
        assert not pulse.is_hung(moment)
    assert pulse.advances(3600)
    assert pulse.allowed_seconds() == STILL_SECONDS + STOPS_SEEN * 25


def test_an_engine_that_was_never_seen_to_advance_is_not_judged():
    pulse = Pulse()
    now = looked(pulse, 500, advances=None)
    assert pulse.allowed_seconds() is None
    assert not pulse.is_hung(now) and not pulse.advances(now)


def test_one_engine_of_two_that_stands_still_is_noticed():
    pulse = Pulse()
    for moment in range(200):
        pulse.note(figures(float(moment), float(min(moment, 20))), float(moment))
    assert pulse.is_hung(200.0)


def test_a_server_that_publishes_figures_and_answers_no_look_any_more_hangs():
    pulse = Pulse()
    now = looked(pulse, 20, advances=1)
    for moment in range(now, now + 120):
        pulse.note(None, float(moment))
    assert pulse.is_hung(now + 120.0)


def test_engines_without_requests_and_looks_far_apart_say_nothing():
    pulse = Pulse()
    now = looked(pulse, 20, advances=1)
    for moment in range(now, now + 300):
        pulse.note(figures(99.0, busy=False), float(moment))
    assert pulse.still_seconds(now + 300.0) == 0
    pulse.note(figures(99.0), 1000.0)
    pulse.note(figures(99.0), 2000.0)  # nobody looked in between: our own process slept
    assert not pulse.is_hung(2001.0) and pulse.allowed_seconds() < 200


PAGE = """vllm:num_requests_running{{engine="0"}} 1
vllm:num_requests_waiting{{engine="0"}} 0
vllm:generation_tokens_total{{engine="0"}} {}
"""


@pytest.fixture
def quick(monkeypatch):
    """The same rules in tenths of seconds."""
    monkeypatch.setattr(endpoints_module, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(endpoint_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(pulse_module, "STILL_SECONDS", 0.5)
    monkeypatch.setattr(endpoints_module, "FIRST_SECONDS_PER_TOKEN", 0.0)


def test_a_server_whose_counters_stand_still_is_left_long_before_its_silence_counts(
    new_context, stub, quick
):
    began, looks = time.monotonic(), iter(range(10**6))
    hanging, working = stub(lambda *_: (200, 60.0)), stub()
    hanging.figures = lambda: PAGE.format(min(next(looks), 3))
    text, context = with_client(
        new_context, (hanging.url, working.url), lambda client: say(client, "hello")
    )
    assert text == "re: hello"
    assert hanging.asked == ["hello"] and working.asked == ["hello"]
    assert time.monotonic() - began < endpoints_module.SILENCE_SECONDS
    (away,) = context.store.query("SELECT detail FROM event WHERE kind = 'endpoint_away'")
    assert "its counters stood still" in away["detail"]


def test_an_external_server_that_answers_is_not_left_for_counters_that_stand_still(
    new_context, stub, quick
):
    looks = iter(range(10**6))
    server = stub(lambda prompt, _: (200, 3.0 if prompt == "slow" else 0.1))
    server.figures = lambda: PAGE.format(min(next(looks), 3))  # another engine's, say

    async def work(client):
        slow = asyncio.create_task(say(client, "slow"))
        for number in range(25):
            await say(client, f"quick {number}")
        return await slow

    text, _ = with_client(new_context, (server.url,), work)
    assert text == "re: slow" and server.asked.count("slow") == 1


def test_a_server_whose_counters_advance_is_waited_for_and_called_slow_once(
    new_context, stub, quick, monkeypatch
):
    monkeypatch.setattr(endpoints_module, "SILENCE_SECONDS", 0.3)
    looks = iter(range(10**6))
    server = stub(lambda *_: (200, 2.0))
    server.figures = lambda: PAGE.format(next(looks))
    text, context = with_client(new_context, (server.url,), lambda client: say(client, "hello"))
    assert text == "re: hello"
    assert server.asked == ["hello"]
    (slow,) = context.store.query("SELECT detail FROM event WHERE kind = 'endpoint_slow'")
    assert "slow: " in slow["detail"] and "oldest request" in slow["detail"]


def test_while_requests_are_under_way_their_server_is_told_of_and_afterwards_not(
    new_context, stub, monkeypatch
):
    monkeypatch.setattr(heartbeat, "WRITE_SECONDS", 0.0)
    monkeypatch.setattr("localism.serving.client.LOOK_SECONDS", 0.05)
    server, lines = stub(lambda *_: (200, 0.3)), []
    table = {"path": "", "endpoints": (server.url,)}
    context = new_context(embedded_config(teacher=table))

    async def ask(client, number):
        await say(client, str(number))
        lines.extend(heartbeat.read(context.folder, os.getpid()))
        assert heartbeat.read(context.folder, 1) == []  # another process'

    async def run():
        async with serve(context, "teacher", "generate") as client:
            await client.for_each(range(12), lambda number: ask(client, number))

    asyncio.run(run())
    assert heartbeat.read(context.folder, os.getpid()) == []
    assert {line["role"] for line in lines} == {"teacher"}
    assert any(line["line"].startswith("alive, ") for line in lines)
    assert all(line["is_external"] and line["url"] == server.url for line in lines)
