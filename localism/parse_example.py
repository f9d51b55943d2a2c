"""A teacher's reply -> instruction and response, or the reason why they cannot be told apart."""

import functools
import re
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["instruction", "response"]
Reason = Literal[
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


@dataclass(frozen=True)
class _Heading:
    """A line that announces the instruction or the response."""

    kind: Kind
    line: int
    """Index of the heading's own line."""
    body: int
    """Index of the first line after it."""
    rest: str
    """Text that follows on the heading's line."""
    tier: int
    """0 is the pack's marker letter for letter; the higher, the less it looks like it."""


_SYNONYMS: dict[Kind, tuple[str, ...]] = {
    "instruction": ("instruction", "query", "question", "prompt", "request", "user", "human"),
    "response": ("response", "answer", "reply", "output", "completion", "assistant"),
}
_QUALIFIERS = (
    r"(?:(?:final|new|refined|revised|improved|updated|rewritten"
    r"|user|user's|human|assistant|ai|model|example|sample)\s+){0,2}"
)
_SUFFIX = r"(?:\s*\((?:refined|revised|improved|updated|rewritten|final|new|v?\d+)\)|\s*\d+)?"
# How a heading may be written, most certain first: ## Word, **Word:**, <word>, Word:, Word.
_FORMS = (
    r"\s{0,3}#{1,6}\s*(?:\d+[.)]\s*)?[*_]{0,3}LABEL"
    r"\s*[*_]{0,3}(?:[:：][*_]{0,3}(?P<rest>.*)|\s*#*\s*)",
    r"\s*(?:[-*]\s+|\d+[.)]\s*)?[*_]{1,3}LABEL"
    r"(?:\s*[:：][*_]{1,3}(?P<rest>.*)|[*_]{1,3}\s*[:：](?P<after>.*)|[*_]{1,3}\s*)",
    r"\s*[<\[【]{1,2}LABEL[>\]】]{1,2}\s*[:：]?(?P<rest>.*)",
    r"\s*(?:[-*]\s+|\d+[.)]\s*)?LABEL\s*[:：](?P<rest>.*)",
    r"\s*LABEL\s*",
)
_BARE = len(_FORMS)  # the tier of the last form, for the pack's own word
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})(.*)")
_RULE = re.compile(r"\s*(?:[-*_=]\s*){3,}")
_THINKING = re.compile(r"\s*<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THINKING_OPENS = re.compile(r"\s*<(think|thinking|reasoning)>", re.IGNORECASE)
_THINKING_CLOSES = re.compile(r"</(think|thinking|reasoning)>", re.IGNORECASE)
# What a teacher says before its reworked response, as opposed to an instruction without a heading.
_PREAMBLE = re.compile(
    r"(?:sure|certainly|absolutely|of course|okay|ok|understood|thank|thanks|great|here|below"
    r"|based on|i've|i’ve|i have|let me|the (?:instruction|query|question) "
    r"(?:stays|remains|is (?:the same|unchanged|kept)))\b",
    re.IGNORECASE,
)
_LEAD_IN = re.compile(
    r"\A(?:(?:sure|certainly|of course|okay)[,.!]?\s+)?(?:here(?:'|’)s|here is|below is)\s+"
    r"(?:(?:the|my|an?|your)\s+)?(?:refined|revised|improved|updated|rewritten|final|new)\s+"
    r"(?:instruction|query|question|response|answer|reply|version)\s*:\s*(?:\n|$)",
    re.IGNORECASE,
)
_SIGN_OFF_STARTS = re.compile(
    r"[(\[*_\s]*(?:note(?:\s*:| that)|i hope this|i(?:'|’)ve |i have |let me know if|feel free"
    r"|please let me know|(?:this|the) (?:above |refined |revised |improved |updated |final )?"
    r"(?:response|answer|version|example|instruction|query|draft)\b)",
    re.IGNORECASE,
)
_SIGN_OFF_SAYS = re.compile(
    r"\b(?:(?:both|all|all the|the two|the required|the requested|the given) skills"
    r"|instruction and (?:the )?response|query type|task type|this example|the critique"
    r"|(?:refined|revised|improved|updated) (?:instruction|response|version|example))\b",
    re.IGNORECASE,
)
_END_NOTE = re.compile(
    r"[(\[*_\s-]*(?:end of (?:the )?(?:response|answer|example)|word count:?\s*~?\d+"
    r"|~?\d+ words)[)\]*_.\s-]*",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "‘": "’", "「": "」"}


def split_example(
    text: str,
    instruction_marker: str,
    response_marker: str,
    earlier_instruction: str | None = None,
) -> Example | Unparsed:
    """The instruction and response in a teacher's reply, or why they cannot be told apart.

    Headings may be of another level, bold, tagged or plain, and may say 'Query' for 'Instruction';
    the form closest to the pack's markers decides, so that a bold 'Response:' inside a response is
    content. Markers in code fences are content too, unless the fence wraps the whole example. A
    reply with a response alone keeps `earlier_instruction`, that of a turn before. Two examples in
    one reply, text where a heading is missing and other doubtful cases are reasons, never guesses.
    """
    answer = _without_thinking(text.replace("\r\n", "\n").lstrip("\ufeff\u200b"))
    if answer is None:
        return Unparsed("thinking not finished")
    if not answer.strip():
        return Unparsed("empty reply")
    patterns = _patterns(instruction_marker, response_marker)
    lines = answer.split("\n")
    headings, is_open = _find_headings(lines, patterns)
    if not headings and (wrapped := _unwrapped(lines, patterns)):
        lines = wrapped
        headings, is_open = _find_headings(lines, patterns)
        if is_open:
            return Unparsed("code fence not closed")
    chosen = _choose(headings)
    if isinstance(chosen, str):
        is_hidden = is_open and chosen in ("no markers", "no response marker")
        return Unparsed("code fence not closed" if is_hidden else chosen)
    asked, answered = chosen
    response = _clean_response("\n".join([answered.rest, *lines[answered.body :]]))
    if asked:
        body = [asked.rest, *lines[asked.body : answered.line]]
        instruction = _clean_instruction("\n".join(body))
    elif earlier_instruction and _is_preamble("\n".join(lines[: answered.line])):
        instruction = earlier_instruction
    else:
        return Unparsed("no instruction marker")
    if not instruction:
        return Unparsed("empty instruction")
    for part in (instruction, response):  # a fence that was taken off may have hidden a marker
        if any(not heading.tier for heading in _find_headings(part.split("\n"), patterns)[0]):
            return Unparsed("more than one example")
    return Example(instruction, response) if response else Unparsed("empty response")


def outside_fences(text: str) -> str:
    """The text without its fenced code."""
    lines = text.split("\n")
    fenced, _ = _fenced(lines)
    return "\n".join(line for index, line in enumerate(lines) if index not in fenced)


def has_open_fence(text: str) -> bool:
    """Whether a code fence is opened and never closed."""
    return _fenced(text.split("\n"))[1]


def has_heading(text: str, instruction_marker: str, response_marker: str) -> bool:
    """Whether a line outside code fences is a marker, or its word as a heading of another form."""
    headings, _ = _find_headings(text.split("\n"), _patterns(instruction_marker, response_marker))
    return any(heading.tier < _BARE for heading in headings)


def _without_thinking(text: str) -> str | None:
    """The reply after its thinking; None when the thinking never ends.

    Some chat templates open the block in the prompt, so that only its end is in the reply.
    """
    while block := _THINKING.match(text):
        text = text[block.end() :]
    if _THINKING_OPENS.match(text):
        return None
    closing = _THINKING_CLOSES.search(text)
    if closing and not _THINKING_OPENS.search(text[: closing.start()]):
        text = text[closing.end() :]
    return text


_Patterns = list[tuple[Kind, int, re.Pattern[str]]]


@functools.cache
def _patterns(instruction_marker: str, response_marker: str) -> _Patterns:
    """Heading patterns, the most certain first: the markers, their words, then synonyms."""
    markers: tuple[tuple[Kind, str], ...] = (
        ("instruction", instruction_marker),
        ("response", response_marker),
    )
    patterns: _Patterns = []
    for kind, marker in markers:
        ends_in_word = marker[-1:].isalnum()
        rest = r"(?:\s*[:：](?P<rest>.*)|\s*)" if ends_in_word else r"(?P<rest>.*)"
        patterns.append((kind, 0, re.compile(rf"\s*{re.escape(marker)}{rest}")))
    for kind, marker in markers:
        own = re.sub(r"^[\W_]+|[\W_]+$", "", marker) or kind
        for first_tier, words in ((1, (own,)), (1 + _BARE, _SYNONYMS[kind])):
            label = rf"{_QUALIFIERS}(?:{'|'.join(map(re.escape, words))}){_SUFFIX}"
            for offset, form in enumerate(_FORMS):
                pattern = re.compile(form.replace("LABEL", label), re.IGNORECASE)
                patterns.append((kind, first_tier + offset, pattern))
    return sorted(patterns, key=lambda pattern: pattern[1])


def _heading(lines: list[str], index: int, patterns: _Patterns) -> _Heading | None:
    """The heading that a line is, if any."""
    line = lines[index]
    if len(line) > 20_000:  # a heading with a whole text on its line is shorter
        return None
    for kind, tier, pattern in patterns:
        found = pattern.fullmatch(line)
        if not found:
            continue
        body = index + 1
        if tier and tier % _BARE == 0:
            # The word alone: 'Response', but not 'response' as the last word of a wrapped line.
            if line.strip()[0].islower():
                return None
            if body < len(lines) and re.fullmatch(r"\s*(?:-{3,}|={3,})\s*", lines[body]):
                return _Heading(kind, index, body + 1, "", tier - _BARE + 1)
        rest = next((text for text in found.groupdict().values() if text), "")
        return _Heading(kind, index, body, rest.strip(), tier)
    return None


def _find_headings(lines: list[str], patterns: _Patterns) -> tuple[list[_Heading], bool]:
    """All headings outside code fences, a doubled one as one; and whether a fence stays open."""
    found: list[_Heading] = []
    fenced, is_open = _fenced(lines)
    for index in range(len(lines)):
        heading = None if index in fenced else _heading(lines, index, patterns)
        if not heading:
            continue
        previous = found[-1] if found else None
        if previous and previous.kind == heading.kind and not previous.rest:
            if not any(text.strip() for text in lines[previous.body : index]):
                found.pop()
                tier = min(previous.tier, heading.tier)
                heading = replace(heading, line=previous.line, tier=tier)
        found.append(heading)
    return found, is_open


def _fenced(lines: list[str]) -> tuple[set[int], bool]:
    """Indices of the lines of code fences, paired as in CommonMark; whether the last stays open."""
    inside: set[int] = set()
    fence = ""
    for index, line in enumerate(lines):
        mark = _FENCE.fullmatch(line)
        if fence:
            inside.add(index)
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
        elif mark and "`" not in mark[2]:
            inside.add(index)
            fence = mark[1]
    return inside, bool(fence)


def _unwrapped(lines: list[str], patterns: _Patterns) -> list[str] | None:
    """The inside of the code fence that opens right before a heading, or None.

    The last closing fence ends it, for fences of the response itself may lie within.
    """
    closings = [i for i, line in enumerate(lines) if re.fullmatch(r"\s{0,3}(`{3,}|~{3,})\s*", line)]
    for index, line in enumerate(lines):
        if not _FENCE.fullmatch(line):
            continue
        first = next((i for i in range(index + 1, len(lines)) if lines[i].strip()), None)
        if first is None or not _heading(lines, first, patterns):
            continue
        end = closings[-1] if closings and closings[-1] > first else len(lines)
        return lines[first:end]
    return None


def _choose(headings: list[_Heading]) -> "tuple[_Heading | None, _Heading] | Reason":
    """The instruction's heading (None: there is only a response) and the response's."""
    asked = [heading for heading in headings if heading.kind == "instruction"]
    answered = [heading for heading in headings if heading.kind == "response"]
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
        or (heading.kind == "instruction" and heading.tier < _BARE and heading.line > asked[0].line)
        for heading in headings
    )
    return "more than one example" if is_another else (asked[0], answered[0])


def _most_certain(headings: list[_Heading]) -> list[_Heading]:
    best = min((heading.tier for heading in headings), default=0)
    return [heading for heading in headings if heading.tier == best]


def _is_preamble(text: str) -> bool:
    """Whether text before a lone response is talk about it and not an instruction."""
    text = text.strip().strip("-*_=").strip()
    return not text or ("\n\n" not in text and len(text) < 400 and bool(_PREAMBLE.match(text)))


def _clean_instruction(text: str) -> str:
    """Without rules, lead-ins, and one layer of fence, block quote, bold or quotation marks."""
    text = _trim(_LEAD_IN.sub("", _trim(text), count=1))
    # Each part in a fence of its own: the end of the first and the start of the second are left.
    text = re.sub(r"\n`{3,}\s*\n\s*`{3,}\s*$", "", text)
    for unwrap in (_unfenced, _unquoted_block, _unquoted, _unbold, _unquoted):
        text = _trim(unwrap(text))
    return text


def _clean_response(text: str) -> str:
    """Without rules, lead-ins and a closing remark to whoever ordered the example."""
    text = _trim(_LEAD_IN.sub("", _trim(text), count=1))
    if re.match(r"(?:`{3,}|~{3,})(?:text|markdown|md|plain|plaintext)\s*\n", text, re.IGNORECASE):
        text = _trim(_unfenced(text))
    for _ in range(2):
        before, _, last = text.rpartition("\n\n")
        is_remark = _END_NOTE.fullmatch(last) or (
            len(last) < 600 and _SIGN_OFF_STARTS.match(last) and _SIGN_OFF_SAYS.search(last)
        )
        if not before or not is_remark:
            break
        text = _trim(before)
    return text


def _trim(text: str) -> str:
    """Without blank lines, horizontal rules and closing tags at either end."""
    lines = text.strip().split("\n")
    while lines and (not lines[0].strip() or _RULE.fullmatch(lines[0])):
        lines.pop(0)
    closing_tag = r"\s*(?:</\w+>|\[/\w+\])\s*"
    while lines and (
        not lines[-1].strip() or _RULE.fullmatch(lines[-1]) or re.fullmatch(closing_tag, lines[-1])
    ):
        lines.pop()
    text = "\n".join(lines).strip()
    return re.sub(r"\s*(?:</|\[/)(?:instruction|query|question|response|answer)[>\]]$", "", text)


def _unfenced(text: str) -> str:
    lines = text.split("\n")
    inside = lines[1:-1]
    is_wrapped = (
        len(lines) > 2
        and re.fullmatch(r"(`{3,}|~{3,})\s*(?:text|markdown|md|plain|plaintext)?\s*", lines[0])
        and re.fullmatch(r"(`{3,}|~{3,})\s*", lines[-1])
        and not any(_FENCE.fullmatch(line) for line in inside)
    )
    return "\n".join(inside) if is_wrapped else text


def _unquoted_block(text: str) -> str:
    lines = text.split("\n")
    if all(line.startswith(">") for line in lines if line.strip()):
        return "\n".join(re.sub(r"^> ?", "", line) for line in lines)
    return text


def _unquoted(text: str) -> str:
    """Without quotation marks around the whole; those of a word or sentence inside stay."""
    closing = _QUOTES.get(text[:1])
    inside = text[1:-1]
    if not closing or len(text) < 3 or not text.endswith(closing):
        return text
    return text if closing in inside or text[0] in inside else inside


def _unbold(text: str) -> str:
    for mark in ("***", "**", "__", "*", "_"):
        inside = text[len(mark) : -len(mark)]
        if text.startswith(mark) and text.endswith(mark) and inside and mark[0] not in inside:
            return inside
    return text
