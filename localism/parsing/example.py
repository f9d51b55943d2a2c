"""A teacher's reply -> instruction and response, or the reason why they cannot be told apart."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from localism.parsing.debris import (
    Debris,
    debris_in,
    first_thought,
    is_blank,
    readable,
    turn_end,
    without_edge_tokens,
    without_speaker,
    without_thinking,
)
from localism.parsing.fences import FENCE, blank_code, fenced
from localism.parsing.headings import (
    BARE,
    MOST,
    Grammar,
    Heading,
    find_headings,
    grammar,
    label_kind,
)
from localism.parsing.parts import (
    clean_instruction,
    clean_response,
    dedented_block,
    is_empty,
    is_preamble,
    trimmed,
    unquoted,
    unquoted_block,
    without_cdata,
)

Reason = Literal[
    Debris,
    "empty reply",
    "thinking not finished",
    "no markers",
    "no instruction marker",
    "no response marker",
    "response before instruction",
    "more than one example",
    "empty instruction",
    "empty response",
    "code fence not closed",
    "marker in the example",
    "JSON not readable",
    "JSON of another form",
]


@dataclass(frozen=True)
class Example:
    """An instruction and its response, without markers."""

    instruction: str
    """What the user asks."""
    response: str
    """What a good assistant answers."""


@dataclass(frozen=True)
class Unparsed:
    """A reply that does not say for certain which part is which."""

    reason: Reason
    """Why not."""


def split_example(
    text: str,
    instruction_marker: str,
    response_marker: str,
    earlier_instruction: str | None = None,
) -> Example | Unparsed:
    """The instruction and response in a teacher's reply, or why they cannot be told apart.

    Headings may be of another level, bold, tagged or plain, may say 'Query' for 'Instruction', or
    the same in another language; the form closest to the pack's markers decides. Markers in code
    fences are content, unless the fence wraps the whole example. A reply with a response alone
    keeps `earlier_instruction`, that of a turn before. A JSON object with both parts is read too.

    What is kept holds no heading that could be a marker, no control token of a chat template and
    no thinking tag outside code. Doubtful cases are reasons, never guesses.
    """
    words = grammar(instruction_marker, response_marker)
    answer = _answer(readable(text), words)
    if answer is None:
        return Unparsed("thinking not finished")
    if is_blank(answer):
        return Unparsed("empty reply")
    parts = _json_parts(answer, words) or _headed_parts(answer, words)
    if isinstance(parts, str):
        return Unparsed(parts)
    instruction, response = parts
    if instruction is None:
        if not earlier_instruction:
            return Unparsed("no instruction marker")
        instruction = earlier_instruction
    if is_empty(instruction):
        return Unparsed("empty instruction")
    if is_empty(response):
        return Unparsed("empty response")
    reason = _leftover(instruction, words) or _leftover(response, words)
    return Unparsed(reason) if reason else Example(instruction, response)


# The two parts, None for an instruction that the reply leaves as it was; or the reason against.
_Parts = tuple[str | None, str] | Reason


def _answer(text: str, words: Grammar) -> str | None:
    """The reply without thinking and chat template; None when the thinking never ends."""
    answer = without_thinking(without_edge_tokens(text))
    if answer is None:
        return None
    answer = without_speaker(without_edge_tokens(answer))
    # A thought after a first polite sentence. Behind a heading it could be content.
    if block := first_thought(answer):
        start, end = block
        if not find_headings(answer[:start].split("\n"), words)[0]:
            return None if end is None else (answer[:start] + answer[end:]).strip()
    return answer


def _offset(text: str, line: int) -> int:
    """Where in the text a line starts."""
    place = 0
    for _ in range(line):
        place = text.index("\n", place) + 1
    return place


# ---- headings --------------------------------------------------------------------------------


def _headed_parts(answer: str, words: Grammar) -> _Parts:
    lines = _tags_on_lines(answer, words).split("\n")
    headings, is_open = find_headings(lines, words)
    if not headings and (wrapped := _unfenced_reply(lines, words) or _unquoted_reply(lines)):
        lines = wrapped
        headings, is_open = find_headings(lines, words)
        if is_open:
            return "code fence not closed"
    own = _own_turn(lines, headings)
    if own is not lines:
        lines = own
        headings, is_open = find_headings(lines, words)
    chosen = _choose(headings)
    if isinstance(chosen, str):
        is_hidden = is_open and chosen in ("no markers", "no response marker")
        return "code fence not closed" if is_hidden else chosen
    asked, answered = chosen
    response = _below(answered, lines[answered.body :], words)
    if not asked:
        is_alone = is_preamble("\n".join(lines[: answered.line]))
        return (None, clean_response(response)) if is_alone else "no instruction marker"
    instruction = _below(asked, lines[asked.body : answered.line], words)
    if asked.rest and answered.rest and unquoted(instruction) != instruction:
        response = unquoted(response)  # 'response: "..."' below 'instruction: "..."'
    return clean_instruction(instruction), clean_response(response)


def _tags_on_lines(answer: str, words: Grammar) -> str:
    """A line break between '</instruction>' and '<response>' on one line."""

    def broken(found: re.Match[str]) -> str:
        kinds = label_kind(found[2], words), label_kind(found[3], words)
        return f"{found[1]}\n" if kinds == ("instruction", "response") else found[0]

    return re.sub(r"(</(\w{1,20})>)[ \t]{0,9}(?=<(\w{1,20})[ >])", broken, answer)


def _unfenced_reply(lines: list[str], words: Grammar) -> list[str] | None:
    """The inside of the code fence that opens right before a heading, or None.

    The last closing fence ends it, for fences of the response itself may lie within.
    """
    marks = {index: mark for index, line in enumerate(lines) if (mark := FENCE.fullmatch(line))}
    if not marks:
        return None
    closings = [index for index, mark in marks.items() if not mark[2].strip()]
    without_marks = ["" if index in marks else line for index, line in enumerate(lines)]
    for heading in find_headings(without_marks, words)[0]:
        before = heading.line - 1
        while before > 0 and not lines[before].strip():
            before -= 1
        if before in marks:
            end = closings[-1] if closings and closings[-1] > heading.line else len(lines)
            return lines[heading.line : end]
    return None


def _unquoted_reply(lines: list[str]) -> list[str] | None:
    """The lines of a reply that is one block quote, perhaps after a preamble, without '>'."""
    first = next((index for index, line in enumerate(lines) if line.startswith(">")), None)
    if first is None or not all(line.startswith(">") for line in lines[first:] if line.strip()):
        return None
    return unquoted_block("\n".join(lines[first:])).split("\n")


def _own_turn(lines: list[str], headings: list[Heading]) -> list[str]:
    """The lines up to where the model, past its response, plays on as another speaker."""
    answered = [heading.line for heading in headings if heading.kind == "response"]
    if not answered:
        return lines
    text = "\n".join(lines)
    end = turn_end(text, _offset(text, answered[0]))
    return lines if end is None else text[:end].split("\n")


def _below(heading: Heading, lines: list[str], words: Grammar) -> str:
    """The text that a heading announces, without what came with the form of the heading."""
    text = dedented_block(heading.rest, "\n".join(lines))
    if heading.is_tag:
        for closing in reversed(list(re.finditer(r"</(\w{1,20})\s{0,9}>", text))):
            if label_kind(closing[1], words) == heading.kind:
                text = text[: closing.start()]
                break
    return trimmed(without_edge_tokens(without_cdata(text)))


def _choose(headings: list[Heading]) -> "tuple[Heading | None, Heading] | Reason":
    """The instruction's heading (None: there is only a response) and the response's."""
    if len(headings) == MOST:
        return "more than one example"
    asked = _current([heading for heading in headings if heading.kind == "instruction"])
    answered = _current([heading for heading in headings if heading.kind == "response"])
    if not answered:
        return "no response marker" if asked else "no markers"
    shared = {heading.tier for heading in asked} & {heading.tier for heading in answered}
    if shared:
        asked = [heading for heading in asked if heading.tier == min(shared)]
        answered = [heading for heading in answered if heading.tier == min(shared)]
    else:
        asked, answered = _most_certain(asked), _most_certain(answered)
    if len(asked) > 1 or len(answered) > 1:
        return "more than one example"
    if not asked:
        return None, answered[0]
    if answered[0].line < asked[0].line:
        return "response before instruction"
    is_another = any(
        heading.tier < min(asked[0].tier, answered[0].tier)
        or (heading.kind == "instruction" and heading.tier < BARE and heading.line > asked[0].line)
        for heading in headings
    )
    return "more than one example" if is_another else (asked[0], answered[0])


def _current(headings: list[Heading]) -> list[Heading]:
    """Without those that call themselves replaced, where others are left."""
    return [heading for heading in headings if not heading.is_old] or headings


def _most_certain(headings: list[Heading]) -> list[Heading]:
    best = min((heading.tier for heading in headings), default=0)
    return [heading for heading in headings if heading.tier == best]


def _leftover(text: str, words: Grammar) -> Reason | None:
    """Why a cleaned part still cannot be kept, if so."""
    lines = text.split("\n")
    headings, is_open = find_headings(lines, words)
    if len(headings) == MOST or any(heading.is_stray for heading in headings):
        is_pair = any(heading.tier == 0 for heading in headings)
        return "more than one example" if is_pair else "marker in the example"
    if is_open:  # whatever its author meant to stand in the fence and what below it
        inside, _ = fenced(lines)
        below = [" " if FENCE.fullmatch(lines[index]) else lines[index] for index in sorted(inside)]
        if any(heading.is_stray for heading in find_headings(below, words)[0]):
            return "code fence not closed"
    tags = re.finditer(r"</(\w{1,20})>", blank_code(text)) if "</" in text else ()
    if any(label_kind(tag[1], words) for tag in tags):
        return "marker in the example"
    return debris_in(text)


# ---- JSON ------------------------------------------------------------------------------------


def _json_parts(answer: str, words: Grammar) -> _Parts | None:
    """The parts of a reply that is a JSON object; None when it is not meant as one."""
    found = re.search(r"^[ \t]{0,20}(\[?\s{0,20}\{)\s{0,20}[\"'“]", answer, re.MULTILINE)
    if not found:
        return None
    headings, _ = find_headings(answer[: found.start()].split("\n"), words)
    keys = re.findall(r"[\"'“]([^\"'”\n]{1,40})[\"'”]\s{0,9}:", answer[found.start() :][:400])
    if headings or not any(label_kind(key, words) for key in keys):
        return None
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(answer, found.start(1))
    except (ValueError, RecursionError):
        return "JSON not readable"
    is_another = re.search(r"^[ \t,]{0,20}\{", answer[end:], re.MULTILINE)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if is_another or not isinstance(value, dict):
        return "more than one example"
    parts = _table_parts(value, words)
    before = answer[: found.start()].strip().removesuffix("```json").removesuffix("```")
    # A response alone needs more: a bare text may well show an object with such a key.
    return parts if isinstance(parts, str) or parts[0] is not None or is_preamble(before) else None


def _table_parts(table: dict[str, Any], words: Grammar) -> _Parts:
    """The parts of an object with their names as keys, at the top or in one object below it."""
    named = [(kind, value) for key, value in table.items() if (kind := label_kind(key, words))]
    if not named:
        below = [value for value in table.values() if isinstance(value, dict)]
        return _table_parts(below[0], words) if len(below) == 1 else "JSON of another form"
    asked = [value for kind, value in named if kind == "instruction" and value]
    answered = [value for kind, value in named if kind == "response"]
    if not answered:
        return "no response marker"
    if len(asked) > 1 or len(answered) > 1:
        return "JSON of another form"
    if not all(isinstance(value, str) for value in asked + answered):
        return "JSON of another form"
    response = clean_response(readable(answered[0]))
    if not any(kind == "instruction" for kind, _ in named):
        return None, response
    return clean_instruction(readable(asked[0])) if asked else "", response
