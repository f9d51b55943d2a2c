"""What a teacher wrote -> typed values.  Lenient in form, never guessing at content."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

# ---- lists: topics, skills, query types, labels ----------------------------------------------


class Listed(NamedTuple):
    """One item of a list: what it is called and, if the teacher said so, what it means."""

    raw: str
    """As the teacher wrote it."""
    name: str
    """Without markers, emphasis, definition and trailing punctuation; may be empty."""
    definition: str | None
    """The words after the name or on the line below it, or None."""


_THINKING = re.compile(r"\A\s*(?:<think>)?.*?</think>|\A\s*<think>.*", re.DOTALL)
# '1. name', '2) name', '(3) name', '**4.** name', '### 5. name', '6 - name'; not '7.5 litres'.
_NUMBERED = re.compile(r"^(\s*)[*_#>]*\s*\(?\d{1,4}(?:\\?[.):](?!\d)|\s+[-–—]\s)\**\s*(.*)$")
_BULLET = re.compile(r"^(\s*)(?:[-+•‣◦·–—]|\*(?!\*))\s+(.*)$")
_AROUND = "*`\"'“”‘’[]"
_EMPHASISED = re.compile(r"(\*{1,3}|`)(\S(?:.*?\S)?)\1")
# Between a name and its definition: a colon anywhere, a dash only between spaces (not 'follow-up').
_SEPARATOR = re.compile(r"\s*[:：]\s+|\s*[:：]$|\s+(?:[-–—]|->|→)\s+")
_NOTHING = {"", "none", "n/a", "nothing"}


def without_thinking(text: str) -> str:
    """The reply without the block in which a reasoning model thinks aloud."""
    return _THINKING.sub("", text, count=1)


def says_nothing(text: str) -> bool:
    """Whether the reply is an empty list, in words or by silence."""
    return _plain(without_thinking(text)).lower() in _NOTHING


def listed(text: str) -> list[Listed]:
    """The items of a list in any form; chatter is left out.

    Numbered lines win over bullets (bullets below them explain), bullets over bare lines; one bare
    line is read as separated by commas. 'None' is an empty list.
    """
    items = []
    for line, below in _items(text):
        name, definition = split_definition(line)
        items.append(Listed(line, name, definition or (_definition(below) if below else None)))
    return items


def json_listed(text: str) -> list[Listed] | None:
    """The items of a JSON array, the first in the text; None when there is none.

    An item is a text or an object with name and definition. Of an array that is cut off, what is
    whole is read, and the rest is the last item's raw text, without a name.
    """
    text = without_thinking(text)
    place = text.find("[") + 1
    if not place:
        return None
    items, decoder = [], json.JSONDecoder()
    while rest := text[place:].lstrip(" \t\r\n,"):
        if rest[0] == "]":
            break
        try:
            value, length = decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            items.append(Listed(rest, "", None))
            break
        items.append(_json_item(value, rest[:length]))
        place = len(text) - len(rest) + length
    return items


def _json_item(value: Any, raw: str) -> Listed:
    entry = value if isinstance(value, dict) else {"name": value}
    name, definition = entry.get("name"), entry.get("definition")
    if not isinstance(name, str):
        return Listed(raw, "", None)
    meaning = _definition(definition) if isinstance(definition, str) else None
    return Listed(name, _plain(name), meaning)


def split_definition(item: str) -> tuple[str, str | None]:
    """'**Budgeting**: planning money.' -> ('Budgeting', 'planning money')."""
    parts = _SEPARATOR.split(_EMPHASISED.sub(r"\2", item), maxsplit=1)
    return _plain(parts[0]), _definition(parts[1]) if len(parts) == 2 else None


def labels_with_reason(text: str) -> tuple[list[str], str | None]:
    """The skills that label a question, and the reason behind them if one is given."""
    text = without_thinking(text)
    parts = re.split(r"[,;.]?\s*\breason\s*[:：]", text, maxsplit=1, flags=re.IGNORECASE)
    reason = parts[1].strip() if len(parts) == 2 else ""
    return [item for item, _ in _items(parts[0])], reason or None


def _items(text: str) -> list[tuple[str, str]]:
    """(item, the line below that explains it or '') for every item of the list in a text."""
    lines = without_thinking(text).splitlines()
    numbered = _marked(lines, _NUMBERED)
    bullets = _marked(lines, _BULLET)
    # One numbered line that ends in a colon is a heading over bullets, not a list of one.
    is_heading = len(numbered) == 1 and bullets and numbered[0][0].rstrip("* ").endswith(":")
    items = bullets if is_heading or not numbered else numbered
    items = items or [(line, "") for line in _bare(lines)]
    return [(item.strip(), below) for item, below in items if _plain(item).lower() not in _NOTHING]


def _marked(lines: Sequence[str], marker: re.Pattern[str]) -> list[tuple[str, str]]:
    """Lines with this marker at the outermost level, each with the line below it."""
    found = [(index, match) for index, line in enumerate(lines) if (match := marker.match(line))]
    outermost = min((len(match[1]) for _, match in found), default=0)
    return [
        (match[2], _below(lines, index)) for index, match in found if len(match[1]) == outermost
    ]


def _below(lines: Sequence[str], index: int) -> str:
    """The next line when it is indented, so that it belongs to the item above."""
    below = lines[index + 1] if index + 1 < len(lines) else ""
    if not below[:1].isspace():
        return ""
    bullet = _BULLET.match(below)
    return bullet[2] if bullet else below.strip()


def _bare(lines: Sequence[str]) -> list[str]:
    """Names on lines without markers; headings and sentences are not names."""
    names = [line.strip() for line in lines if line.strip()]
    if len(names) == 1:
        return re.split(r"\s*[,;]\s*", names[0].rstrip("."))
    return [name for name in names if name[0] != "#" and name[-1] not in ":.!?"]


def _plain(text: str) -> str:
    """Without emphasis and quotes around it, trailing dots, and doubled spaces."""
    text = text.strip().rstrip(".,;:").strip(_AROUND + " ").rstrip(".,;:")
    return " ".join(text.strip(_AROUND + " ").split())


def _definition(text: str) -> str | None:
    """A definition without emphasis around it, a leading 'Definition:', or the final dot."""
    words = " ".join(text.split()).strip("*` ")
    words = re.sub(r"^(?:definition|meaning)\W*[:：]\W*", "", words, flags=re.IGNORECASE)
    return words.rstrip(".") or None
