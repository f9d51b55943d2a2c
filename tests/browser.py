"""A page in a headless Chromium, driven over the browser's debugging pipe.

No driver is installed and no port is opened: Chromium reads JSON messages from descriptor 3 and
writes them to descriptor 4, each ended by a zero byte.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip
LIMIT_SECONDS = 60


def chromium() -> str | None:
    """The browser's program, or None where there is none."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """One page; use as a context. `requests` and `messages` hold what it fetched and said."""

    def __init__(self, program: str, profile: Path, width: int = 1100, height: int = 900) -> None:
        self.requests: list[str] = []
        self.messages: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._buffer = b""
        self._sent = 0
        self._process, self._to, self._from = _start(program, profile)
        target = self._command("Target.createTarget", None, url="about:blank")["targetId"]
        self._session = self._command("Target.attachToTarget", None, targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.command(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._to)
        os.close(self._from)

    def resize(self, width: int, height: int) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def prefer(self, scheme: str) -> None:
        """The system's colours: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])

    def open(self, path: Path) -> float:
        """Load a file; returns the seconds until its load event."""
        started = time.monotonic()
        self._events.clear()
        self.command("Page.navigate", url=path.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._take(self._read())
        return time.monotonic() - started

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is waited for. Its error fails the test."""
        done = self.command(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key goes down and up, as from a keyboard."""
        text = "\r" if key == "Enter" else ""
        for kind in ("keyDown", "keyUp"):
            self.command(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text,
                windowsVirtualKeyCode=code,
            )  # fmt: skip

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        done = self.command("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(done["data"]))

    def pdf(self, path: Path) -> None:
        done = self.command("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        path.write_bytes(base64.b64decode(done["data"]))

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._command(method, self._session, **parameters)

    def _command(self, method: str, session: str | None, **parameters: Any) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._sent:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._take(answer)

    def _read(self) -> dict[str, Any]:
        deadline = time.monotonic() + LIMIT_SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], deadline - time.monotonic())
            new = os.read(self._from, 1 << 20) if ready else b""
            if not new:
                raise TimeoutError(f"Chromium said nothing for {LIMIT_SECONDS} s, or ended")
            self._buffer += new
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _take(self, event: dict[str, Any]) -> None:
        if "method" not in event:
            return
        self._events.append(event)
        method, said = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Log.entryAdded":
            self.messages.append(said["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(json.dumps(said["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(said["exceptionDetails"]))


def _start(program: str, profile: Path) -> tuple["subprocess.Popen[bytes]", int, int]:
    """The browser, and the descriptors to write to and to read from."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Out of the way of 3 and 4, to which the shell moves them.
    given = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]
    process = subprocess.Popen(
        ["/bin/bash", "-c", f'exec "$@" 3<&{given[0]} 4>&{given[1]}', "bash", program, *QUIET,
         f"--user-data-dir={profile}"],
        pass_fds=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for one in (theirs_in, theirs_out, *given):
        os.close(one)
    return process, ours_out, ours_in
