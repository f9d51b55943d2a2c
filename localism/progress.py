"""How far a run is, in two faces: a live terminal, or plain timestamped lines."""

import sys
import time
from datetime import datetime
from types import TracebackType
from typing import Self, TextIO

BAR_WIDTH = 18
PLAIN_SECONDS = 30.0
LIVE_SECONDS = 0.2


class Progress:
    """One stage after another: begin, update as often as you like, end with a summary.

    On a terminal finished stages stay as one line and the live one is redrawn; elsewhere (or with
    plain=True) the same words come as one line every 30 seconds with the time in front.
    """

    def __init__(self, stream: TextIO | None = None, *, plain: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._live = not plain and self._stream.isatty()
        self._label = ""
        self._started = self._shown = 0.0
        self._first: tuple[float, int] | None = None

    def say(self, line: str) -> None:
        """A line of its own, above the live one."""
        self._clear()
        self._write(line)

    def begin(self, index: int, count: int, stage: str) -> None:
        """Stage `index` of `count` starts."""
        self._label = f"[{index}/{count}] {stage:<10}"
        self._started, self._shown, self._first = time.monotonic(), 0.0, None
        if not self._live:
            self._write(f"{self._label} started")
            self._shown = time.monotonic()

    def update(
        self, done: int, total: int | None = None, *, unit: str = "", detail: str = ""
    ) -> None:
        """Where the stage is. total None: unknown; done and total count `unit`s."""
        moment = time.monotonic()
        if self._first is None or done < self._first[1]:
            self._first = (moment, done)
        if moment - self._shown < (LIVE_SECONDS if self._live else PLAIN_SECONDS):
            return
        self._shown = moment
        line = f"{self._label} {self._position(done, total, unit, moment)}"
        line += f"   {detail}" if detail else ""
        if self._live:
            self._stream.write(f"\r\x1b[2K{_fit(line)}")
            self._stream.flush()
        else:
            self._write(line)

    def end(self, summary: str) -> None:
        """The stage is done."""
        self._clear()
        self._write(f"{self._label} {summary}   {duration(time.monotonic() - self._started)}")

    def skip(self, index: int, count: int, stage: str, summary: str) -> None:
        """The stage was done by an earlier call."""
        self._write(f"[{index}/{count}] {stage:<10} {summary}   done earlier")

    def _position(self, done: int, total: int | None, unit: str, moment: float) -> str:
        if not total:
            return f"{done:,} {unit}".rstrip()
        filled = BAR_WIDTH * done // total
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        text = f"{done:,} / {total:,} {unit}".rstrip() + f"  {bar}  {100 * done // total}%"
        seconds, since = moment - self._first[0], done - self._first[1]  # type: ignore[index]
        if since > 0 and seconds > 0:
            rate = since / seconds
            text += f"   {rate:.1f}/s   {duration((total - done) / rate)} left"
        return text

    def _clear(self) -> None:
        if self._live:
            self._stream.write("\r\x1b[2K")

    def _write(self, line: str) -> None:
        stamp = "" if self._live else f"{datetime.now():%H:%M:%S} "
        self._stream.write(f"{stamp}{line}\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()


def duration(seconds: float) -> str:
    """8s, 4m10s, 2h05m."""
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _fit(line: str) -> str:
    """Cut to the terminal's width, so that the live line never wraps."""
    import shutil

    return line[: max(20, shutil.get_terminal_size().columns - 1)]
