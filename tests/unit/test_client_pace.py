"""The client against a small HTTP server: how many requests it keeps going, and for how long."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from engines import NewContext, embedded_config
from stubs import Stub, say, short_waits, stub, with_client

from localism.context import Context
from localism.errors import OutOfTime
from localism.serving import client as client_module
from localism.serving import endpoint
from localism.serving.client import Client
from localism.serving.server import serve

__all__ = ["short_waits", "stub"]  # fixtures


FREE = """vllm:num_requests_running{engine="0"} 1000
vllm:num_requests_waiting{engine="0"} 0
vllm:kv_cache_usage_perc{engine="0"} 0.1
vllm:num_preemptions_total{engine="0"} 0
"""


def most_at_once(new_context: NewContext, server: Stub, **sections: Any) -> int:
    """Ask 150 things of a server that believes in 8 at once; how many were asked at once."""
    inside, most = 0, 0

    async def ask(client: Client, number: int) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await say(client, str(number))
        inside -= 1

    table = {"path": "", "endpoints": (server.url,), "max_num_seqs": 8}
    context = new_context(embedded_config(teacher=table, **sections))

    async def run() -> None:
        async with serve(context, "teacher", "generate") as client:
            assert client.in_flight == sections.get("generate", {}).get("requests_in_flight", 10)
            await client.for_each(range(150), lambda number: ask(client, number))

    asyncio.run(run())
    return most


def test_the_number_follows_what_the_server_says(new_context, stub, monkeypatch):
    monkeypatch.setattr(client_module, "LOOK_SECONDS", 0.05)
    server = stub(lambda *_: (200, 0.1))
    server.figures = FREE
    assert most_at_once(new_context, server) > 20


def test_a_server_that_says_nothing_is_asked_once_and_keeps_the_number(
    new_context, stub, monkeypatch
):
    monkeypatch.setattr(client_module, "LOOK_SECONDS", 0.05)
    server = stub(lambda *_: (200, 0.05))
    assert most_at_once(new_context, server) == 10
    assert server.looks == 1


def test_a_number_in_models_toml_is_kept(new_context, stub, monkeypatch):
    monkeypatch.setattr(client_module, "LOOK_SECONDS", 0.05)
    server = stub(lambda *_: (200, 0.02))
    server.figures = FREE
    most = most_at_once(new_context, server, generate={"requests_in_flight": 3})
    assert most == 3


def test_a_server_that_is_asked_nothing_is_not_looked_at(new_context, stub, monkeypatch):
    monkeypatch.setattr(client_module, "LOOK_SECONDS", 0.02)
    server = stub()
    server.figures = FREE

    async def work(client: Client) -> None:
        await client.for_each(range(3), lambda _: asyncio.sleep(0.2))  # all in the ledger, say
        await asyncio.sleep(0.2)

    with_client(new_context, (server.url,), work)
    assert server.looks == 0


async def first_connection(url: str) -> None:
    """What it imports takes seconds on a busy machine."""
    await endpoint.connect(url, "").close()


def with_deadline(
    new_context: NewContext, server: Stub, seconds: float, count: int = 60
) -> tuple[Context, float]:
    """Ask so many things with a deadline; OutOfTime is expected. The context and the wall time."""
    table = {"path": "", "endpoints": (server.url,), "max_num_seqs": 4}
    context = new_context(embedded_config(teacher=table))
    asyncio.run(first_connection(server.url))
    context = replace(context, deadline=time.monotonic() + seconds)
    started = time.monotonic()

    async def run() -> None:
        async with serve(context, "teacher", "generate") as client:
            await client.for_each(range(count), lambda number: say(client, str(number)))

    with pytest.raises(OutOfTime):
        asyncio.run(run())
    return context, time.monotonic() - started


def test_at_the_deadline_nothing_begins_and_what_is_in_flight_is_finished(new_context, stub):
    server = stub(lambda *_: (200, 0.3))
    context, _ = with_deadline(new_context, server, 0.4)
    asked = len(server.asked)
    assert 5 <= asked < 60
    assert context.store.value("SELECT count(*) FROM turn") == asked


def test_after_the_deadline_nothing_is_asked_at_all(new_context, stub):
    server = stub()
    with_deadline(new_context, server, -1.0)
    assert server.asked == []


def test_what_outlives_the_grace_is_ended(new_context, stub, monkeypatch):
    monkeypatch.setattr(client_module, "GRACE_SECONDS", 0.3)
    context, seconds = with_deadline(new_context, stub(lambda *_: (200, 20.0)), 0.2)
    assert seconds < 10
    assert context.store.value("SELECT count(*) FROM turn") == 0


def test_a_deadline_that_is_kept_changes_nothing(new_context, stub):
    server = stub()
    table = {"path": "", "endpoints": (server.url,)}
    context = new_context(embedded_config(teacher=table))
    context = replace(context, deadline=time.monotonic() + 60)

    async def run() -> None:
        async with serve(context, "teacher", "generate") as client:
            await client.for_each(range(9), lambda number: say(client, str(number)))

    asyncio.run(run())
    assert len(server.asked) == 9
