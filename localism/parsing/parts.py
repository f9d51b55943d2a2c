"""The text under a heading -> the instruction or response itself, without talk about it."""

import re
import textwrap

from localism.parsing.fences import FENCE

_RULE = re.compile(r"\s*(?:[-*_=—]\s*){3,}+")
# Closing tags whose opening ones were headings or wrapped the example.
_CLOSING_TAG = re.compile(
    r"\s*(?:</|\[/)(instruction|query|question|prompt|user|response|answer|reply|output|assistant"
    r"|example|sample|item|pair|xml|root|data|p|div|details)\s*[>\]]\s*",
    re.IGNORECASE,
)
_PLAIN_FENCE = re.compile(
    r"[ \t]*(?:`{3,}|~{3,})[ \t]*(?:text|txt|markdown|md|plain|plaintext)?\s*", re.IGNORECASE
)
_NAMED_PLAIN_FENCE = re.compile(r"(?:`{3,}|~{3,})(?:text|txt|markdown|md|plain)", re.IGNORECASE)
_BARE_FENCE = re.compile(r"[ \t]*(?:`{3,}|~{3,})[ \t]*")
_SAYS_NOTHING = re.compile(r"[\s\u200b-\u200f\u2060\"'“”„«»‘’「」『』*_#>=~`.:|–—-]*+")
_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "‘": "’", "「": "」", "『": "』"}

# ---- talk about the example: before it, at the start of a part, at its end -------------------

# What a teacher says before its reworked response, as opposed to an instruction without a heading.
_PREAMBLE = re.compile(
    r"(?:sure|certainly|absolutely|of course|okay|ok|understood|thank|thanks|great|here|below"
    r"|based on|i've|i’ve|i have|let me|the (?:instruction|query|question) "
    r"(?:stays|remains|is (?:the same|unchanged|kept))"
    r"|hier (?:ist|kommt)|gerne?|natürlich|voici|bien sûr|aquí (?:está|tienes)|claro|ecco|certo"
    r"|вот|конечно|以下|好的|当然|承知|はい|بالتأكيد|إليك)(?!\w)|(?:以下|好的|当然|承知|はい)",
    re.IGNORECASE,
)
_PART = r"(?:instruction|query|question|response|answer|reply|version|example|pair)"
_CHANGED = r"(?:refined|revised|improved|updated|rewritten|reworked|final|new)"
_LEAD_IN = re.compile(
    r"\A(?:(?:sure|certainly|of course|okay|ok|absolutely|great)[,.!]*\s+)?"
    r"(?:here(?:'|’)s|here is|below is)\s+(?:(?:the|my|an?|your)\s+)?"
    rf"(?:{_CHANGED}\s+{_PART}|{_PART}\s[^\n]{{0,120}}"
    r"\b(?:skills|query type|critique|feedback|guidelines)\b[^\n]{0,80}?)\s*[:.]\s*(?:\n|$)",
    re.IGNORECASE,
)
# A closing remark must both start like one and say something that only whoever ordered the example
# can mean: a tutor may well offer 'another example', a letter may end in 'let me know'.
_SIGN_OFF_STARTS = re.compile(
    r"[-(\[*_>#\s]*(?:notes?(?:\s*:| that| on)|i hope (?:this|that|the|it)"
    r"|i(?:'ve|’ve| have)? (?:made|revised|refined|rewritten|rewrote|updated|kept|left|adjusted"
    r"|changed|added|addressed|combined|woven|tried|ensured|shortened)\b"
    r"|let me know|feel free|please let me know|would you like|do you want|if you(?:'|’)d like"
    rf"|this (?:{_PART}|draft)\b|the (?:above|{_CHANGED}) (?:{_PART}|draft)\b"
    r"|the (?:example|instruction)\b|changes(?: made)?\b|what (?:i )?changed|revisions?\b"
    r"|summary of changes|improvements made|explanation\b|rationale\b|how (?:both|the) skills"
    r"|skills (?:used|shown|demonstrated)|ich hoffe|hinweis|anmerkung|dieses beispiel"
    r"|j(?:'|’)espère|remarque|cet exemple|espero|nota\b|este ejemplo|spero|questo esempio"
    r"|надеюсь|примечание|этот пример|希望|注[:：]|说明[:：]|この例)",
    re.IGNORECASE,
)
_SIGN_OFF_SAYS = re.compile(
    r"\b(?:(?:both|all|all the|the two|the required|the requested|the given|the specified) skills"
    r"|instruction and (?:the )?response|instruction[- ]response|query type|task type"
    r"|(?:version of|adjust|modify|refine|revise|regenerate|rework|tweak) (?:this|the) example"
    r"|example (?:meets|fulfils|fulfills|satisfies) |another (?:pair|instruction)"
    r"|(?:address\w*|based on|following|per|from) the critique"
    r"|refined (?:instruction|response|example)"
    r"|(?:revised|improved|updated) (?:instruction|example)"
    r"|the instruction (?:now|has been|remains|stays|is unchanged|is kept|as it was|unchanged)"
    r"|beide fähigkeiten|beiden fähigkeiten|die anweisung|les deux compétences|la consigne"
    r"|ambas habilidades|la instrucción|entrambe le abilità|оба навыка)\b"
    r"|两(?:种|个|项)技能|両方のスキル",
    re.IGNORECASE,
)
_END_NOTE = re.compile(
    r"[(\[*_\s-]*(?:end of (?:the )?(?:response|answer|example)|word count:?\s*~?\d+"
    r"|~?\d+ words)[)\]*_.\s-]*",
    re.IGNORECASE,
)
_RULE_LINE = re.compile(r"\n[ \t]*[-*_]{3,}[ \t]*(?=\n)")


def is_preamble(text: str) -> bool:
    """Whether text before a lone response is talk about it and not an instruction."""
    text = trimmed(text)
    return not text or ("\n\n" not in text and len(text) < 400 and bool(_PREAMBLE.match(text)))


def is_empty(text: str) -> bool:
    """Whether nothing is left but spaces, quotation marks and Markdown's punctuation."""
    return bool(_SAYS_NOTHING.fullmatch(text))


def clean_instruction(text: str) -> str:
    """Without rules, lead-ins, and one layer of fence, block quote, bold or quotation marks."""
    text = trimmed(_LEAD_IN.sub("", trimmed(text), count=1))
    text = _without_halves(text)
    for unwrap in (unfenced, unquoted_block, unquoted, _unbold, unquoted):
        text = trimmed(unwrap(text))
    return text


def clean_response(text: str) -> str:
    """Without rules, lead-ins and closing remarks to whoever ordered the example."""
    text = trimmed(_LEAD_IN.sub("", trimmed(text), count=1))
    if _NAMED_PLAIN_FENCE.match(text):
        text = trimmed(unfenced(text))
    for _ in range(3):
        start = _remark_start(text)
        if start is None:
            return text
        text = trimmed(text[:start])
    return text


def _remark_start(text: str) -> int | None:
    """Where the closing remark about the example starts; None where there is none for certain."""
    rules = list(_RULE_LINE.finditer(text))
    below_rule = rules[-1].start() if rules else -1
    for start, longest in ((below_rule, 1500), (text.rfind("\n\n"), 600)):  # characters
        if start <= 0 or len(text) - start > longest or "```" in text[start:]:
            continue
        remark = text[start:].strip()
        says_so = _SIGN_OFF_STARTS.match(remark) and _SIGN_OFF_SAYS.search(remark)
        if says_so or _END_NOTE.fullmatch(remark):
            return start
    return None


def trimmed(text: str) -> str:
    """Without blank lines, horizontal rules and closing tags of the parts at either end."""
    lines = text.strip().split("\n")
    first, last = 0, len(lines)
    while first < last and (not lines[first].strip() or _is_rule(lines[first])):
        first += 1
    opened: set[str] | None = None
    while last > first:
        line = lines[last - 1]
        if tag := _CLOSING_TAG.fullmatch(line):
            opened = _opened(lines) if opened is None else opened
            if tag[1].lower() in opened:
                break
        elif line.strip() and not _is_rule(line):
            break
        last -= 1
    text = "\n".join(lines[first:last]).strip().strip("\u200b\u200e\u200f\u2060").strip()
    start = max(text.rfind("</"), text.rfind("[/"))
    end_tag = _CLOSING_TAG.fullmatch(text, start) if start > 0 else None
    is_left = end_tag and end_tag[1].lower() not in _opened(lines)
    return text[:start].rstrip() if is_left else text


def _opened(lines: list[str]) -> set[str]:
    """Names of the tags that a text opens itself, so that their ends are content."""
    return {name.lower() for line in lines for name in re.findall(r"[<\[](\w{1,20})", line)}


def _is_rule(line: str) -> bool:
    return line.lstrip()[:1] in ("-", "*", "_", "=", "—") and bool(_RULE.fullmatch(line))


def dedented_block(indicator: str, body: str) -> str:
    """The text of a YAML block scalar; any other text as it is, below what its heading says."""
    if re.fullmatch(r"[|>][+-]?", indicator):
        return textwrap.dedent(body)
    return f"{indicator}\n{body}"


def without_cdata(text: str) -> str:
    """The text inside an XML CDATA section that holds all of it."""
    inside = text.strip()
    is_wrapped = inside.startswith("<![CDATA[") and inside.endswith("]]>")
    return inside[9:-3] if is_wrapped else text


def unfenced(text: str) -> str:
    """Without a fence around the whole, unless it says that the text is code."""
    lines = text.split("\n")
    inside = lines[1:-1]
    is_wrapped = (
        len(lines) > 2
        and _PLAIN_FENCE.fullmatch(lines[0])
        and _BARE_FENCE.fullmatch(lines[-1])
        and not any(FENCE.fullmatch(line) for line in inside)
    )
    return "\n".join(inside) if is_wrapped else text


def _without_halves(text: str) -> str:
    """Without the end of one fence and the start of the next, left where each part had its own."""
    lines = text.split("\n")
    last = len(lines) - 1
    before = last - 1
    while before > 0 and not lines[before].strip():
        before -= 1
    is_left = before > 0 and all(_BARE_FENCE.fullmatch(lines[at]) for at in (before, last))
    return "\n".join(lines[:before]) if is_left else text


def unquoted_block(text: str) -> str:
    """Without '>' when every line has one."""
    lines = text.split("\n")
    if all(line.startswith(">") for line in lines if line.strip()):
        return "\n".join(re.sub(r"^> ?", "", line) for line in lines)
    return text


def unquoted(text: str) -> str:
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
