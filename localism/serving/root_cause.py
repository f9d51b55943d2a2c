"""What went wrong first, by the log of a server with several processes: the error behind the rest.

vLLM prints the traceback of the process that failed (a worker, or the engine's core), then those of
the processes that wait for it, a hundred lines and more, and ends with one that says nothing but
that there is a cause above. A line begins with its process, "(EngineCore pid=9767) ", where it was
logged; what Python prints itself has no such beginning.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

TRACEBACK = "Traceback (most recent call last):"
# Between two tracebacks of one error; the last one says what became of it.
CHAINED = ("During handling of the above exception", "The above exception was the direct cause")
# Errors that only pass another one on.
PASSED_ON = re.compile(
    r"(Engine core|WorkerProc) initialization failed|EngineDeadError|^SystemExit|^KeyboardInterrupt"
    r"|CancelledError"
)
# The deepest process first.
DEPTHS = ("Worker", "EngineCore", "")
FRAME_LINES, TEXT_LINES = 4, 12
_PREFIX = re.compile(
    r"(\((?P<process>[^()]*pid=\d+[^()]*)\) )?([A-Z]+ \d\d-\d\d [\d:.]+ \[[^\]]*\] )?"
)
_ERROR = re.compile(r"[A-Za-z_][\w.]*(: |:?$)")
_POINTER = re.compile(r"[\s^~]*$")


class Cause(NamedTuple):
    """An error that a log shows with its traceback."""

    place: int
    """Line of the log."""
    process: str
    """As the log names it; empty where it does not."""
    frames: tuple[str, ...]
    """The last lines of its traceback."""
    text: tuple[str, ...]
    """Kind and message of the error, a line or more."""

    @property
    def said(self) -> str:
        """Kind and message on a line; many kinds say only on their second line what is wrong."""
        return " ".join(" ".join(self.text[:2]).split())


def causes(log: str) -> list[Cause]:
    """Errors with a traceback, the root first: deep processes before those that wait for them, and
    early ones before late ones. Those that only pass another one on are left out."""
    lines: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for place, line in enumerate(log.splitlines()):
        prefix = _PREFIX.match(line)
        assert prefix, "every part of it may be absent"
        lines[prefix["process"] or ""].append((place, line[prefix.end() :].rstrip()))
    found = [cause for process, own in lines.items() for cause in _of_process(process, own)]
    return sorted((cause for cause in found if not PASSED_ON.search(cause.said)), key=_order)


def _order(cause: Cause) -> tuple[int, int]:
    depth = next(depth for depth, name in enumerate(DEPTHS) if name in cause.process)
    return depth, cause.place


def _of_process(process: str, lines: Sequence[tuple[int, str]]) -> Iterator[Cause]:
    texts = [text for _, text in lines]
    number = 0
    while TRACEBACK in texts[number:]:
        number = texts.index(TRACEBACK, number) + 1
        end = _end_of_block(texts, number)
        if end == len(texts) or not _ERROR.match(texts[end]):
            continue  # it was cut off
        after = _end_of_block(texts, end + 1)
        if not any(text.startswith(CHAINED) for text in texts[after : after + 2]):
            frames = [text for text in texts[number:end] if not _POINTER.match(text)]
            text = texts[end : min(after, end + TEXT_LINES)]
            yield Cause(lines[end][0], process, tuple(frames[-FRAME_LINES:]), tuple(text))
        number = after


def _end_of_block(texts: Sequence[str], begin: int) -> int:
    """Number of the first line from there on that is not indented."""
    end = begin
    while end < len(texts) and texts[end].startswith(" "):
        end += 1
    return end
