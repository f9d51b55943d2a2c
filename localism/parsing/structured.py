"""Replies as JSON: what to ask a server for, and what to make of its answer.

The request is OpenAI's response_format with a JSON schema. vLLM enforces it token by token; a
server that ignores it may still answer in the asked form, and the readers here and in lists.py are
lenient.
"""

import json
from collections.abc import Sequence
from typing import Any

from localism.parsing.lists import without_thinking


def a_list(name: str, fields: Sequence[str], most: int) -> dict[str, Any]:
    """Request for {"items": [...]} of one to `most` objects with these text fields."""
    items = {"type": "array", "items": _object(fields), "minItems": 1, "maxItems": most}
    return request(name, table({"items": items}))


def one_text(field: str, choices: Sequence[str] = ()) -> dict[str, Any]:
    """Request for {field: text}; one of `choices`, if any are given."""
    text = {"type": "string", "enum": [*choices]} if choices else {"type": "string", "minLength": 1}
    return request(field, table({field: text}))


def an_example() -> dict[str, Any]:
    """Request for {"instruction": text, "response": text}; split_example reads the reply."""
    return request("example", _object(["instruction", "response"]))


def read_text(reply: str, field: str) -> str:
    """The text of that field, or the whole reply when it is no such JSON."""
    reply = without_thinking(reply).strip()
    start = reply.find("{")
    try:
        found = json.JSONDecoder().raw_decode(reply, start)[0] if start >= 0 else None
    except (ValueError, RecursionError):
        found = None
    value = found.get(field) if isinstance(found, dict) else None
    return value.strip() if isinstance(value, str) else reply


def _object(fields: Sequence[str]) -> dict[str, Any]:
    return table({field: {"type": "string", "minLength": 1} for field in fields})


def table(properties: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of an object with exactly these properties, written in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def request(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Sampling parameters that have a reply follow a JSON schema."""
    asked = {"name": name, "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": asked}}
