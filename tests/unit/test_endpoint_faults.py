"""Servers that fail, one way each: no row of theirs, none lost, and an end where there is no hope.

A stub answers; before it stands a proxy that does instead what the test says.
"""

import asyncio
import email.utils
import time
from collections.abc import Callable, Iterator

import faulty
import pytest
from stubs import Stub, say, short_waits, stub, with_client

from localism.errors import ConfigError, StageError
from localism.serving import endpoint as endpoint_module
from localism.serving import endpoints as endpoints_module
from localism.serving.client import Client
from localism.serving.crew import for_each
from localism.serving.retries import ATTEMPTS
from localism.serving.server import serve

__all__ = ["short_waits", "stub"]  # fixtures

OUTAGES = faulty.GARBAGE | {
    "500": faulty.status(500),
    "502": faulty.status(502),
    "503": faulty.status(503),
    "reset": faulty.reset,
    "429": faulty.status(429, retry_after="0"),
}
ROWS = 12


@pytest.fixture
def proxy() -> Iterator[Callable[..., faulty.Proxy]]:
    started: list[faulty.Proxy] = []

    def start(behind: Stub, **options) -> faulty.Proxy:
        started.append(faulty.Proxy(behind.url, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


def texts_of(context) -> list[str]:
    return [row["text"] for row in context.store.query("SELECT text FROM turn ORDER BY prompt")]


@pytest.fixture(autouse=True)
def short_rests(short_waits, monkeypatch):
    monkeypatch.setattr(endpoint_module, "REST_SECONDS", (0.05, 0.1))


@pytest.mark.parametrize("lists_models", [False, True])
def test_an_outage_of_any_kind_costs_no_row_and_leaves_none(new_context, stub, proxy, lists_models):
    """Each lasts longer than all attempts of a request take, a tenth of a second here."""
    before = proxy(stub(), spared=("/v1/models",) if lists_models else ())
    kinds = ["500", "HTML", "reset"] if lists_models else list(OUTAGES)

    async def outage(client: Client, kind: str) -> None:
        failed = before.failed
        before.fail_for(0.4, OUTAGES[kind])
        texts = await asyncio.gather(*(say(client, f"{kind} {n}") for n in range(ROWS)))
        assert texts == [f"re: {kind} {number}" for number in range(ROWS)]
        assert before.failed > failed

    async def work(client: Client) -> None:
        for kind in kinds:
            await outage(client, kind)

    _, context = with_client(new_context, (before.url,), work)
    assert sorted(texts_of(context)) == sorted(
        f"re: {kind} {number}" for kind in kinds for number in range(ROWS)
    )


@pytest.mark.parametrize("name", ["HTML", "500", "reset"])
def test_a_server_that_fails_from_now_on_ends_the_stage_and_what_was_answered_stays(
    new_context, stub, proxy, name
):
    before = proxy(stub())

    async def work(client: Client) -> None:
        await say(client, "all is well")
        before.fault = OUTAGES[name]
        await for_each(range(ROWS), lambda number: say(client, str(number)), in_flight=4)

    contexts = []

    def kept(*arguments, **options):
        contexts.append(new_context(*arguments, **options))
        return contexts[-1]

    with pytest.raises(StageError, match="no endpoint answers") as error:
        with_client(kept, (before.url,), work, start_timeout_seconds=1)
    assert error.value.exit_code == 5 and before.url in error.value.where
    assert texts_of(contexts[0]) == ["re: all is well"]


@pytest.mark.parametrize("name", ["broken JSON", "500"])
def test_the_others_do_the_work_of_one_that_fails(new_context, stub, proxy, name):
    well = stub()
    before = proxy(stub())

    async def work(client: Client) -> None:
        before.fault = OUTAGES[name]
        await for_each(range(ROWS), lambda number: say(client, f"{number:02d}"), in_flight=4)

    _, context = with_client(new_context, (before.url, well.url), work)
    assert texts_of(context) == [f"re: {number:02d}" for number in range(ROWS)]
    assert set(well.asked) == {f"{number:02d}" for number in range(ROWS)}
    (away,) = context.store.query("SELECT detail FROM event WHERE kind = 'endpoint_away'")
    assert before.url in away["detail"]


def test_one_that_takes_connections_and_never_answers_is_set_aside(
    new_context, stub, proxy, monkeypatch
):
    monkeypatch.setattr(endpoints_module, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(endpoints_module, "FIRST_SECONDS_PER_TOKEN", 0.0)
    monkeypatch.setattr(endpoint_module, "PROBE_SECONDS", 0.4)
    well, before = stub(), proxy(stub())

    async def work(client: Client) -> None:
        before.fault = faulty.silence
        await for_each(range(ROWS), lambda number: say(client, f"{number:02d}"), in_flight=4)

    _, context = with_client(new_context, (before.url, well.url), work)
    assert texts_of(context) == [f"re: {number:02d}" for number in range(ROWS)]


def test_one_that_is_silent_from_the_start_holds_the_others_up_for_a_moment(
    new_context, stub, proxy, monkeypatch
):
    monkeypatch.setattr(endpoints_module, "LIST_SECONDS", 0.3)
    well, before = stub(), proxy(stub(), fault=faulty.silence)
    text, _ = with_client(new_context, (before.url, well.url), lambda c: say(c, "hello"))
    assert text == "re: hello" and before.passed == 0


@pytest.mark.parametrize("is_silent_from_the_start", [False, True])
def test_alone_it_ends_the_stage(new_context, stub, proxy, monkeypatch, is_silent_from_the_start):
    monkeypatch.setattr(endpoints_module, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(endpoints_module, "FIRST_SECONDS_PER_TOKEN", 0.0)
    monkeypatch.setattr(endpoint_module, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(endpoints_module, "PROBE_SECONDS", 0.3)
    before = proxy(stub(), fault=faulty.silence if is_silent_from_the_start else None)

    async def work(client: Client) -> None:
        before.fault = faulty.silence
        await say(client, "anybody?")

    with pytest.raises(StageError, match="no endpoint answers") as error:
        with_client(new_context, (before.url,), work, start_timeout_seconds=1)
    assert "answer" in error.value.where.split(before.url)[1]


def test_one_that_is_away_at_the_start_is_taken_in_when_it_comes(new_context, stub, proxy):
    slow, late = stub(lambda *_: (200, 0.05)), stub()
    before = proxy(late)

    async def work(client: Client) -> None:
        before.fault = None
        await for_each(range(40), lambda number: say(client, str(number)), in_flight=2)

    before.fault = faulty.status(503)
    _, context = with_client(new_context, (before.url, slow.url), work)
    assert late.asked and len(texts_of(context)) == 40


@pytest.mark.parametrize("name", ["HTML", "500", "reset"])
def test_an_outage_while_a_stage_begins_is_waited_for_where_the_servers_have_worked(
    new_context, stub, proxy, name
):
    before = proxy(stub())
    _, context = with_client(new_context, (before.url,), lambda client: say(client, "earlier"))

    async def later() -> str:
        async with serve(context, "teacher", "curate") as client:
            return await say(client, "later")

    before.fail_for(0.5, OUTAGES[name])
    assert asyncio.run(later()) == "re: later"
    assert before.failed


def test_what_is_no_openai_server_is_named_before_anything_is_asked(new_context, stub, proxy):
    before = proxy(stub(), fault=faulty.GARBAGE["HTML"])
    with pytest.raises(ConfigError, match="does not answer as an OpenAI-compatible") as error:
        with_client(new_context, (before.url,), lambda c: say(c, "hello"))
    assert "sign in" in error.value.where


def test_too_many_requests_are_waited_for_and_never_cost_a_row(new_context, stub):
    server = stub(lambda _, n: (429 if n <= 2 * ATTEMPTS else 200, 0))
    text, context = with_client(new_context, (server.url,), lambda c: say(c, "hello"))
    assert text == "re: hello" and len(server.asked) == 2 * ATTEMPTS + 1
    assert texts_of(context) == ["re: hello"]


def test_retry_after_may_be_a_date(new_context, stub):
    server = stub(lambda _, n: (429, 0) if n == 1 else (200, 0))
    server.headers = {"retry-after": email.utils.formatdate(time.time() + 3, usegmt=True)}
    began = time.monotonic()
    with_client(new_context, (server.url,), lambda c: say(c, "hello"))
    assert time.monotonic() - began >= 1.5  # the date has no fractions


def test_a_request_whose_answer_is_always_garbled_fails_alone(new_context, stub, proxy):
    """As of a server whose template breaks on one text: the others go on."""
    server = stub(lambda prompt, _: (500 if prompt == "05" else 200, 0.02))

    async def work(client: Client) -> list[object]:
        asked = [say(client, f"{number:02d}") for number in range(ROWS)]
        return await asyncio.gather(*asked, return_exceptions=True)

    answers, context = with_client(new_context, (server.url,), work)
    failed = [number for number, answer in enumerate(answers) if isinstance(answer, Exception)]
    assert failed == [5]
    assert len(texts_of(context)) == ROWS - 1
