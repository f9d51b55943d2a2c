"""A row of seed data -> instruction and response, whatever shape the row has.

Recognised are Alpaca (instruction, input, output or response), messages or conversations (role and
content, or ShareGPT's from and value), prompt and completion (texts or messages), and question and
answer. Other columns are named in models.toml.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

# The first that is there is taken. Messages come first: where a prompt stands beside them it is
# their first message again, and they have the reply.
MESSAGES = ("messages", "conversations", "conversation")
INSTRUCTIONS = (*MESSAGES, "instruction", "prompt", "question")
RESPONSES = ("response", "output", "completion", "answer")
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


class Columns(NamedTuple):
    """Which columns hold what; an empty name is a column that there is not."""

    instruction: str
    """A text, or a list of messages."""
    input: str
    """A text that belongs behind the instruction."""
    response: str
    """A text, or a list of messages; read where the instruction's messages hold no reply."""

    def used(self) -> list[str]:
        """Those that there are."""
        return [name for name in self if name]


def find_columns(names: Collection[str], asked: Columns) -> Columns:
    """The columns to read, those asked for before those recognised. ValueError when none will do"""
    for name in asked.used():
        if name not in names:
            raise ValueError(f"there is no column {name!r}")
    instruction = asked.instruction or next((name for name in INSTRUCTIONS if name in names), "")
    if not instruction:
        raise ValueError(f"no instruction: none of the columns {', '.join(INSTRUCTIONS)} is there")
    is_alpaca = instruction == "instruction" and "input" in names
    return Columns(
        instruction,
        asked.input or ("input" if is_alpaca else ""),
        asked.response or next((name for name in RESPONSES if name in names), ""),
    )


def read_row(row: Mapping[str, Any], columns: Columns) -> tuple[str, str | None]:
    """Instruction (its input behind it) and response. ValueError says what is wrong."""
    value, response = row[columns.instruction], ""
    if isinstance(value, list):
        instruction, response = _opening(value, columns.instruction)
    elif value is not None and columns.instruction in MESSAGES:
        raise ValueError(f"{columns.instruction} is not a list of messages")  # as in a CSV of them
    else:
        instruction = _text(value, columns.instruction)
    if not instruction:
        raise ValueError(f"{columns.instruction} is empty: no instruction")
    if columns.input and (further := _text(row[columns.input], columns.input)):
        instruction += f"\n\n{further}"
    if columns.response and not response:
        response = _reply(row[columns.response], columns.response)
    return instruction, response or None


def _opening(messages: list[Any], column: str) -> tuple[str, str]:
    """The first user message, with a system message in front of it, and the reply after it."""
    turns = [_turn(message, column) for message in messages]
    first = next((place for place, (role, _) in enumerate(turns) if role == "user"), None)
    if first is None:
        raise ValueError(f"{column} has no message of a user: no instruction")
    if not turns[first][1]:
        raise ValueError(f"the first user message of {column} is empty: no instruction")
    system = [text for role, text in turns[:first] if role == "system" and text]
    reply = next((text for role, text in turns[first:] if role == "assistant"), "")
    return "\n\n".join([*system, turns[first][1]]), reply


def _reply(value: Any, column: str) -> str:
    if not isinstance(value, list):
        return _text(value, column)
    turns = [_turn(message, column) for message in value]
    return next((text for role, text in turns if role == "assistant"), "")


def _turn(message: Any, column: str) -> tuple[str, str]:
    """(system, user, assistant or '' for any other role, text) of one message."""
    if not isinstance(message, dict):
        raise ValueError(f"{column} is not a list of messages")
    # By value, not by key: in Parquet every message has all the fields that any of them has.
    role = message.get("role") or message.get("from")
    if not isinstance(role, str):
        raise ValueError(f"a message of {column} has neither role nor from")
    content = message.get("content")
    text = _text(message.get("value") if content is None else content, f"a message of {column}")
    return ROLES.get(role.casefold(), ""), text


def _text(value: Any, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{what} is not a text")
    value.encode()  # half of a surrogate pair is valid JSON and cannot be stored
    return value.strip()
