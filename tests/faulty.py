"""A proxy before a server that passes requests on, or fails as told, for tests and benchmarks."""

import http.client
import json
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from localism.serving.endpoint import PING

Fault = Callable[["Handler"], None]
WHOLE = {
    "id": "1", "object": "chat.completion", "created": 0, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "never to be a row"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip


def status(code: int, **headers: str) -> Fault:
    """An error of the server's own, in its own form."""
    body = json.dumps({"error": {"message": f"the proxy says {code}"}}).encode()
    return lambda handler: handler.answer(code, body, "application/json", **headers)


def body(text: str, kind: str = "application/json") -> Fault:
    """HTTP 200 with this content."""
    return lambda handler: handler.answer(200, text.encode(), kind)


def raw(data: bytes) -> Fault:
    """These bytes, whatever they are, and the end of the connection."""

    def send(handler: "Handler") -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return send


def silence(handler: "Handler") -> None:
    """Nothing, until the proxy closes or the client leaves."""
    handler.connection.settimeout(0.1)
    while not handler.server.is_closing:
        try:
            if not handler.connection.recv(1, socket.MSG_PEEK):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    handler.close_connection = True


def reset(handler: "Handler") -> None:
    """The connection is torn down."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


GARBAGE: dict[str, Fault] = {
    "not HTTP": raw(b"\x00\xff\x13\x37 this is no HTTP\r\n\r\n"),
    "broken JSON": body('{"id": "1", "choices": [{'),
    "HTML": body("<html>Please sign in</html>", "text/html"),
    "HTML called JSON": body("<html>Please sign in</html>"),
    "another shape": body('{"answer": 42}'),
    "no choice": body(json.dumps(WHOLE | {"choices": []})),
    "no message": body(json.dumps(WHOLE | {"choices": [{"index": 0}]})),
    "a number for text": body(
        json.dumps(WHOLE | {"choices": [{"message": {"role": "assistant", "content": 5}}]})
    ),
    "words for counts": body(json.dumps(WHOLE | {"usage": {"prompt_tokens": "many"}})),
    "null": body("null"),
    "truncated": raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"
        + json.dumps(WHOLE).encode()[:60]
    ),
    "truncated, no length": raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
        + json.dumps(WHOLE).encode()[:60]
    ),
}
"""Answers that are none."""


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server at a base URL; `fault` is what it does instead.

    `spared` paths are always passed on: a proxy may list models while nothing else works.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, url: str, fault: Fault | None = None, spared: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.fault, self.spared = urlsplit(url), fault, spared
        self.passed = self.failed = self.replies = 0
        """Requests passed on, failed, and replies given to what is no mere look."""
        self.is_closing = False
        self._seconds: float | None = None
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def fail_for(self, seconds: float, fault: Fault) -> None:
        """Fail from now on, until so long after the first request that is failed."""
        self.fault, self._seconds = fault, seconds

    def note_failure(self) -> None:
        """Count it, and begin the time that is left."""
        self.failed += 1
        seconds, self._seconds = self._seconds, None
        if seconds is not None:
            threading.Timer(seconds, setattr, (self, "fault", None)).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self.is_closing = True
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A client that left is no news."""


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    server: Proxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Pass on, or fail."""
        self._handle()

    def do_POST(self) -> None:
        """Pass on, or fail."""
        self._handle()

    def _handle(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = self.server.fault
        if fault and self.path not in self.server.spared:
            self.server.note_failure()
            fault(self)
            return
        behind = self.server.behind
        assert behind.hostname
        connection = http.client.HTTPConnection(behind.hostname, behind.port, timeout=600)
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("host", "connection", "accept-encoding")
        }
        connection.request(self.command, self.path, content, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        self.server.passed += 1
        if answer.status == 200 and self.path.endswith("/chat/completions"):
            self.server.replies += json.loads(content)["messages"][-1]["content"] != PING
        self.answer(answer.status, data, answer.headers.get_content_type())

    def answer(self, code: int, data: bytes, kind: str, **headers: str) -> None:
        """An HTTP answer."""
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
