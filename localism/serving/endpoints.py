"""Where requests go: one managed engine, or several servers that run already.

A request is sent to the endpoint with the fewest outstanding ones. When a connection is lost, a
managed engine is revived and an external endpoint set aside until it lists the model again.
"""

import asyncio
import math
import os
import random
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from localism.errors import ConfigError, StageError
from localism.serving.engine import Engine
from localism.serving.load import Figures, Load, read_figures, together

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

CONNECT_SECONDS = 10.0
# vLLM closes idle connections after 5 s; a request sent into one that just closes would be lost.
KEEP_ALIVE_SECONDS = 2.0
REST_SECONDS = (2.0, 60.0)
SILENCE_SECONDS = 120.0
FIRST_SECONDS_PER_TOKEN = 2.0
SLOWER_THAN_SEEN = 20.0
RATE_WINDOW_SECONDS = 30.0
# A proxy's word that the server behind it is away: no fault of the request, which waits as for a
# broken connection.
GATEWAY_STATUS = frozenset({502, 503, 504})
# Tokenizing takes milliseconds; behind a queue of long prompts it has been seen to take seconds.
POST_SECONDS = 300.0
METRICS_SECONDS = 5.0


class Lost(Exception):
    """The connection broke, or nothing was heard for too long; the request may be sent again."""


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
        """Tokens of replies over the last half minute."""
        now = time.monotonic()
        recent = [f for f in self._recent if now - f.at < RATE_WINDOW_SECONDS]
        if not recent:
            return 0.0
        since = max(0.5, now - min(f.at - f.seconds for f in recent))
        return sum(f.completion_tokens for f in recent) / min(since, RATE_WINDOW_SECONDS)


@dataclass
class Endpoint:
    """One server."""

    url: str
    """Base URL, with /v1."""
    api: "AsyncOpenAI"
    """Client of the openai package on aiohttp: 2 to 3 ms of CPU a request, measured."""
    generation: int = 0
    """Of the managed engine that it belongs to."""
    outstanding: int = 0
    """Requests sent and not answered."""
    last_heard: float = field(default_factory=time.monotonic)
    """When it last answered anything."""
    rests_until: float = 0.0
    """External: no request goes there before; 0 while it works."""
    rest: float = field(default_factory=lambda: REST_SECONDS[0])
    """Its next rest, in seconds; doubles while it stays dead."""
    waking: "asyncio.Task[None] | None" = None
    """Asks whether it is back."""
    figures: Figures | None = None
    """What it said of its load when it was last asked."""
    has_figures: bool = True
    """False once it turned out to publish none: a proxy, or another kind of server."""

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """JSON of a route that stands beside /v1."""
        return await self.api.post(self.url.removesuffix("/v1") + path, cast_to=object, body=body)

    async def look(self) -> Figures | None:
        """Its load now; None when it publishes none, or does not answer this time."""
        import openai

        try:
            text = await self.api.get(
                self.url.removesuffix("/v1") + "/metrics",
                cast_to=str,
                # A redirect could lead to a host that may not be reached.
                options={"timeout": METRICS_SECONDS, "follow_redirects": False},
            )
        except openai.APIConnectionError:
            return None
        except openai.APIStatusError as refused:
            self.has_figures = refused.status_code >= 500
            return None
        # Not a sign of life: the API process answers this while the engine behind it hangs.
        figures = read_figures(text)
        self.has_figures = figures is not None
        return figures


def connect(url: str, key: str, generation: int = 0) -> Endpoint:
    """An endpoint; nothing is sent yet."""
    import httpx2
    import openai

    transport = openai.DefaultAioHttpClient(
        # How long a reply may take is decided by Pace, not here.
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        # How many requests are sent at once is decided by serving.load.
        limits=httpx2.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_SECONDS),
    )
    api = openai.AsyncOpenAI(
        base_url=url,
        api_key=key or "none",
        max_retries=0,
        http_client=transport,
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
    )
    return Endpoint(url.rstrip("/"), api, generation)


class Endpoints:
    """All servers of a role."""

    def __init__(
        self,
        urls: tuple[str, ...],
        key: str,
        give_up_seconds: float,
        engine: Engine | None = None,
    ) -> None:
        self._key, self._give_up_seconds = key, give_up_seconds
        self._engine = engine
        generation = engine.generation if engine else 0
        self.all = [connect(url, key, generation) for url in urls]
        self.model_name = ""
        """As requests name it; see find_model."""
        self.pace = Pace()
        self._last_success = time.monotonic()
        self._last_problem = ""

    async def find_model(self, name: str, where: str) -> dict[str, Any]:
        """Settle on the served name (the first listed if empty) and return its description.

        Raises StageError when no endpoint answers, ConfigError when one does not serve the model.
        """
        import openai

        described: dict[str, Any] = {}
        for endpoint in self.all:
            try:
                listed = [model.model_dump() async for model in endpoint.api.models.list()]
            except openai.APIConnectionError as dead:
                self._set_aside(endpoint, dead)
                continue
            except openai.APIStatusError as refused:
                raise ConfigError(
                    f"the endpoint refuses to list its models (HTTP {refused.status_code})",
                    where=f"{where}: {endpoint.url}: {refused.message}"[:400],
                    fix="name a file with its key in api_key_file"
                    if refused.status_code in (401, 403)
                    else "give the base URL of an OpenAI-compatible server, with /v1",
                ) from None
            found = next((m for m in listed if m["id"] == name or not name), None)
            if found is None:
                raise ConfigError(
                    f"the endpoint does not serve {name!r}",
                    where=f"{where}: {endpoint.url}",
                    fix=f"set served_name to one of: {', '.join(m['id'] for m in listed)}",
                )
            name, described = found["id"], described or found
        if not described:
            raise self._hopeless(where)
        self.model_name = name
        return described

    async def send(
        self, body: dict[str, Any], tokens: int, patience_factor: float
    ) -> "tuple[ChatCompletion, float]":
        """One attempt: the reply and its seconds.

        Raises Lost after reviving or setting aside what failed, openai.APIStatusError when the
        server answers with an error, StageError when nothing can be reached any more.
        """
        import openai

        endpoint = await self.pick()
        endpoint.outstanding += 1
        sent = time.monotonic()
        try:
            reply = await _answer(
                endpoint, body, lambda: self.pace.patience(tokens) * patience_factor
            )
        except openai.APIConnectionError as lost:
            await self._lost(endpoint, lost)
            raise Lost(cause_of(lost)) from lost
        except TimeoutError as silent:
            await self._lost(endpoint, silent, is_silent=True)
            raise Lost(str(silent)) from silent
        except openai.APIStatusError as refused:
            endpoint.last_heard = time.monotonic()
            if refused.status_code in GATEWAY_STATUS and not self._engine:
                self._set_aside(endpoint, refused)
                raise Lost(f"HTTP {refused.status_code} from {endpoint.url}") from refused
            raise
        finally:
            endpoint.outstanding -= 1
        endpoint.last_heard = self._last_success = time.monotonic()
        return reply, endpoint.last_heard - sent

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """JSON of a quick route beside /v1; raises as send does."""
        import openai

        endpoint = await self.pick()
        endpoint.outstanding += 1
        try:
            answer = await asyncio.wait_for(endpoint.post(path, body), POST_SECONDS)
        except openai.APIConnectionError as lost:
            await self._lost(endpoint, lost)
            raise Lost(cause_of(lost)) from lost
        except TimeoutError as silent:
            await self._lost(endpoint, silent, is_silent=True)
            raise Lost(f"no answer to {path} in {POST_SECONDS:g} s") from silent
        finally:
            endpoint.outstanding -= 1
        endpoint.last_heard = self._last_success = time.monotonic()
        return answer

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
            if now - self._last_success > self._give_up_seconds:
                raise self._hopeless("endpoints")
            await asyncio.sleep(random.uniform(0.2, 0.6))

    async def _lost(
        self, endpoint: Endpoint, problem: Exception, *, is_silent: bool = False
    ) -> None:
        if self._engine:
            await self._engine.revive(endpoint.generation, self.pace.finished, is_silent=is_silent)
        else:
            self._set_aside(endpoint, problem)

    def _set_aside(self, endpoint: Endpoint, problem: Exception) -> None:
        """No requests for a while; many that fail at the same moment count once."""
        self._last_problem = f"{endpoint.url}: {cause_of(problem)}"
        if not endpoint.rests_until:
            endpoint.rests_until = time.monotonic() + endpoint.rest
            endpoint.rest = min(2 * endpoint.rest, REST_SECONDS[1])

    async def _wake(self, endpoint: Endpoint) -> None:
        """Back to work if it lists the model, otherwise another, longer rest."""
        import openai

        try:
            names = [model.id async for model in endpoint.api.models.list()]
            if self.model_name not in names:
                raise Lost(f"serves {', '.join(names)} and no longer {self.model_name}")
        except (openai.OpenAIError, Lost) as dead:
            endpoint.rests_until = 0.0
            self._set_aside(endpoint, dead)
            return
        endpoint.rests_until, endpoint.rest = 0.0, REST_SECONDS[0]
        endpoint.last_heard = time.monotonic()

    async def _reconnect(self) -> None:
        """The engine was started again, on another port."""
        assert self._engine is not None
        old = self.all[0]
        self.all = [connect(self._engine.url, self._key, self._engine.generation)]
        await old.api.close()

    def _hopeless(self, where: str) -> StageError:
        return StageError(
            "no endpoint answers",
            where=f"{where}: {self._last_problem}",
            fix="start the model servers, or mend their URLs in models.toml; then run the same "
            "command again: what is finished is kept",
        )

    async def close(self) -> None:
        """Close all connections."""
        for endpoint in self.all:
            if endpoint.waking:
                endpoint.waking.cancel()
            await endpoint.api.close()


def cause_of(problem: BaseException) -> str:
    """Why a connection failed; the openai package says "timed out" of each that never stood."""
    cause = problem
    while deeper := cause.__cause__ or cause.__context__:
        cause = deeper
    if isinstance(cause, socket.gaierror | ssl.SSLError):  # their numbers are not the system's
        return cause.strerror or str(cause)
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    return str(problem)


async def _answer(
    endpoint: Endpoint, body: dict[str, Any], patience: Callable[[], float]
) -> "ChatCompletion":
    """The reply; TimeoutError when the endpoint answered nothing at all for patience() seconds."""
    call = asyncio.ensure_future(endpoint.api.chat.completions.create(**body))
    sent = time.monotonic()
    remaining = SILENCE_SECONDS
    try:
        while True:
            await asyncio.wait({call}, timeout=remaining)
            if call.done():
                return call.result()
            allowed, silent_since = patience(), max(sent, endpoint.last_heard)
            remaining = silent_since + allowed - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"nothing was answered for {allowed:.0f} s")
    finally:
        call.cancel()
