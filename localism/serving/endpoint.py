"""One server: what is asked of it, whether what comes back is an answer, and its rests."""

import asyncio
import json
import math
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from localism.serving.load import LOOK_SECONDS, Figures, read_figures
from localism.serving.pulse import Pulse

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

CONNECT_SECONDS = 10.0
# vLLM closes idle connections after 5 s; a request sent into one that just closes would be lost.
KEEP_ALIVE_SECONDS = 2.0
REST_SECONDS = (2.0, 60.0)
METRICS_SECONDS = 5.0
# For a list of models and a word; a server that works takes milliseconds, under load seconds.
PROBE_SECONDS = 60.0
# Asked to learn whether a server answers anything at all; no turn of any row.
PING = "ping"
SHOWN_CHARACTERS = 80


class Lost(Exception):
    """The connection broke, or nothing was heard for too long; the request may be sent again."""


class Garbled(Lost):
    """Something came back, and it is no answer."""


@dataclass
class Endpoint:
    """One server."""

    url: str
    """Base URL, with /v1."""
    api: "AsyncOpenAI"
    """Client of the openai package on aiohttp: 2 to 3 ms of CPU a request, measured."""
    generation: int = 0
    """Of the managed engine that it belongs to."""
    under_way: dict[object, float] = field(default_factory=dict)
    """When each request was sent that is not answered, the oldest first."""
    last_heard: float = field(default_factory=time.monotonic)
    """When it last answered anything."""
    last_success: float = -math.inf
    """When it last answered a request with what was asked for."""
    rests_until: float = 0.0
    """External: no request goes there before; 0 while it works."""
    is_away: bool = False
    """It was set aside and has not been well since."""
    problem: str = ""
    """Why it answered nothing last; empty once it answers."""
    rest: float = field(default_factory=lambda: REST_SECONDS[0])
    """Its next rest, in seconds; doubles while it stays dead."""
    waking: "asyncio.Task[None] | None" = None
    """Looks whether it is back."""
    probing: "asyncio.Task[Exception | None] | None" = None
    """Asks whether it is well; all who want to know at the same moment wait for the same answer."""
    figures: Figures | None = None
    """What it said of its load when it was last asked."""
    has_figures: bool = True
    """False once it turned out to publish none: a proxy, or another kind of server."""
    pulse: Pulse = field(default_factory=Pulse)
    """What its counters do."""
    looking: "asyncio.Task[Figures | None] | None" = None
    """Looks at its figures for all requests that have waited long."""
    is_slow: bool = False
    """It was said that it is slow, and it has not answered since."""

    @property
    def outstanding(self) -> int:
        """Requests sent and not answered."""
        return len(self.under_way)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """JSON of a route that stands beside /v1."""
        return await self.api.post(self.url.removesuffix("/v1") + path, cast_to=object, body=body)

    async def complete(self, body: dict[str, Any]) -> "ChatCompletion":
        """The reply to a chat; it may be of any shape.

        Not by api.chat.completions.create, which compares every key of every message with its
        types: a quarter of what a request takes on this side, measured.
        """
        from openai.types.chat import ChatCompletion

        return await self.api.post("/chat/completions", cast_to=ChatCompletion, body=body)

    async def models(self, patience: float) -> list[dict[str, Any]]:
        """What it serves, in so many seconds. Raises openai.OpenAIError, Garbled, TimeoutError."""
        with decoding():
            listed = await asyncio.wait_for(self.api.get("/models", cast_to=object), patience)
        found = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(found, list) or not all(map(_is_model, found)):
            raise Garbled(f"its list of models is none: {_beginning(listed)}")
        return found

    async def look(self) -> Figures | None:
        """Its load now; None when it publishes none, or does not answer this time."""
        import openai

        figures = None
        try:
            with decoding():
                text = await self.api.get(
                    self.url.removesuffix("/v1") + "/metrics",
                    cast_to=str,
                    # A redirect could lead to a host that may not be reached.
                    options={"timeout": METRICS_SECONDS, "follow_redirects": False},
                )
            # Not a sign of life: the API process answers this while the engine behind it hangs.
            figures = read_figures(text)
            self.has_figures = figures is not None
        except (openai.APIConnectionError, Garbled):
            pass
        except openai.APIStatusError as refused:
            self.has_figures = refused.status_code >= 500
        self.pulse.note(figures, time.monotonic())
        return figures

    def slowness(self, moment: float) -> str:
        """In words, how slow it is."""
        oldest = moment - min(self.under_way.values(), default=moment)
        return f"slow: {self.pulse.tokens_per_second():.3g} tok/s, oldest request {oldest:.0f} s"

    async def look_again(self) -> None:
        """Look, unless that was done just now; many who want to know share one look."""
        if not self.has_figures or time.monotonic() - self.pulse.looked < LOOK_SECONDS:
            return
        if self.looking is None or self.looking.done():
            self.looking = asyncio.create_task(self.look())
        await asyncio.shield(self.looking)

    async def ails(self, model: str) -> Exception | None:
        """Why it can answer nobody; None when it lists the model and says a word."""
        if self.probing is None or self.probing.done():
            self.probing = asyncio.create_task(self._probe(model))
        return await asyncio.shield(self.probing)

    async def _probe(self, model: str) -> Exception | None:
        import openai

        try:
            names = [described["id"] for described in await self.models(PROBE_SECONDS)]
            if model not in names:
                return Lost(f"serves {', '.join(names)} and no longer {model}")
            messages = [{"role": "user", "content": PING}]
            ask = self.complete({"model": model, "messages": messages, "max_tokens": 1})
            with decoding():
                check_completion(await asyncio.wait_for(ask, PROBE_SECONDS))
        except TimeoutError:
            return Lost(f"takes connections and answered nothing in {PROBE_SECONDS:g} s")
        except (openai.OpenAIError, Lost) as problem:
            return problem
        return None

    def lie_down(self) -> None:
        """No requests for a while; many that fail at the same moment count once."""
        if not self.rests_until:
            self.is_away, self.rests_until = True, time.monotonic() + self.rest
            self.rest = min(2 * self.rest, REST_SECONDS[1])

    def get_up(self) -> None:
        """Back to work."""
        self.is_away, self.rests_until, self.rest = False, 0.0, REST_SECONDS[0]
        self.last_heard, self.problem = time.monotonic(), ""

    async def close(self) -> None:
        """Close its connections."""
        for task in (self.waking, self.probing, self.looking):
            if task:
                task.cancel()
        await self.api.close()


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


# ---- what came back ------------------------------------------------------------------------


@contextmanager
def decoding() -> Iterator[None]:
    """Garbled for bytes that are no HTTP or no JSON, which the openai package lets through."""
    import aiohttp

    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError, aiohttp.ClientError) as unreadable:
        first = str(unreadable).partition("\n")[0]
        raise Garbled(f"what came back cannot be read: {first[:SHOWN_CHARACTERS]}") from unreadable


def check_completion(reply: Any) -> None:
    """Raise Garbled unless this has what a turn is made of: the openai package takes any JSON."""
    choices, usage = getattr(reply, "choices", None), getattr(reply, "usage", None)
    choice: Any = choices[0] if isinstance(choices, list) and choices else None
    message: Any = getattr(choice, "message", None)
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    is_whole = getattr(message, "role", None) == "assistant" and (
        isinstance(message.content, str | None)
        and isinstance(choice.finish_reason, str | None)
        and (usage is None or all(isinstance(count, int) for count in counts))
    )
    if not is_whole:
        raise Garbled(f"what came back is no chat completion: {_beginning(reply)}")


def _is_model(described: Any) -> bool:
    return isinstance(described, dict) and isinstance(described.get("id"), str)


def _beginning(answer: Any) -> str:
    return " ".join(str(answer).split())[:SHOWN_CHARACTERS]


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
