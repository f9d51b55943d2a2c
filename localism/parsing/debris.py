"""What chat templates, reasoning models and transports leave around an answer -> the answer."""

import re
from typing import Literal

from localism.parsing.fences import blank_code

Debris = Literal["thinking in the example", "chat template in the example"]

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters, halves of surrogate pairs, and the byte order mark: never part of a text.
_UNWRITABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")

_INVISIBLE = re.compile(r"[\s\u200b-\u200f\u2060]*+")

_THOUGHT = r"think|thinking|thought|thoughts|reasoning|seed:think"
_OPENS = (
    rf"<(?:{_THOUGHT})>|◁think▷|\[THINK\]|<\|begin_of_thought\|>|<\|START_THINKING\|>"
    r"|<\|channel\|>(?:analysis|commentary)<\|message\|>"
)
_CLOSES = (
    rf"</(?:{_THOUGHT})>|◁/think▷|\[/THINK\]|<\|end_of_thought\|>|<\|END_THINKING\|>"
    r"|<\|channel\|>final<\|message\|>"
)
_THINKING_TAG = re.compile(rf"(?P<opens>{_OPENS})|(?P<closes>{_CLOSES})", re.IGNORECASE)
_THINKING_OPENS = re.compile(rf"\s*(?:{_OPENS})", re.IGNORECASE)
_LINE_OPENS = re.compile(rf"^[ \t]{{0,20}}(?:{_OPENS})", re.IGNORECASE | re.MULTILINE)
# Harmony's channels when the server dropped the control tokens but not the words between them.
_HARMONY = re.compile(r"\Aanalysis(?=[A-Z*#]).*?assistantfinal(?=\W|[A-Z])", re.DOTALL)

_TOKEN = (
    r"<[|｜][\w▁:./-]{1,40}[|｜]>|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk)>"
    r"|<(?:start|end)_of_turn>|<end_of_utterance>|\[(?:EOS|BOS|PAD|gMASK|sMASK)\]"
    r"|<extra_id_\d+>|<unused\d+>"
)
_TEMPLATE = re.compile(_TOKEN, re.IGNORECASE)
_TURN_ENDS = re.compile(
    r"<[|｜](?:im_end|eot_id|eom_id|end_of_text|endoftext|end|return|endofturn|END_OF_TURN_TOKEN"
    r"|end▁of▁sentence|EOT)[|｜]>|</s>|<eos>|<end_of_turn>|<end_of_utterance>|\[EOS\]",
    re.IGNORECASE,
)
_ROLE = r"(?:assistant|user|system|model|human|tool)"
# A token, with the role that templates write right behind an opening one.
_TOKEN_AND_ROLE = rf"(?:{_TOKEN})(?:{_ROLE}(?=\s|<|:|\Z):?)?"
_LEADING = re.compile(rf"\s*(?!{_OPENS}|{_CLOSES}){_TOKEN_AND_ROLE}", re.IGNORECASE)
_TRAILING = re.compile(rf"(?:{_TOKEN_AND_ROLE}\s*)\Z", re.IGNORECASE)
_RUNS_ON = re.compile(rf"\s*(?:\Z|{_TOKEN}|{_ROLE}\s*(?:\n|:))", re.IGNORECASE)
_SPEAKER = re.compile(
    r"\A\s*(?:assistant|model|ai|bot)[ \t]*[:：]?[ \t]*\n?(?=\s*[#*<\[【])", re.IGNORECASE
)


def is_blank(text: str) -> bool:
    """Whether a text shows nothing."""
    return bool(_INVISIBLE.fullmatch(text))


def readable(text: str) -> str:
    """The text with one kind of line end and without characters that no text has."""
    return _UNWRITABLE.sub("", _LINE_ENDS.sub("\n", text))


def without_edge_tokens(text: str) -> str:
    """Without the control tokens of a chat template at either end, and the roles beside them."""
    start = 0
    while found := _LEADING.match(text, start):
        start = found.end()
    text = text[start:].strip()
    end = len(text)
    # A token and its role are short: a window keeps this linear.
    while found := _TRAILING.search(text, max(0, end - 80), end):
        end = found.start()
    return text[:end].strip()


def without_speaker(text: str) -> str:
    """Without 'assistant:' before the first heading."""
    return _SPEAKER.sub("", text, count=1)


def turn_end(text: str, start: int) -> int | None:
    """Where the model's own turn ends and it plays on as somebody else; None when it does not.

    Only a token that is followed by nothing or by another turn ends it: one in the middle of a
    sentence is talk about tokens.
    """
    if not _TURN_ENDS.search(text, start):
        return None
    for found in _TURN_ENDS.finditer(blank_code(text), start):
        if _RUNS_ON.match(text, found.end()):
            return found.start()
    return None


def without_thinking(text: str) -> str | None:
    """The reply after its thinking; None when the thinking never ends.

    Some chat templates open the block in the prompt, so that only its end is in the reply. Blocks
    may lie in each other; with more opened than closed there is no telling where the answer starts.
    """
    text = _HARMONY.sub("", text, count=1)
    start = 0
    while _THINKING_OPENS.match(text, start):
        end = _block_end(text, start)
        if end is None:
            return None
        start = end
    first = None if start else _THINKING_TAG.search(text)
    return text[first.end() if first and first["closes"] else start :]


def bare_answer(text: str) -> str | None:
    """A reply that is the answer alone, without thinking and control tokens; None if none is left.

    For calls that ask for no form at all.
    """
    answer = without_thinking(readable(text))
    return (without_edge_tokens(answer) or None) if answer is not None else None


def first_thought(text: str) -> tuple[int, int | None] | None:
    """Start and end of the first block of thinking that opens at the start of a line."""
    found = _LINE_OPENS.search(text)
    return (found.start(), _block_end(text, found.start())) if found else None


def _block_end(text: str, start: int) -> int | None:
    depth = 0
    for tag in _THINKING_TAG.finditer(text, start):
        depth += 1 if tag["opens"] else -1
        if depth == 0:
            return tag.end()
    return None


def debris_in(text: str) -> Debris | None:
    """What of a template or of thinking stayed in a text outside its code, if anything."""
    if not _THINKING_TAG.search(text) and not _TEMPLATE.search(text):
        return None
    visible = blank_code(text)
    if _THINKING_TAG.search(visible):
        return "thinking in the example"
    return "chat template in the example" if _TEMPLATE.search(visible) else None
