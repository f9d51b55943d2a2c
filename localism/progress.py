"""How far a run is, in two faces: a live terminal, or plain timestamped lines."""

import os
import sys
import textwrap
import time
import unicodedata
from collections import deque
from datetime import datetime
from types import TracebackType
from typing import Self, TextIO

BAR_WIDTH = 18
PLAIN_SECONDS = 30.0
LIVE_SECONDS = 0.2
# The rate is that of the last minutes: long enough for conversations that end in bursts, short
# enough to notice a change. One sample a second, at most so many of them.
SAMPLE_SECONDS = 1.0
SAMPLES = 300
LINE_WIDTH = 88  # of finished lines on a wide terminal: durations far to the right are hard to read
# What a live line does without when the terminal is narrow, first to last.
EXPENDABLE = ("bar", "detail", "rate", "percent", "left")


class Progress:
    """One stage after another: begin, update as often as you like, end with a summary.

    On a terminal finished stages stay as one line and the live one is redrawn; elsewhere (or with
    plain=True) the same words come as one line every 30 seconds with the time in front.
    """

    def __init__(self, stream: TextIO | None = None, *, plain: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._live = not plain and self._stream.isatty()
        self._label = ""
        self._line = ""
        self._started = self._shown = 0.0
        self._counted: tuple[int | None, str] | None = None
        self._shown_done = -1
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)

    def say(self, line: str) -> None:
        """A line of its own, above the live one."""
        live = self._line
        for part in _printable(line).splitlines() or [""]:
            self._write(part)
        if live:
            self._draw(live)

    def begin(self, index: int, count: int, stage: str) -> None:
        """Stage `index` of `count` starts."""
        self._label = _label(index, count, stage)
        self._started = self._shown = time.monotonic()
        self._counted = None
        if self._live:
            self._draw(f"{self._label} started")
            self._shown = 0.0  # the first update is shown at once
        else:
            self._write(f"{self._label} started")

    def update(
        self, done: int, total: int | None = None, *, unit: str = "", detail: str = ""
    ) -> None:
        """Where the stage is. total None: unknown; done and total count `unit`s."""
        moment = time.monotonic()
        self._sample(moment, done, total, unit)
        pause = LIVE_SECONDS if self._live else PLAIN_SECONDS
        # The last one is shown whenever it comes: what follows may take long without a word.
        is_last = done == total and done != self._shown_done
        if moment - self._shown < pause and not is_last:
            return
        self._shown, self._shown_done = moment, done
        parts = self._parts(moment, done, total, unit, _printable(detail).replace("\n", " "))
        if self._live:
            self._draw(_joined(self._label, parts, self._width()))
        else:
            self._write(_joined(self._label, parts, None))

    def end(self, summary: str) -> None:
        """The stage is done."""
        self._finished(self._label, summary, duration(time.monotonic() - self._started))

    def skip(self, index: int, count: int, stage: str, summary: str) -> None:
        """The stage was done by an earlier call."""
        self._finished(_label(index, count, stage), summary, "done earlier")

    def _sample(self, moment: float, done: int, total: int | None, unit: str) -> None:
        """Note where we are; counting something else, or anew, starts the rate afresh.

        Else a resumed stage, which starts at what an earlier call finished, would look as if it
        had done all that since the engine began to load.
        """
        if (total, unit) != self._counted or (self._samples and done < self._samples[-1][1]):
            self._counted, self._shown_done = (total, unit), -1
            self._samples.clear()
        if not self._samples or moment - self._samples[-1][0] >= SAMPLE_SECONDS:
            self._samples.append((moment, done))

    def _parts(
        self, moment: float, done: int, total: int | None, unit: str, detail: str
    ) -> dict[str, str]:
        if not total:
            return {
                "position": f"{done:,} {unit}".rstrip() if done or unit else "",
                "detail": detail,
            }
        filled = BAR_WIDTH * min(done, total) // total
        parts = {
            "position": f"{done:,} / {total:,} {unit}".rstrip(),
            "bar": "#" * filled + "." * (BAR_WIDTH - filled),
            "percent": f"{100 * done // total}%",
            "rate": "",
            "detail": detail,
        }
        began, done_before = self._samples[0]
        seconds, since = moment - began, done - done_before
        if since > 0 and seconds >= SAMPLE_SECONDS:
            parts["rate"] = per_time(since / seconds)
            if done < total:
                parts["left"] = f"{duration((total - done) * seconds / since)} left"
        return parts

    def _finished(self, label: str, summary: str, note: str) -> None:
        """A line that stays: the summary beside the label, the note at the right edge."""
        first, *others = _printable(summary).splitlines() or [""]
        indent = " " * (len(label) + 1)
        if not self._live:
            self._write(f"{label} {first}   {note}")
            for line in others:
                self._write(indent + line)
            return
        width = min(self._width(), LINE_WIDTH)
        lines = [
            *_wrapped(first, width - len(indent) - len(note) - 3),
            *(part for line in others for part in _wrapped(line, width - len(indent))),
        ]
        room = width - len(note) - 3
        self._write(f"{label} {lines[0]}".ljust(room) + f"   {note}")
        for line in lines[1:]:
            self._write(indent + line)

    def _draw(self, line: str) -> None:
        self._line = line
        self._put(f"\r\x1b[2K{_cut(line, self._width())}")

    def _write(self, line: str) -> None:
        if self._live:
            self._clear()
        else:
            line = f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}"
        self._put(f"{line.rstrip()}\n")

    def _put(self, text: str) -> None:
        """A run goes on when nobody can be told: its log's disk is full, or its terminal gone."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            pass

    def _clear(self) -> None:
        if self._line:
            self._put("\r\x1b[2K")
            self._line = ""

    def _width(self) -> int:
        """Columns of the terminal that is written to, less one: a full line would wrap."""
        try:
            # Asked for each line: windows are resized. Not shutil's, which asks for stdout's.
            return (os.get_terminal_size(self._stream.fileno()).columns or 80) - 1
        except OSError:
            return 79

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self._line:
            self._put("\n")  # it stays: it says how far the run came
            self._line = ""
        self._clear()


def duration(seconds: float) -> str:
    """8s, 4m10s, 2h05m."""
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def per_time(rate: float) -> str:
    """A rate in units a second, in the time that gives a number above one: 41/s, 2.5/min."""
    name, seconds = "s", 1
    if rate < 1:
        name, seconds = ("min", 60) if rate * 60 >= 1 else ("h", 3600)
    value = rate * seconds
    return f"{value:,.0f}/{name}" if value >= 9.95 else f"{value:.1f}/{name}"


def _label(index: int, count: int, stage: str) -> str:
    return f"[{index}/{count}] {stage:<10}"


def _joined(label: str, parts: dict[str, str], width: int | None) -> str:
    """The parts in a line; width None leaves none out."""
    kept, line = dict(parts), label
    for name in ("", *EXPENDABLE):
        kept.pop(name, None)
        words = "   ".join(filter(None, kept.values()))
        if words:  # else all that is left does not fit: it is cut
            line = f"{label} {words}"
        if width is None or _columns(line) <= width:
            break
    return line


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most so many letters; a path that is longer stays whole, to be copied."""
    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False) or [
        ""
    ]


def _printable(text: str) -> str:
    """Text whose origin may be a model or a file, without what would steer the terminal."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else " " if letter.isspace() else "?"
        for letter in text
    )


def _letter_columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _columns(text: str) -> int:
    return sum(map(_letter_columns, text))


def _cut(text: str, width: int) -> str:
    """As much of the text as fits, so that the live line never wraps."""
    for end, letter in enumerate(text):
        width -= _letter_columns(letter)
        if width < 0:
            return text[:end]
    return text
