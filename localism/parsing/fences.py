"""Text -> what of it is code: fenced blocks as in CommonMark, and spans in backticks."""

import re
from collections.abc import Sequence

# At any depth: a fence below a list item is indented by more than CommonMark's three spaces.
FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})(.*)")
_SPAN = re.compile(r"`[^`\n]+`")


def fenced(lines: Sequence[str]) -> tuple[set[int], bool]:
    """Indices of the lines of code fences, the fences included; whether the last stays open."""
    inside: set[int] = set()
    fence = ""
    for index, line in enumerate(lines):
        if not fence and "```" not in line and "~~~" not in line:
            continue
        mark = FENCE.fullmatch(line)
        if fence:
            inside.add(index)
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
        elif mark and "`" not in mark[2]:
            inside.add(index)
            fence = mark[1]
    return inside, bool(fence)


def outside_fences(text: str) -> str:
    """The text without its fenced code."""
    lines = text.split("\n")
    inside, _ = fenced(lines)
    return "\n".join(line for index, line in enumerate(lines) if index not in inside)


def has_open_fence(text: str) -> bool:
    """Whether a code fence is opened and never closed."""
    return fenced(text.split("\n"))[1]


def blank_code(text: str) -> str:
    """The text with spaces for fenced code and code spans, so that places stay the same."""
    lines = text.split("\n")
    inside, _ = fenced(lines)
    for index in inside:
        lines[index] = " " * len(lines[index])
    return _SPAN.sub(lambda span: " " * len(span[0]), "\n".join(lines))
