"""The client against a small HTTP server that misbehaves as told: what is retried, and what not."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from stubs import SHORT, Stub, say, short_waits, stub, with_client

from localism.errors import ConfigError, StageError
from localism.serving import endpoint as endpoint_module
from localism.serving import endpoints as endpoints_module
from localism.serving.client import Client, RequestFailed
from localism.serving.crew import for_each
from localism.serving.retries import ATTEMPTS
from localism.serving.server import serve

__all__ = ["short_waits", "stub"]  # fixtures


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_passing_fault_is_retried_and_the_turn_is_in_the_ledger_once(new_context, stub, status):
    server = stub(lambda _, n: (status, 0) if n < 3 else (200, 0))
    text, context = with_client(new_context, (server.url,), lambda c: say(c, "hello"))
    assert text == "re: hello"
    assert server.questions >= 3 and set(server.asked) == {"hello"}
    assert context.store.value("SELECT count(*) FROM turn") == 1


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_refused_request_is_sent_once_and_fails_with_the_servers_words(new_context, stub, status):
    server = stub(lambda *_: (status, 0))
    with pytest.raises(RequestFailed, match=f"HTTP {status}: the stub says {status}"):
        with_client(new_context, (server.url,), lambda c: say(c, "hello"))
    assert server.asked == ["hello"]


def test_a_request_that_a_server_fails_at_alone_ends_in_a_failed_row_and_no_turn(new_context, stub):
    server = stub(lambda prompt, _: (500 if prompt == "poison" else 200, 0))

    async def work(client: Client) -> str:
        with pytest.raises(RequestFailed) as failed:
            await say(client, "poison")
        return failed.value.reason

    reason, context = with_client(new_context, (server.url,), work)
    assert reason.startswith(f"no answer in {ATTEMPTS} attempts")
    assert len(server.asked) == ATTEMPTS
    assert context.store.value("SELECT count(*) FROM turn") == 0


def test_a_server_that_fails_at_everything_ends_the_stage_and_fails_no_row(new_context, stub):
    server = stub(lambda *_: (500, 0))
    with pytest.raises(StageError, match="no endpoint answers") as error:
        with_client(new_context, (server.url,), lambda c: say(c, "hello"), start_timeout_seconds=1)
    assert "500" in error.value.where


def test_a_proxy_whose_server_is_away_is_waited_for_however_often_it_is_asked(new_context, stub):
    server = stub(lambda *_: (server.listing, 0))

    async def work(client: Client) -> str:
        server.listing = 503
        asking = asyncio.create_task(say(client, "hello"))
        await asyncio.sleep(2.5)  # far more rests than there are attempts
        server.listing = 200
        return await asking

    text, _ = with_client(new_context, (server.url,), work)
    assert text == "re: hello"
    assert len(server.asked) < ATTEMPTS


def test_another_model_behind_the_endpoints_is_refused(new_context, stub):
    server = stub()
    _, context = with_client(new_context, (server.url,), lambda c: say(c, "hello"))
    server.model = "another"

    async def work() -> None:
        async with serve(context, "teacher", "curate") as client:
            await say(client, "hello")

    with pytest.raises(ConfigError, match="not what this run was started with") as refused:
        asyncio.run(work())
    assert "another at" in refused.value.where and "stub at" in refused.value.where


def test_retry_after_is_obeyed(new_context, stub):
    server = stub(lambda _, n: (429, 0) if n == 1 else (200, 0))
    server.headers = {"retry-after": "1"}
    began = time.monotonic()
    with_client(new_context, (server.url,), lambda c: say(c, "hello"))
    assert time.monotonic() - began >= 1


def test_a_slow_reply_is_waited_for_while_the_server_answers_others(new_context, stub, monkeypatch):
    monkeypatch.setattr(endpoints_module, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(endpoints_module, "FIRST_SECONDS_PER_TOKEN", 0.0)
    monkeypatch.setattr(endpoints_module, "SLOWER_THAN_SEEN", 0.0)
    server = stub(lambda prompt, _: (200, 2.0 if prompt == "slow" else 0.1))

    async def work(client: Client) -> str:
        slow = asyncio.create_task(say(client, "slow"))
        for number in range(15):
            await say(client, f"quick {number}")
        return await slow

    text, _ = with_client(new_context, (server.url,), work)
    assert text == "re: slow"
    assert server.asked.count("slow") == 1


def test_a_silent_server_is_left_and_the_request_asked_elsewhere(new_context, stub, monkeypatch):
    monkeypatch.setattr(endpoints_module, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(endpoints_module, "FIRST_SECONDS_PER_TOKEN", 0.0)
    hanging, working = stub(lambda *_: (200, 5.0)), stub()
    text, _ = with_client(new_context, (hanging.url, working.url), lambda c: say(c, "hello"))
    assert text == "re: hello"
    assert hanging.asked == ["hello"] and working.asked == ["hello"]


def test_patience_grows_with_the_length_and_with_the_observed_pace():
    pace = endpoints_module.Pace()
    before = pace.patience(1000)
    assert before > pace.patience(10)
    pace.note(seconds=6000.0, prompt_tokens=100, completion_tokens=900)
    assert pace.patience(1000) > 6000 > before


def test_requests_go_to_the_endpoint_with_the_fewest_outstanding(new_context, stub):
    slow, quick = stub(lambda *_: (200, 0.5)), stub()

    async def work(client: Client) -> None:
        await for_each(range(40), lambda n: say(client, str(n)), in_flight=4)

    with_client(new_context, (slow.url, quick.url), work)
    assert len(slow.asked) + len(quick.asked) == 40
    assert len(slow.asked) <= 8


def test_an_endpoint_that_is_down_is_left_out_and_taken_back_when_it_returns(new_context, stub):
    gone, working = stub(), stub()
    port = gone.server_address[1]
    gone.go_down()

    async def work(client: Client) -> Stub:
        await for_each(range(10), lambda n: say(client, f"first {n}"), in_flight=4)
        returned = stub(port=port)
        for number in range(10):
            await say(client, f"second {number}")
            await asyncio.sleep(0.2)
        return returned

    returned, context = with_client(new_context, (f"http://127.0.0.1:{port}/v1", working.url), work)
    assert returned.asked and all(prompt.startswith("second") for prompt in returned.asked)
    assert context.store.value("SELECT count(*) FROM turn") == 20


def test_no_endpoint_at_all_is_an_error_at_once(new_context, stub):
    server = stub()
    server.go_down()
    with pytest.raises(StageError) as error:
        with_client(new_context, (server.url,), lambda c: say(c, "hello"))
    assert server.url in error.value.where
    assert "start the model servers" in error.value.fix


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/v1", "Connection refused"),
        # A resolver that does not answer in time is the reason, too.
        ("http://no-such-host.invalid:8000/v1", "[Nn]ame|timed out"),
        ("https://{stub}/v1", "SSL"),
    ],
)
def test_an_endpoint_that_cannot_be_reached_says_why(new_context, stub, url, reason):
    url = url.format(stub=stub().url.split("/")[2])
    with pytest.raises(StageError, match="no endpoint answers") as error:
        with_client(new_context, (url,), lambda c: say(c, "hello"))
    assert url in error.value.where and re.search(reason, error.value.where)


def test_endpoints_that_die_for_good_end_the_stage(new_context, stub):
    server = stub()

    async def work(client: Client) -> None:
        await say(client, "hello")
        server.go_down()
        await say(client, "anybody?")

    with pytest.raises(StageError, match="no endpoint answers"):
        with_client(new_context, (server.url,), work, start_timeout_seconds=1)


def test_a_name_that_is_not_served_is_refused_with_those_that_are(new_context, stub):
    with pytest.raises(ConfigError) as error:
        with_client(new_context, (stub().url,), lambda c: say(c, "x"), served_name="other")
    assert "stub" in error.value.fix


def test_a_missing_key_file_is_a_config_error(new_context, stub):
    with pytest.raises(ConfigError, match="API key"):
        with_client(new_context, (stub().url,), lambda c: say(c, "x"), api_key_file="/no/such/key")


def test_the_same_turn_asked_twice_at_once_is_sent_once(new_context, stub):
    server = stub(lambda *_: (200, 0.2))

    async def work(client: Client) -> list[str]:
        return await asyncio.gather(*(say(client, "same") for _ in range(5)))

    texts, context = with_client(new_context, (server.url,), work)
    assert texts == ["re: same"] * 5
    assert server.asked == ["same"]
    assert context.store.value("SELECT count(*) FROM turn") == 1


def test_when_the_first_of_two_equal_turns_fails_the_second_asks_itself(new_context, stub):
    server = stub(lambda _, n: (400 if n == 1 else 200, 0.1))

    async def work(client: Client) -> list[Any]:
        return await asyncio.gather(
            say(client, "same"), say(client, "same"), return_exceptions=True
        )

    (first, second), _ = with_client(new_context, (server.url,), work)
    assert isinstance(first, RequestFailed) and second == "re: same"


def test_a_turn_depends_on_everything_said_before_and_on_the_sample(new_context, stub):
    server = stub()

    async def work(client: Client) -> None:
        for opening, sample in (("a", 0), ("b", 0), ("a", 1), ("a", 0)):
            chat = client.conversation(sample)
            await chat.say(opening, template="draft", sampling=SHORT)
            await chat.say("more", template="refine", sampling=SHORT)

    _, context = with_client(new_context, (server.url,), work)
    assert server.asked == ["a", "more", "b", "more", "a", "more"]
    parents = context.store.query(
        "SELECT t.parent_id, p.prompt FROM turn t JOIN turn p ON p.turn_id = t.parent_id "
        "WHERE t.prompt = 'more' ORDER BY p.prompt"
    )
    assert [row["prompt"] for row in parents] == ["a", "a", "b"]


def test_a_label_of_several_tokens_is_refused_with_its_pack(new_context, stub):
    server = stub()
    with pytest.raises(ConfigError) as error:
        with_client(new_context, (server.url,), lambda c: c.choose("which?", ("m", "yes"), "judge"))
    assert "'yes' is 3 tokens" in error.value.problem and "compact" in error.value.where


def test_a_server_without_the_logprobs_of_labels_is_refused(new_context, stub):
    with pytest.raises(ConfigError, match="token probabilities"):
        with_client(new_context, (stub().url,), lambda c: c.choose("which?", ("m", "M"), "judge"))


# ---- for_each ------------------------------------------------------------------------------


def test_for_each_works_on_every_item_within_its_bound_and_takes_them_as_needed():
    taken: list[int] = []
    running, most = 0, 0

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            assert len(taken) - len(done) <= 4
            yield number

    done: list[int] = []

    async def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (number % 3))
        running -= 1
        done.append(number)

    asyncio.run(for_each(items(), work, in_flight=4))
    assert sorted(done) == list(range(50)) and most == 4


def test_the_first_exception_of_for_each_cancels_the_rest_and_propagates():
    cancelled: list[int] = []

    async def work(number: int) -> None:
        if number == 3:
            raise RequestFailed("three")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    with pytest.raises(RequestFailed, match="three"):
        asyncio.run(for_each(range(100), work, in_flight=4))
    assert cancelled == [0, 1, 2]


def test_a_request_that_never_reached_its_server_is_not_charged(monkeypatch):
    monkeypatch.setattr(endpoint_module, "CONNECT_SECONDS", 0.3)
    body = {"model": "stub", "messages": [], "max_tokens": 1}

    async def ask(url: str) -> None:
        servers = endpoints_module.Endpoints((url,), "", 900)
        try:
            await servers.send(body, 1, 1.0)
        finally:
            await servers.close()

    with contextlib.ExitStack() as open_sockets:
        full = open_sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # nobody takes these up, and there is room for no more
            waiting = open_sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(endpoints_module.Away):
            asyncio.run(ask(f"http://127.0.0.1:{full.getsockname()[1]}/v1"))
