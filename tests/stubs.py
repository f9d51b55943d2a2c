"""A small HTTP server that behaves as told, for tests of the client; no model behind it."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from engines import NewContext, embedded_config

from localism.records import Sampling
from localism.serving import endpoint as endpoint_module
from localism.serving import retries as retries_module
from localism.serving.client import Client
from localism.serving.server import serve

SHORT = Sampling(temperature=0.0, top_p=1.0, max_tokens=8)


class Stub(ThreadingHTTPServer):
    """An OpenAI-like server. `behave(prompt, n)` gives (status, seconds) for its n-th request.

    The client's own question whether it is well is answered likewise, and not among those `asked`.
    """

    daemon_threads = True

    def __init__(self, behave: Callable[[str, int], tuple[int, float]], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.behave = behave
        self.asked: list[str] = []
        self.questions = 0
        self.headers: dict[str, str] = {}
        self.is_down = False
        self.listing = 200
        self.figures: str | Callable[[], str] | None = None
        self.looks = 0
        self.model = "stub"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def go_down(self) -> None:
        """Answer nobody any more, on open connections neither."""
        self.is_down = True
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A client that gave up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Stub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.server.looks += 1
            page = self.server.figures
            page = page() if callable(page) else page
            self._send_bytes(404 if page is None else 200, (page or "").encode())
            return
        self._send(
            self.server.listing,
            {
                "object": "list",
                "data": [
                    {"id": self.server.model, "object": "model", "created": 0, "owned_by": "us"}
                ],
            },
        )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/tokenize":
            text = body.get("prompt", "") or "".join(m["content"] for m in body["messages"])
            self._send(200, {"tokens": [ord(letter) for letter in text]})
            return
        prompt = body["messages"][-1]["content"]
        if prompt != endpoint_module.PING:
            self.server.asked.append(prompt)
        self.server.questions += 1
        status, seconds = self.server.behave(prompt, self.server.questions)
        time.sleep(seconds)
        if status != 200:
            self._send(status, {"error": {"message": f"the stub says {status}"}})
            return
        reply = {"role": "assistant", "content": f"re: {prompt}"}
        self._send(
            200,
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "stub",
                "choices": [{"index": 0, "message": reply, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            },
        )

    def _send(self, status: int, content: dict[str, Any]) -> None:
        if self.server.is_down:
            self.close_connection = True
            return
        self._send_bytes(status, json.dumps(content).encode())

    def _send_bytes(self, status: int, data: bytes) -> None:
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules in milliseconds."""
    monkeypatch.setattr(retries_module, "BACKOFF_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(endpoint_module, "REST_SECONDS", (0.2, 0.4))


@pytest.fixture
def stub() -> Iterator[Callable[..., Stub]]:
    started: list[Stub] = []

    def start(behave: Callable[[str, int], tuple[int, float]] = lambda *_: (200, 0), port: int = 0):
        started.append(Stub(behave, port))
        return started[-1]

    yield start
    for server in started:
        server.go_down()


def with_client(
    new_context: NewContext, urls: tuple[str, ...], work: Callable[[Client], Any], **teacher: Any
) -> Any:
    """Run work(client) for a teacher behind these endpoints; returns its result and the context."""
    table = {"path": "", "endpoints": urls, **teacher}
    context = new_context(embedded_config(teacher=table))

    async def run() -> Any:
        async with serve(context, "teacher", "generate") as client:
            return await work(client)

    return asyncio.run(run()), context


async def say(client: Client, prompt: str) -> str:
    reply = await client.conversation().say(prompt, template="draft", sampling=SHORT)
    return reply.text
