"""ASGI middleware for the managed server: no request without its API key, on any path.

vLLM checks the key under /v1 alone, and the development routes that swap weights let their caller
run methods inside the engine. Other users of the machine reach 127.0.0.1 too. vLLM loads this class
through --middleware localism.serving.guard.Guard; /health stays open, since it tells nothing.
"""

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Answers 401 to whoever does not bring the key of the environment's VLLM_API_KEY."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") == "/health" or self._admits(scope):
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"the API key is missing or wrong"})

    def _admits(self, scope: Scope) -> bool:
        brought = dict(scope.get("headers", ())).get(b"authorization", b"")
        return hmac.compare_digest(brought, self._expected)
