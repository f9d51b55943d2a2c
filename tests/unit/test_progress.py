"""Progress, as its two readers see it: a terminal (a real pty, read back) and a log file."""

import fcntl
import io
import os
import pty
import re
import struct
import termios
import unicodedata
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from localism import progress
from localism.progress import Progress, duration, per_time


class Clock:
    """Stands in for the module time: an afternoon passes at once."""

    def __init__(self) -> None:
        self.seconds = 5000.0

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


class Terminal:
    """A pty with a width, and what stands on its screen."""

    def __init__(self, columns: int = 100) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self.stream = os.fdopen(slave, "w")
        self.lines = [""]
        self.resize(columns)

    def resize(self, columns: int) -> None:
        self.columns = columns
        size = struct.pack("HHHH", 40, columns, 0, 0)
        fcntl.ioctl(self.stream.fileno(), termios.TIOCSWINSZ, size)

    @property
    def screen(self) -> list[str]:
        """The lines without trailing blanks; the live one is the last, if there is one."""
        try:
            while written := os.read(self._master, 1 << 16).decode():
                for token in re.findall(r"\r\n|\r|\x1b\[2K|[^\r\n\x1b]+|.", written, re.S):
                    self._take(token)
        except BlockingIOError:
            pass
        return [line.rstrip() for line in self.lines]

    def _take(self, token: str) -> None:
        if token == "\r\n":
            self.lines.append("")
        elif token == "\x1b[2K":
            self.lines[-1] = ""
        elif token == "\r":
            pass  # only ever followed by clearing the line, or by nothing
        else:
            assert token.isprintable(), f"unexpected control sequence {token!r}"
            self.lines[-1] += token
            assert columns_of(self.lines[-1]) < self.columns, f"wraps: {self.lines[-1]}"

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


def columns_of(line: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in line)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def plain_lines(stream: io.StringIO) -> list[str]:
    """The lines of a log, without the time in front, which each of them has to have."""
    lines = stream.getvalue().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines), lines
    return [line[20:] for line in lines]


# ---- the live face -------------------------------------------------------------------------


def test_the_terminal_looks_as_designed(clock: Clock, terminal: Terminal) -> None:
    shown = Progress(terminal.stream)
    shown.say("run first   teacher llama-70b   student llama-8b   seed 0")
    shown.skip(1, 9, "extract", "412 skills from 60 topics")
    shown.begin(2, 9, "cluster")
    clock.wait(8)
    shown.end("97 clusters, 31 skills on their own")
    shown.begin(4, 9, "generate")
    shown.update(0, 4100, unit="mixes")
    clock.wait(78.4)
    shown.update(3214, 4100, unit="mixes", detail="6,120 tok/s")
    assert terminal.screen == [
        "run first   teacher llama-70b   student llama-8b   seed 0",
        "[1/9] extract    412 skills from 60 topics                                  done earlier",
        "[2/9] cluster    97 clusters, 31 skills on their own                                  8s",
        "[4/9] generate   3,214 / 4,100 mixes   ##############....   78%   41/s   6,120 tok/s"
        "   22s left",
    ]


def test_finished_stages_stay_and_the_live_line_is_replaced(
    clock: Clock, terminal: Terminal
) -> None:
    shown = Progress(terminal.stream)
    for index, stage in enumerate(("extract", "cluster", "mix"), 1):
        shown.begin(index, 9, stage)
        assert terminal.screen[-1] == f"[{index}/9] {stage:<10} started"
        for done in range(0, 101, 20):
            shown.update(done, 100, unit="rows")
            clock.wait(3)
            assert f"{done} / 100 rows" in terminal.screen[-1]
        shown.end(f"{stage} went well")
        assert len(terminal.screen) == index + 1
        assert terminal.screen[-1] == ""
    assert [line.split()[1] for line in terminal.screen[:-1]] == ["extract", "cluster", "mix"]
    assert all(line.endswith("18s") for line in terminal.screen[:-1])


def test_a_message_stands_above_the_live_line_which_stays(clock: Clock, terminal: Terminal) -> None:
    shown = Progress(terminal.stream)
    shown.begin(2, 9, "cluster")
    shown.update(5, 10, unit="names")
    shown.say("warning: two skills have the same name")
    screen = terminal.screen
    assert screen[0] == "warning: two skills have the same name"
    assert screen[1].startswith("[2/9] cluster    5 / 10 names")


@pytest.mark.parametrize("columns", [100, 79, 60, 48, 30, 10])
def test_no_line_is_longer_than_the_terminal(columns: int, clock: Clock) -> None:
    terminal = Terminal(columns)  # its emulation asserts that nothing wraps
    shown = Progress(terminal.stream)
    shown.begin(4, 9, "generate")
    for done in (0, 1234, 2345, 4100):
        shown.update(done, 4100, unit="mixes", detail="6,120 tok/s   " + "x" * 80)
        clock.wait(30)
        assert terminal.screen[-1].startswith("[4/9] gen"[: columns - 1])
    terminal.close()


def test_a_narrow_terminal_keeps_position_and_time_left(clock: Clock) -> None:
    terminal = Terminal(54)
    shown = Progress(terminal.stream)
    shown.begin(4, 9, "generate")
    shown.update(0, 4100, unit="mixes")
    clock.wait(60)
    shown.update(1025, 4100, unit="mixes", detail="6,120 tok/s")
    assert terminal.screen[-1] == "[4/9] generate   1,025 / 4,100 mixes   3m00s left"
    terminal.close()


def test_the_terminal_may_be_resized_and_is_not_that_of_stdout(
    clock: Clock, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = Progress(terminal.stream)
    shown.begin(4, 9, "generate")
    shown.update(10, 20, unit="mixes", detail="y" * 20)
    assert "#########" in terminal.screen[-1]
    terminal.resize(42)
    clock.wait(1)
    shown.update(11, 20, unit="mixes", detail="y" * 20)
    assert terminal.screen[-1] == "[4/9] generate   11 / 20 mixes   9s left"


def test_wide_letters_count_double(clock: Clock) -> None:
    terminal = Terminal(60)
    shown = Progress(terminal.stream)
    shown.begin(4, 9, "generate")
    shown.update(0, detail="語" * 50)
    assert terminal.screen[-1] == "[4/9] generate   " + "語" * 21
    terminal.close()


def test_a_long_summary_wraps_between_words_and_a_path_stays_whole(clock: Clock) -> None:
    terminal = Terminal(60)
    shown = Progress(terminal.stream)
    shown.begin(9, 9, "report")
    clock.wait(47 * 60)
    shown.end(
        "picked epoch 11 beats base on 61.3% of 100 unseen prompts (95% CI 57.9-64.7)\n"
        "kept 4,012 of 4,100 examples\n"
        "runs/first/report.html"
    )
    assert terminal.screen == [
        "[9/9] report     picked epoch 11 beats base on       47m00s",
        "                 61.3% of 100 unseen prompts (95%",
        "                 CI 57.9-64.7)",
        "                 kept 4,012 of 4,100 examples",
        "                 runs/first/report.html",
        "",
    ]
    terminal.close()


def test_text_of_a_model_cannot_steer_the_terminal(clock: Clock, terminal: Terminal) -> None:
    hostile = "\x1b[2J\x1b]0;title\x07\rover\tit\u202e"
    shown = Progress(terminal.stream)
    shown.begin(1, 9, "extract")
    shown.update(1, 2, detail=hostile + "\nnext")
    shown.say(hostile)
    shown.end(hostile)
    assert terminal.screen[0] == "?[2J?]0;title? over it?"
    assert "?[2J?]0;title? over it?" in terminal.screen[1]


def test_an_error_leaves_the_live_line_for_the_reader(clock: Clock, terminal: Terminal) -> None:
    with pytest.raises(KeyboardInterrupt), Progress(terminal.stream) as shown:
        shown.begin(4, 9, "generate")
        shown.update(5, 10, unit="mixes")
        raise KeyboardInterrupt
    assert terminal.screen[0].startswith("[4/9] generate   5 / 10 mixes")
    assert terminal.screen[1] == ""


def test_a_fast_stage_does_not_flood_the_terminal(clock: Clock, terminal: Terminal) -> None:
    shown = Progress(terminal.stream)
    shown.begin(3, 9, "mix")
    for done in range(1, 1000):
        clock.wait(0.001)
        shown.update(done, 1001)
    assert " 801 / 1,001" in terminal.screen[-1]  # of one second: at 1, 201, 401, 601 and 801 ms
    shown.update(1001, 1001)
    assert " 1,001 / 1,001" in terminal.screen[-1], "the last update is always shown"


# ---- the plain face ------------------------------------------------------------------------


def test_plain_is_one_line_every_thirty_seconds_in_the_same_words(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress(stream)
    shown.skip(3, 9, "mix", "4,100 mixes of 3 skills")
    shown.begin(4, 9, "generate")
    for done in range(0, 401):
        shown.update(done, 4100, unit="mixes", detail="6,120 tok/s")
        clock.wait(0.1)
    shown.end("4,100 mixes generated\nthe second line")
    assert plain_lines(stream) == [
        "[3/9] mix        4,100 mixes of 3 skills   done earlier",
        "[4/9] generate   started",
        "[4/9] generate   300 / 4,100 mixes   #.................   7%   10/s   6,120 tok/s"
        "   6m20s left",
        "[4/9] generate   4,100 mixes generated   40s",
        "                 the second line",
    ]


def test_plain_can_be_asked_for_on_a_terminal(clock: Clock, terminal: Terminal) -> None:
    shown = Progress(terminal.stream, plain=True)
    shown.begin(1, 9, "extract")
    assert re.match(r"\d{4}-\d\d-\d\d .* \[1/9\] extract +started$", terminal.screen[0])


def test_plain_says_once_that_all_is_done(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress(stream)
    shown.begin(2, 9, "cluster")
    for _ in range(3):
        shown.update(50, 50, unit="names", detail="clustering")
    assert len(plain_lines(stream)) == 2


def test_loading_an_engine_says_so_every_thirty_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress(stream)
    shown.begin(1, 9, "extract")
    for tenth in range(700):
        shown.update(0, detail=f"vLLM loads the teacher, {tenth / 10:.0f}s")
        clock.wait(0.1)
    assert plain_lines(stream)[1:] == [
        "[1/9] extract    vLLM loads the teacher, 30s",
        "[1/9] extract    vLLM loads the teacher, 60s",
    ]


# ---- rate and time left --------------------------------------------------------------------


def last_line(shown: Progress, clock: Clock, updates: list[tuple[float, int, int]]) -> str:
    """The line after updates of (seconds before it, done, total)."""
    for seconds, done, total in updates:
        clock.wait(seconds)
        shown.update(done, total, unit="mixes")
    return shown._stream.getvalue().splitlines()[-1]  # type: ignore[attr-defined]


@pytest.fixture
def shown(clock: Clock) -> Progress:
    shown = Progress(io.StringIO())
    shown.begin(4, 9, "generate")
    return shown


def test_what_an_earlier_call_finished_is_not_part_of_the_rate(
    shown: Progress, clock: Clock
) -> None:
    line = last_line(shown, clock, [(0, 3000, 4000), (50, 3100, 4000)])
    assert line.endswith("77%   2.0/s   7m30s left")


def test_the_time_in_which_the_engine_loaded_is_not_part_of_the_rate(
    shown: Progress, clock: Clock
) -> None:
    shown.update(0, detail="vLLM loads the teacher, 0s")
    clock.wait(100)
    line = last_line(shown, clock, [(0, 3000, 4000), (50, 3100, 4000)])
    assert line.endswith("77%   2.0/s   7m30s left")


def test_an_engine_that_restarts_midway_starts_the_rate_afresh(
    shown: Progress, clock: Clock
) -> None:
    last_line(shown, clock, [(0, 0, 4000), (100, 1000, 4000)])
    shown.update(0, detail="vLLM loads the teacher, 0s")
    line = last_line(shown, clock, [(100, 1000, 4000), (50, 1100, 4000)])
    assert line.endswith("27%   2.0/s   24m10s left")


def test_the_rate_is_that_of_the_last_minutes(shown: Progress, clock: Clock) -> None:
    fast = [(1.0, 100 * step, 100_000) for step in range(300)]
    slow = [(1.0, 29_900 + step, 100_000) for step in range(1, 400)]
    line = last_line(shown, clock, fast + slow)
    assert "   1.0/s   " in line


def test_no_rate_and_no_time_left_before_anything_was_done(shown: Progress, clock: Clock) -> None:
    line = last_line(shown, clock, [(0, 0, 4000), (60, 0, 4000)])
    assert line.endswith("0 / 4,000 mixes   ..................   0%")


def test_an_unknown_total_shows_a_count(shown: Progress, clock: Clock) -> None:
    clock.wait(31)
    shown.update(1234, unit="labels")
    assert shown._stream.getvalue().endswith(" 1,234 labels\n")  # type: ignore[attr-defined]


def test_more_than_planned_breaks_nothing(shown: Progress, clock: Clock) -> None:
    line = last_line(shown, clock, [(0, 0, 10), (60, 12, 10)])
    assert "12 / 10 mixes   " + "#" * 18 + "   120%" in line
    assert "left" not in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (8.4, "8s"), (59.6, "1m00s"), (250, "4m10s"), (3599.7, "1h00m"), (7500, "2h05m"),
     (100 * 3600, "100h00m")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(6120.4, "6,120/s"), (41.2, "41/s"), (2.04, "2.0/s"), (0.5, "30/min"), (0.02, "1.2/min"),
     (0.001, "3.6/h")],
)  # fmt: skip
def test_a_rate_is_given_in_a_time_that_makes_it_readable(rate: float, text: str) -> None:
    assert per_time(rate) == text
