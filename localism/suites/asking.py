"""Asking the judge for a written verdict, and reading it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from localism.parsing.lists import without_thinking
from localism.parsing.structured import request, table
from localism.records import Sampling
from localism.serving.client import Client
from localism.suites.records import Judging


async def written(
    client: Client,
    prompt: str,
    *,
    template: str,
    fields: Mapping[str, Any],
    read: Callable[[str], Mapping[str, Any] | None],
    judging: Judging,
    temperature: float = 0.0,
    sample: int = 0,
) -> tuple[Mapping[str, Any] | None, str, str]:
    """What the judge wrote as a mapping, its reply verbatim, and the turn's id.

    fields: JSON schema of each property, in the order in which they are to be written (reasons
    first, verdict last). Where replies are structured they are asked for as such an object; a reply
    that is no JSON, or where they are not structured, goes to `read`, the protocol's own parser.
    None: the reply is unusable. Raises RequestFailed as Conversation.say.
    """
    extra = request(template, table(dict(fields))) if judging.structured else {}
    sampling = Sampling(temperature, 1.0, judging.max_tokens)
    conversation = client.conversation(sample)
    reply = await conversation.say(prompt, template=template, sampling=sampling, extra=extra)
    # Not in free text: an object in there may be quoted from the answer that is judged.
    found = json_object(reply.text) if judging.structured else None
    if found is None or not fields.keys() <= found.keys():
        found = read(without_thinking(reply.text))
    return found, reply.text, reply.turn_id


def reasons(judging: Judging) -> dict[str, Any]:
    """Schema of a text before the verdict, at most as many characters as a reply has tokens.

    Without an end to it a judge that repeats itself fills the whole reply and gives no verdict.
    """
    return {"type": "string", "maxLength": judging.max_tokens}


def json_object(text: str) -> Mapping[str, Any] | None:
    """The first JSON object in a reply; None when there is none."""
    text = without_thinking(text)
    start = text.find("{")
    try:
        found = json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def on_scale(value: Any, lowest: float, highest: float) -> float | None:
    """A number, or a text that is one, from lowest to highest; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and lowest <= value <= highest else None


def unusable(text: str) -> str:
    """The reason of a verdict that could not be read, with the end of what the judge wrote."""
    shown = " ".join(text.split())[-120:]
    return f"unusable reply: ...{shown}" if shown else "unusable reply: it is empty"
