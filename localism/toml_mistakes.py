"""What pydantic finds wrong with a TOML table -> each mistake in plain words, with its fix."""

import difflib
import json
import re
import tomllib
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

Place = tuple[str | int, ...]

LONGEST_VALUE = 200

# By the beginning of pydantic's name for the mistake.
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text in quotes",
    "tuple": "a list",
    "list": "a list",
    "model": "a table",
    "dict": "a table",
}
BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


class Mistake(NamedTuple):
    """One wrong value, missing key or unknown key."""

    place: Place
    """Keys, and positions in lists from 0, from the top of the file to the value."""
    problem: str
    """In words."""
    value: str
    """What stands there, as ' = 3'; empty for a key that is missing or unknown."""
    fix: str
    """What to write instead, or where to read about it."""


def mistakes(wrong: ValidationError, model: type[BaseModel], manual: str) -> list[Mistake]:
    """Every mistake, each once; unknown keys first, for they explain which key is missing.

    `model` is what the whole file was checked against; `manual` says where its keys are described.
    """
    found = [_mistake(dict(error), model, manual) for error in wrong.errors()]
    return sorted(dict.fromkeys(found), key=lambda mistake: not _is_unknown_key(mistake))


def likely(word: str, known: Sequence[str]) -> str:
    """'did you mean X? ' for the nearest of the known words, or nothing."""
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"did you mean {near[0]}? " if near else ""


def _is_unknown_key(mistake: Mistake) -> bool:
    return mistake.problem.startswith("unknown key")


def _mistake(error: dict[str, Any], model: type[BaseModel], manual: str) -> Mistake:
    place, kind, value = tuple(error["loc"]), error["type"], error["input"]
    key = next(part for part in reversed(place) if isinstance(part, str))
    if kind == "extra_forbidden":
        known = list(_table_at(model, place[:-1]).model_fields)
        fix = likely(key, known).rstrip() or f"known here: {', '.join(known)}"
        return Mistake(place, f"unknown key {key}", "", fix)
    if kind == "missing" and isinstance(place[-1], str):
        return Mistake(place, f"{key} is missing", "", f"add it; {manual}")
    if kind == "missing":  # of a list with a fixed number of items, the first that is not there
        place, kind = place[:-1], "too_few"
    subject = key if isinstance(place[-1], str) else f"an item of {key}"
    shown = f" = {_as_toml(value)}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        fix = f"{likely(str(value), known)}possible: {', '.join(map(_as_toml, known))}"
        return Mistake(place, f"{subject} cannot be {_as_toml(value)}", shown, fix)
    problem = _problem(subject, kind, error)
    fix = _as_meant(key, kind, value, is_top=len(place) == 1) or manual
    return Mistake(place, problem, shown, fix)


def _problem(subject: str, kind: str, error: dict[str, Any]) -> str:
    limits = error.get("ctx", {})
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        limit = limits[name]
        return f"{subject} has to be {words} {int(limit) if limit == int(limit) else limit:,}"
    if kind == "value_error":  # a validator of ours, in its own words
        return f"{subject}: {limits['error']}"
    if kind in ("too_few", "too_short"):
        return f"{subject} has too few items: {len(error['input'])}"
    if kind == "too_long":
        return f"{subject} has too many items: {len(error['input'])}"
    if kind == "string_too_short":
        return f"{subject} must not be empty"
    wanted = KINDS.get(kind.split("_")[0])
    return f"{subject} has to be {wanted}" if wanted else f"{subject}: {error['msg']}"


def _as_meant(key: str, kind: str, value: Any, *, is_top: bool) -> str:
    """The line that was probably meant, for a value of the wrong kind; or nothing."""
    wanted = KINDS.get(kind.split("_")[0]) if kind.endswith("_type") else None
    if wanted == KINDS["string"] and isinstance(value, int | float):
        return f"in quotes: {key} = {_as_toml(str(value))}"
    if wanted == KINDS["list"] and isinstance(value, str | int | float):
        items = [part.strip() for part in value.split(",")] if isinstance(value, str) else [value]
        return f"in brackets: {key} = {_as_toml(items)}"
    if wanted == KINDS["model"] and is_top:
        return f"write [{key}] on a line of its own, and its keys below it"
    if wanted == KINDS["int"] and isinstance(value, float) and value.is_integer():
        return f"without a fraction: {key} = {value:.0f}"
    if isinstance(value, str) and wanted and _could_be(wanted, value.strip()):
        return f"without quotes: {key} = {value.strip()}"
    return ""


def _could_be(wanted: str, text: str) -> bool:
    """Whether a text is a value of the wanted kind when its quotes are dropped."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return False
    if isinstance(value, bool):
        return wanted == KINDS["bool"]
    is_number = wanted == KINDS["float"] and isinstance(value, float)
    return is_number or (wanted in (KINDS["int"], KINDS["float"]) and isinstance(value, int))


def _as_toml(value: Any) -> str:
    """A value as one would write it, or the beginning of a long one."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _table_at(model: type[BaseModel], place: Place) -> type[BaseModel]:
    """The table that stands at a place: the model itself, or one in its fields or their lists."""
    table: Any = model
    for part in place:
        if isinstance(part, str):
            table = table.model_fields[part].annotation
            while get_args(table):
                table = get_args(table)[0]
    found: type[BaseModel] = table
    return found
