"""A lab's own topics: one a line, or fields > subjects > topics as JSON or TOML."""

import json
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from localism.errors import ConfigError

# Others are refused: YAML read as text would be a topic a line, brackets and all.
FORMS = (".json", ".toml", ".txt", "")
FORM = '{"Medicine": {"Paediatrics": ["vaccination", "sleep"], "Surgery": []}}'


class Branch(NamedTuple):
    """Topics that stand together."""

    field: str
    """What the subject belongs to; empty in a plain list."""
    subject: str
    """What the topics belong to; empty in a plain list."""
    topics: tuple[str, ...]
    """Given by the file; none when the teacher is to name them."""


def read_taxonomy(path: Path) -> list[Branch]:
    """The branches of a file in its order. Raises ConfigError that names the entry."""
    form = path.suffix.lower()
    if form not in FORMS:
        raise _wrong(path, f"{form} is none of the formats that are read here")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if form == ".json":
            return _branches(json.loads(text), path)
        if form == ".toml":
            return _branches(tomllib.loads(text), path)
    except (ValueError, OSError, RecursionError) as broken:  # both parsers raise ValueErrors
        raise _wrong(path, str(broken)) from None
    topics = tuple(
        line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")
    )
    if not topics:
        raise _wrong(path, "no topic in it")
    return [Branch("", "", topics)]


def _branches(fields: Any, path: Path) -> list[Branch]:
    if not isinstance(fields, dict) or not fields:
        raise _wrong(path, "not a table of fields")
    found = []
    for field, subjects in fields.items():
        if isinstance(subjects, list):  # subjects whose topics the teacher is to name
            subjects = {subject: [] for subject in _names(subjects, path, field)}
        if not isinstance(subjects, dict):
            raise _wrong(path, f"{field}: neither a table of subjects nor a list of them")
        for subject, topics in subjects.items():
            _names([field, subject], path, f"{field} > {subject}")
            names = _names(topics, path, f"{field} > {subject}")
            found.append(Branch(field, subject, tuple(names)))
    if not found:
        raise _wrong(path, "no subject in it")
    return found


def _names(names: Any, path: Path, where: str) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise _wrong(path, f"{where}: not a list of names")
    "".join(names).encode()  # half of a surrogate pair is valid JSON and in no text
    return [name.strip() for name in names]


def _wrong(path: Path, problem: str) -> ConfigError:
    return ConfigError(
        "the taxonomy cannot be read",
        where=f"{path}: {problem}",
        fix="write a topic a line into a .txt file, or fields > subjects > topics into a .json or"
        f" .toml file: {FORM}",
    )
