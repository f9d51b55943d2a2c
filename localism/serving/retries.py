"""When a request is sent again, after how long, and when its row is given up."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from localism.serving.endpoint import Lost
from localism.serving.endpoints import Away

if TYPE_CHECKING:
    from openai import APIStatusError

Answer = TypeVar("Answer")

ATTEMPTS = 6
BACKOFF_SECONDS = (0.5, 30.0)
# Besides 5xx: a server's own time limit. Other 4xx never get better; 429 is waited for, see Away.
RETRIED_STATUS = frozenset({408})
MOST_DOUBLINGS = 10
LONGEST_ASKED_SECONDS = 60.0


class RequestFailed(Exception):
    """This request cannot be answered: the row failed, and `reason` is recorded."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def retried(send: Callable[[float], Awaitable[Answer]]) -> Answer:
    """send(patience factor) until it answers. RequestFailed: refused, or ATTEMPTS ran out.

    An attempt that failed because the server is away, or too busy, is none of the request's.
    """
    import openai

    attempt = waits = 0
    while True:
        try:
            return await send(2.0**attempt)
        except Away as away:
            waits += 1
            await asyncio.sleep(backoff(waits, away.refused))
            continue
        except openai.APIStatusError as error:
            if error.status_code < 500 and error.status_code not in RETRIED_STATUS:
                raise RequestFailed(reason_of(error)) from None
            problem, wait = reason_of(error), backoff(attempt, error)
        except Lost as lost:
            problem, wait = str(lost), backoff(0)
        attempt += 1
        if attempt == ATTEMPTS:
            raise RequestFailed(f"no answer in {ATTEMPTS} attempts; the last: {problem}")
        await asyncio.sleep(wait)


def reason_of(error: "APIStatusError") -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return f"HTTP {error.status_code}: {message or error.message}"[:500]


def backoff(attempt: int, error: "APIStatusError | None" = None) -> float:
    """Seconds to wait: doubling, with jitter so that many do not come back in one wave."""
    first, most = BACKOFF_SECONDS
    wait = min(most, first * 2.0 ** min(attempt, MOST_DOUBLINGS)) * random.uniform(0.5, 1.5)
    asked = error.response.headers.get("retry-after", "") if error else ""
    return max(wait, min(LONGEST_ASKED_SECONDS, _seconds_asked(asked)))


def _seconds_asked(retry_after: str) -> float:
    """The header's seconds, or the time until its date; 0 for anything else."""
    try:
        return float(retry_after) if retry_after[:1].isdigit() else _seconds_until(retry_after)
    except ValueError:
        return 0.0


def _seconds_until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()
