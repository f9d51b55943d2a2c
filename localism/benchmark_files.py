"""Files of benchmark prompts: text with a prompt a line, or JSONL with a prompt in each object."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from localism.errors import ConfigError

# Where the public benchmarks keep their prompts; the first that an object has.
_COLUMNS = ("instruction", "prompt", "question", "query", "text", "turns")

# Others are refused: a file of JSON or CSV read as text would be prompts that nobody writes.
JSONL = (".jsonl", ".ndjson")
FORMS = (*JSONL, ".txt", "")


class BenchmarkPrompt(NamedTuple):
    """A prompt that training data should not contain."""

    place: str
    """File name and line."""
    text: str
    """The prompt; the turns of a conversation, a line each."""


def read_prompts(path: Path) -> list[BenchmarkPrompt]:
    """The prompts of a file; ConfigError with the line that holds none."""
    if path.suffix.lower() not in FORMS:
        raise ConfigError(
            f"benchmark prompts are not read from {path.suffix} files",
            where=f"[curate].benchmarks: {path}",
            fix="give a .txt file with a prompt a line, or JSONL",
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as unread:
        raise ConfigError(
            "the file of benchmark prompts cannot be read",
            where=f"[curate].benchmarks: {path} ({getattr(unread, 'strerror', None) or unread})",
            fix="give a text file with a prompt a line, or JSONL",
        ) from None
    read = _read_jsonl if path.suffix.lower() in JSONL else _read_text
    prompts = list(read(path, lines))
    if not prompts:
        raise ConfigError(
            "the file of benchmark prompts is empty",
            where=f"[curate].benchmarks: {path}",
            fix="give a text file with a prompt a line, or JSONL",
        )
    return prompts


def _read_text(path: Path, lines: list[str]) -> Iterator[BenchmarkPrompt]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield BenchmarkPrompt(f"{path.name} line {number}", line.strip())


def _read_jsonl(path: Path, lines: list[str]) -> Iterator[BenchmarkPrompt]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = _prompt_of(json.loads(line))
        except (ValueError, RecursionError):
            text = None
        if not text:
            raise ConfigError(
                "no prompt in this line",
                where=f"[curate].benchmarks: {path} line {number}",
                fix=f"each line a JSON string, or an object with one of {', '.join(_COLUMNS)}",
            )
        yield BenchmarkPrompt(f"{path.name} line {number}", text)


def _prompt_of(row: Any) -> str | None:
    if isinstance(row, dict):
        row = next((row[column] for column in _COLUMNS if row.get(column)), None)
    if isinstance(row, list):
        row = "\n".join(turn for turn in row if isinstance(turn, str))
    if not isinstance(row, str):
        return None
    row.encode()  # half of a surrogate pair is valid JSON and in no text
    return row.strip() or None
