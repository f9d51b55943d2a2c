"""Where requests go: one managed engine, or several servers that run already.

A request is sent to the endpoint with the fewest outstanding ones. When a connection is lost, a
managed engine is revived and an external endpoint set aside until it answers again. The same is
done where it answers with errors alone: no fault of the request, which waits until it is well.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from localism.errors import ConfigError, StageError, raise_together
from localism.serving.endpoint import (
    PROBE_SECONDS,
    Endpoint,
    Garbled,
    Lost,
    cause_of,
    check_completion,
    connect,
    decoding,
)
from localism.serving.engine import Engine
from localism.serving.load import Load, together
from localism.tables import number_of

if TYPE_CHECKING:
    from openai import APIStatusError
    from openai.types.chat import ChatCompletion

SILENCE_SECONDS = 120.0
# How often a request that waits looks whether it may go on waiting.
CHECK_SECONDS = 5.0
# Where counters advance and no answer comes, silence may last so many times longer; not for ever,
# since it may be the requests of others that they count.
SLOW_FACTOR = 10.0
FIRST_SECONDS_PER_TOKEN = 2.0
SLOWER_THAN_SEEN = 20.0
RATE_WINDOW_SECONDS = 30.0
# At the start, when others are there: one that needs longer is set aside, and joins in later.
LIST_SECONDS = 15.0
# Tokenizing takes milliseconds; behind a queue of long prompts it has been seen to take seconds.
POST_SECONDS = 300.0
TOO_MANY_REQUESTS = 429
Answer = TypeVar("Answer")


class Away(Lost):
    """The server can answer nobody at present: no fault of the request, which waits."""

    def __init__(self, problem: str, refused: "APIStatusError | None" = None) -> None:
        super().__init__(problem)
        self.refused = refused
        """What it said, perhaps with when to come again."""


class Finished(NamedTuple):
    """A request that was answered."""

    at: float
    seconds: float
    tokens: int
    """Prompt and reply."""
    completion_tokens: int


class Pace:
    """What was answered lately: the rate, and how long silence may last before it means a hang.

    A fixed timeout drops rows on a slow machine where all is well, so silence is measured at the
    endpoint (any answer to any request ends it) and in units of what was observed: 2 s a token
    before the first answer, 20 times the slowest of the recent answers afterwards.
    """

    def __init__(self) -> None:
        self._recent: deque[Finished] = deque(maxlen=4096)
        self._rate, self._rate_at = 0.0, -math.inf
        self.finished = 0
        """Requests answered so far."""

    def note(self, seconds: float, prompt_tokens: int, completion_tokens: int) -> None:
        """A request was answered."""
        self.finished += 1
        self._recent.append(
            Finished(
                time.monotonic(), seconds, prompt_tokens + completion_tokens, completion_tokens
            )
        )

    def patience(self, tokens: int) -> float:
        """Seconds of silence that are still normal while `tokens` are worked on."""
        slowest = max((f.seconds / max(1, f.tokens) for f in self._recent), default=None)
        per_token = FIRST_SECONDS_PER_TOKEN if slowest is None else SLOWER_THAN_SEEN * slowest
        return SILENCE_SECONDS + tokens * per_token

    def tokens_per_second(self) -> float:
        """Tokens of replies a second, over the last half minute; computed once a second."""
        now = time.monotonic()
        if now - self._rate_at >= 1:
            self._rate, self._rate_at = self._recent_rate(now), now
        return self._rate

    def _recent_rate(self, now: float) -> float:
        recent = [f for f in self._recent if now - f.at < RATE_WINDOW_SECONDS]
        if not recent:
            return 0.0
        since = max(0.5, now - min(f.at - f.seconds for f in recent))
        return sum(f.completion_tokens for f in recent) / min(since, RATE_WINDOW_SECONDS)


class Endpoints:
    """All servers of a role."""

    def __init__(
        self,
        urls: tuple[str, ...],
        key: str,
        give_up_seconds: float,
        engine: Engine | None = None,
        note: Callable[..., None] = lambda *_, **__: None,
    ) -> None:
        """note(kind, url=..., ...): told of servers that are slow, set aside, or back."""
        self._key, self._give_up_seconds = key, give_up_seconds
        self._engine, self._note = engine, note
        generation = engine.generation if engine else 0
        self.all = [connect(url, key, generation) for url in urls]
        self.model_name = ""
        """As requests name it; see find_model."""
        self.pace = Pace()
        self.remedy = "restart" if engine else "set aside"
        """What is done with one that hangs."""
        self._trouble_since = math.inf
        """When the first of the failures came that no answer has followed yet."""

    async def find_model(self, name: str, where: str, *, may_wait: bool = False) -> dict[str, Any]:
        """Settle on the served name (the first listed if empty) and return its description.

        may_wait: these servers have worked before, so that none at this moment is an outage and no
        slip. Raises StageError when no endpoint answers, ConfigError when one does not serve the
        model, or is no such server at all, with those of the others beside it.
        """
        while not (described := await self._describe(name, where, may_wait)):
            if not may_wait:
                raise self._hopeless(where)
            self._check_hope()
            await asyncio.sleep(self.all[0].rest)
        self.model_name = described["id"]
        return described

    async def _describe(self, name: str, where: str, may_wait: bool) -> dict[str, Any]:
        """The model as the first endpoint that answers describes it; empty when none does."""
        described: dict[str, Any] = {}
        wrong: list[ConfigError] = []
        lists = await asyncio.gather(
            *(self._listed(endpoint, where, may_wait) for endpoint in self.all)
        )
        for endpoint, listed in zip(self.all, lists, strict=True):
            if listed is None:
                continue
            if isinstance(listed, ConfigError):
                wrong.append(listed)
                continue
            found = next((m for m in listed if m["id"] == name or not name), None)
            if found is None:
                wrong.append(_of_another(endpoint, name, listed, where))
                continue
            name, described = found["id"], described or found
        raise_together(wrong)
        return described

    async def _listed(
        self, endpoint: Endpoint, where: str, may_wait: bool
    ) -> list[dict[str, Any]] | ConfigError | None:
        """What an endpoint serves, or that it is no such server; None: away, and may come back."""
        import openai

        try:
            found = await endpoint.models(PROBE_SECONDS if len(self.all) == 1 else LIST_SECONDS)
            self._back(endpoint)
            return found
        except openai.APIConnectionError as dead:
            self._set_aside(endpoint, dead)
        except TimeoutError:
            self._set_aside(endpoint, Lost("takes connections and answers nothing"))
        except openai.APIStatusError as refused:
            if refused.status_code < 500:
                return ConfigError(
                    f"the endpoint refuses to list its models (HTTP {refused.status_code})",
                    where=f"{where}: {endpoint.url}: {refused.message}"[:400],
                    fix="name a file with its key in api_key_file"
                    if refused.status_code in (401, 403)
                    else "give the base URL of an OpenAI-compatible server, with /v1",
                )
            self._set_aside(endpoint, refused)
        except Garbled as other:
            if may_wait:
                self._set_aside(endpoint, other)
                return None
            return ConfigError(
                "the endpoint does not answer as an OpenAI-compatible server does",
                where=f"{where}: {endpoint.url}: {other}",
                fix="give the base URL of an OpenAI-compatible server, with /v1",
            )
        return None

    async def send(
        self, body: dict[str, Any], tokens: int, patience_factor: float
    ) -> "tuple[ChatCompletion, float]":
        """One attempt: the reply and its seconds.

        Raises Lost after reviving or setting aside what failed (Away when the request has no part
        in it), openai.APIStatusError when a server that answers others answers this one with an
        error, StageError when nothing can be reached any more.
        """

        async def ask(endpoint: Endpoint) -> "ChatCompletion":
            patience = self.pace.patience
            reply = await self._answer(endpoint, body, lambda: patience(tokens) * patience_factor)
            check_completion(reply)
            return reply

        return await self._ask(ask)

    async def tokenize(self, body: dict[str, Any]) -> list[int]:
        """Token ids, by the route that vLLM has beside /v1; raises as send does."""

        async def ask(endpoint: Endpoint) -> list[int]:
            try:
                answer = await asyncio.wait_for(endpoint.post("/tokenize", body), POST_SECONDS)
            except TimeoutError:
                raise TimeoutError(f"no answer to /tokenize in {POST_SECONDS:g} s") from None
            tokens = answer.get("tokens") if isinstance(answer, dict) else None
            if not isinstance(tokens, list):
                raise Garbled("what came back from /tokenize has no tokens")
            return tokens

        return (await self._ask(ask))[0]

    async def _ask(self, ask: Callable[[Endpoint], Awaitable[Answer]]) -> tuple[Answer, float]:
        """Ask the least busy endpoint once, and do what a failure asks for; answer and seconds."""
        import openai

        endpoint = await self.pick()
        request, sent = object(), time.monotonic()
        endpoint.under_way[request] = sent
        try:
            with decoding():
                answer = await ask(endpoint)
        except openai.APITimeoutError as unsent:  # what openai says when no connection stood
            await self._lost(endpoint, unsent)
            raise Away(cause_of(unsent)) from unsent
        except openai.APIConnectionError as lost:
            await self._lost(endpoint, lost)
            raise Lost(cause_of(lost)) from lost
        except TimeoutError as silent:
            is_hung = self._hangs(endpoint, time.monotonic())
            cause = "its counters stand still" if is_hung else "no reply for too long"
            await self._lost(endpoint, silent, cause=cause)
            raise Lost(str(silent)) from silent
        except (openai.APIStatusError, Garbled) as wrong:
            endpoint.last_heard = time.monotonic()
            await self._consider(endpoint, sent, wrong)
            raise
        finally:
            del endpoint.under_way[request]
        endpoint.last_heard = endpoint.last_success = time.monotonic()
        endpoint.is_slow, endpoint.problem = False, ""
        self._trouble_since = math.inf
        return answer, endpoint.last_success - sent

    async def _answer(
        self, endpoint: Endpoint, body: dict[str, Any], patience: Callable[[], float]
    ) -> "ChatCompletion":
        """The reply; TimeoutError when the endpoint hangs, or was silent for patience() seconds."""
        call = asyncio.ensure_future(endpoint.complete(body))
        sent, wait = time.monotonic(), min(SILENCE_SECONDS, CHECK_SECONDS)
        try:
            while True:
                await asyncio.wait({call}, timeout=wait)
                if call.done():
                    return call.result()
                wait = min(CHECK_SECONDS, await self._seconds_left(endpoint, sent, patience))
        finally:
            call.cancel()

    async def _seconds_left(
        self, endpoint: Endpoint, sent: float, patience: Callable[[], float]
    ) -> float:
        """How long a request may still be waited for; TimeoutError when that is over.

        An engine whose counters stand still hangs. One whose counters advance is slow: it may be
        silent for SLOW_FACTOR times as long. Of one that publishes none the silence alone counts.
        """
        await endpoint.look_again()
        moment, pulse = time.monotonic(), endpoint.pulse
        if self._hangs(endpoint, moment):
            still, running = pulse.still_seconds(moment), endpoint.outstanding
            raise TimeoutError(
                f"its counters stood still for {still:.0f} s, {number_of(running, 'request')}"
            )
        since = max(sent, endpoint.last_heard)
        if moment - since < SILENCE_SECONDS:
            return since + SILENCE_SECONDS - moment
        allowed = patience()
        if moment - since > allowed and pulse.advances(moment):
            self._say_slow(endpoint, moment)
            allowed *= SLOW_FACTOR
        if moment - since >= allowed:
            raise TimeoutError(f"nothing was answered for {allowed:.0f} s")
        return since + allowed - moment

    def _hangs(self, endpoint: Endpoint, moment: float) -> bool:
        """Whether its counters stand still; behind a URL of others they may not be those of the
        engine that answers, so that an answer counts for more there."""
        pulse = endpoint.pulse
        is_silent = moment - endpoint.last_heard > (pulse.allowed_seconds() or 0.0)
        return pulse.is_hung(moment) and (self._engine is not None or is_silent)

    def _say_slow(self, endpoint: Endpoint, moment: float) -> None:
        if not endpoint.is_slow:
            endpoint.is_slow = True
            kind = "engine_slow" if self._engine else "endpoint_slow"
            self._note(kind, url=endpoint.url, problem=endpoint.slowness(moment))

    async def _consider(
        self, endpoint: Endpoint, sent: float, wrong: "APIStatusError | Garbled"
    ) -> None:
        """Raise Away where an answer that is none tells of the server and not of the request.

        A server that answered another request meanwhile, or answers a simple one now, is well.
        """
        refused = None if isinstance(wrong, Garbled) else wrong
        if refused and refused.status_code == TOO_MANY_REQUESTS:
            self._trouble(endpoint, refused)
            self._check_hope()
            raise Away(str(refused), refused) from refused
        if endpoint.last_success > sent or (refused and refused.status_code < 500):
            return
        if not endpoint.rests_until:
            problem = await endpoint.ails(self.model_name)
            if problem is None:
                return
            await self._lost(endpoint, problem, cause="it fails at every request")
            self._check_hope()
        raise Away(str(wrong)) from wrong

    async def load(self) -> Load | None:
        """How busy the servers are; None when none is asked anything now, or one does not say."""
        asked = [one for one in self.all if one.outstanding and not one.rests_until]
        if not asked or not all(endpoint.has_figures for endpoint in asked):
            return None
        before = [endpoint.figures for endpoint in asked]
        figures = await asyncio.gather(*(endpoint.look() for endpoint in asked))
        for endpoint, found in zip(asked, figures, strict=True):
            endpoint.figures = found or endpoint.figures
        looks = [(now, old) for now, old in zip(figures, before, strict=True) if now]
        return together(looks) if len(looks) == len(asked) else None

    async def pick(self) -> Endpoint:
        """The living endpoint with the fewest outstanding requests; waits while there is none."""
        if self._engine:
            await self._engine.ready()
            if self.all[0].generation != self._engine.generation:
                await self._reconnect()
        while True:
            now = time.monotonic()
            for endpoint in self.all:
                if 0 < endpoint.rests_until <= now:
                    endpoint.rests_until = math.inf  # nobody else asks meanwhile
                    # Beside the requests: a machine that is off lets a connection hang.
                    endpoint.waking = asyncio.create_task(self._wake(endpoint))
            awake = [endpoint for endpoint in self.all if not endpoint.rests_until]
            if awake:
                return min(awake, key=lambda endpoint: endpoint.outstanding)
            self._check_hope()
            await asyncio.sleep(random.uniform(0.2, 0.6))

    async def _lost(self, endpoint: Endpoint, problem: Exception, *, cause: str = "") -> None:
        """cause: why a managed engine is ended although its process lives and says it is well."""
        if self._engine:
            await self._engine.revive(endpoint.generation, self.pace.finished, cause=cause)
        else:
            self._set_aside(endpoint, problem)

    def _set_aside(self, endpoint: Endpoint, problem: Exception) -> None:
        """No requests for a while."""
        self._trouble(endpoint, problem)
        if not endpoint.is_away:
            self._note("endpoint_away", url=endpoint.url, problem=cause_of(problem))
        endpoint.lie_down()

    def _trouble(self, endpoint: Endpoint, problem: Exception) -> None:
        endpoint.problem = cause_of(problem)
        self._trouble_since = min(self._trouble_since, time.monotonic())

    async def _wake(self, endpoint: Endpoint) -> None:
        """Back to work if it is well, otherwise another, longer rest."""
        problem = await endpoint.ails(self.model_name)
        if problem:
            endpoint.rests_until = 0.0
            self._set_aside(endpoint, problem)
            return
        self._back(endpoint)

    def _back(self, endpoint: Endpoint) -> None:
        if endpoint.is_away:
            self._note("endpoint_back", url=endpoint.url)
        endpoint.get_up()

    async def _reconnect(self) -> None:
        """The engine was started again, on another port."""
        assert self._engine is not None
        old = self.all[0]
        self.all = [connect(self._engine.url, self._key, self._engine.generation)]
        await old.api.close()

    def _check_hope(self) -> None:
        """StageError when no external endpoint has answered anything for too long."""
        if not self._engine and time.monotonic() - self._trouble_since > self._give_up_seconds:
            raise self._hopeless("endpoints")

    def _hopeless(self, where: str) -> StageError:
        problems = [f"{one.url}: {one.problem}" for one in self.all if one.problem]
        return StageError(
            "no endpoint answers",
            where=f"{where}: {'; '.join(problems)}",
            fix="start the model servers, or mend their URLs in models.toml; then run the same "
            "command again: what is finished is kept",
        )

    async def close(self) -> None:
        """Close all connections."""
        for endpoint in self.all:
            await endpoint.close()


def _of_another(
    endpoint: Endpoint, name: str, listed: list[dict[str, Any]], where: str
) -> ConfigError:
    return ConfigError(
        f"the endpoint does not serve {name!r}",
        where=f"{where}: {endpoint.url}",
        fix=f"set served_name to one of: {', '.join(m['id'] for m in listed)}",
    )
