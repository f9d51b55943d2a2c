"""Lines of a reply -> the headings that announce the instruction or the response, in any dress."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from localism.parsing.fences import fenced

Kind = Literal["instruction", "response"]


@dataclass(frozen=True)
class Heading:
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
    is_stray: bool
    """Inside a text it would be a leftover.

    Content are plain synonyms with text behind them ('Answer: six hours'), synonyms with a number
    ('### Question 3'), and words that head parts of good answers ('### Output').
    """
    is_old: bool
    """It says that what follows was replaced: 'Original Response'."""
    is_tag: bool
    """It may have a closing tag."""


# ---- the words -------------------------------------------------------------------------------

# A heading of these words is a leftover wherever it stands.
_STRONG: dict[Kind, str] = {
    "instruction": "instruction query question user human"
    " anweisung instruktion anfrage frage aufforderung consigne requête demande"
    " instrucción consulta pregunta solicitud istruzione domanda richiesta"
    " instrução pergunta instructie vraag instrukcja polecenie pytanie"
    " инструкция вопрос запрос задание інструкція запитання"
    " 指令 指示 问题 問題 提问 提問 用户 質問 命令 ユーザー 지시 지시문 질문 명령"
    " التعليمات التعليمة تعليمات السؤال سؤال الطلب निर्देश प्रश्न talimat soru",
    "response": "response answer assistant"
    " antwort réponse respuesta risposta resposta antwoord odpowiedź ответ відповідь"
    " 回答 回复 回覆 回應 响应 答复 答案 助手 応答 返答 答え アシスタント 응답 답변 대답"
    " الإجابة الاجابة الرد الاستجابة إجابة جواب الجواب उत्तर yanıt cevap",
}
# A heading of these also names parts of good answers ('### Output' below code, 'Instructions' in
# a recipe): it announces a part only where nothing clearer does.
_WEAK: dict[Kind, str] = {
    "instruction": "instructions prompt request input task aufgabe プロンプト",
    "response": "reply output completion レスポンス",
}
_ROLES = frozenset("user human assistant 用户 助手 ユーザー アシスタント".split())
_OLD = "original initial previous earlier old draft first ursprüngliche 原始 原来的 元の"
_NEW = (
    "final new refined revised improved updated rewritten reworked corrected better polished"
    " enhanced second complete full user user's user’s human assistant"
    " assistant's assistant’s ai überarbeitete verbesserte neue endgültige nouvelle nueva nuova"
    " новый новая улучшенный улучшенная исправленный исправленная"
    " 修改后的 改进后的 优化后的 修订后的 最终 最终的 新的 用户 改善された 改善後の 修正後の"
    " 修正された 新しい 最終的な ユーザーの"
)
_SAMPLE = "model example sample"  # '### Sample Answer' is content, unless it heads the example
_AFTERWARDS = (
    "refined revised improved updated rewritten final new unchanged kept same"
    " révisée améliorée revisada revisado mejorada rivista migliorata revista"
)

# ---- the dress -------------------------------------------------------------------------------

_SPACE = r" \t\u00a0\u00ad\u061c\u180e\u2000-\u200f\u202a-\u202f\u205f-\u206f\u3000\ufeff"
_PICTURE = (
    r"\u2190-\u21ff\u2300-\u23ff\u25a0-\u27bf\u2b00-\u2bff\ufe0e\ufe0f\u20e3\U0001f000-\U0001faff"
)
_HTML = r"h[1-6]|b|strong|em|i|u|p|div|span|center|summary|details|big"
_NUMBER = (
    r"\d{1,2}(?:[.)）、]|\\\.|\ufe0f?\u20e3)|\(\d\)|\(?[ab][.)]"
    rf"|(?:part|step|section|teil|partie|parte)[{_SPACE}]*(?:\d|[ab]\b|one|two)[.:)]?"
)
_BEFORE = (
    rf"(?P<before>(?:[{_SPACE}{_PICTURE}#＃*_(~\\=+•·\-–—]"
    rf"|<(?:{_HTML})(?:\s[^<>\n]{{0,80}})?>|(?=[\dabpst(])(?:{_NUMBER})){{0,30}}+)"
)
_CLOSE = rf"(?:[{_SPACE}{_PICTURE}#*_~\\)=]|</(?:{_HTML})>){{0,20}}+"
# How a heading may be written. A tag keeps what follows it; all others need a colon, a dash after
# bold, or nothing more on the line.
_WRAPPER = r"(?:example|sample|output|item|pair|xml|root|data)"
_TAG = (
    rf"[{_SPACE}]*(?:<{_WRAPPER}[^<>\n]{{0,40}}>[{_SPACE}]*){{0,3}}"
    rf"<LABEL(?:\s[^<>\n]{{0,80}})?>[{_SPACE}]*[:：]?(?P<rest>.*)"
)
_BRACKET = (
    rf"{_BEFORE}[\[【「〔]{{1,2}}LABEL[\]】」〕]{{1,2}}[*_]{{0,3}}[{_SPACE}]*[:：]?(?P<rest>.*)"
)
_LINE = (
    rf"{_BEFORE}LABEL(?P<close>{_CLOSE})"
    rf"(?:(?P<colon>[:：])(?:\\?[*_]|</(?:{_HTML})>){{0,6}}(?P<rest>.*)"
    rf"|(?P<dash>[-–—])[{_SPACE}](?P<after>.*)|[-–—=]*)"
)
BARE = 5  # the tier of the pack's own word with nothing around it
_BOLD = re.compile(r"\*\*|__|[*_](?!\s)|<(?:b|strong|em)\b")
_HASHES = re.compile(r"[#＃]|<h[1-6]|==")
_UNDERLINE = re.compile(r"\s*(?:-{3,}|={3,})\s*")
MOST = 200  # headings of one reply
_LONGEST = 20_000  # characters; a heading with a whole text on its line is shorter


@dataclass(frozen=True)
class Grammar:
    """What headings look like for one pair of markers."""

    markers: tuple[tuple[Kind, re.Pattern[str]], ...]
    """The pack's markers, letter for letter."""
    may_be: re.Pattern[str]
    """Finds lines that begin like a heading in a text in lower case; few do, and it is quick."""
    tag: re.Pattern[str]
    bracket: re.Pattern[str]
    line: re.Pattern[str]
    label: re.Pattern[str]
    """The words of a heading without its dress."""


@functools.cache
def grammar(instruction_marker: str, response_marker: str) -> Grammar:
    """The headings of a pack: its markers, their words, then synonyms in sixteen languages."""
    markers: tuple[tuple[Kind, str], ...] = (
        ("instruction", instruction_marker),
        ("response", response_marker),
    )
    exact = []
    for kind, marker in markers:
        ends_in_word = marker[-1:].isalnum()
        rest = rf"[{_SPACE}]*(?:[:：](?P<rest>.*))?" if ends_in_word else r"(?P<rest>.*)"
        exact.append((kind, re.compile(rf"[{_SPACE}]*{re.escape(marker)}{rest}")))
    own = [re.sub(r"^[\W_]+|[\W_]+$", "", marker) or kind for kind, marker in markers]
    label = _label(own[0], own[1])
    start = "|".join(re.escape(marker.lower()) for _, marker in markers)
    wrappers = rf"(?:[{_SPACE}]*<{_WRAPPER}[^<>\n]{{0,40}}>){{1,3}}[{_SPACE}]*"
    dress = rf"(?:{_BEFORE}|{wrappers})[<\[【「〔]{{0,2}}"
    all_words = [*own, *f"{_OLD} {_NEW} {_SAMPLE}".split()]
    all_words += " ".join([*_STRONG.values(), *_WEAK.values()]).split()
    initials = re.escape("".join({word[0].lower() for word in all_words}))
    names = re.sub(r"\(\?P<\w+>", "(?:", label.partition("(?P<suffix>")[0]).lower()
    return Grammar(
        tuple(exact),
        re.compile(rf"^(?:[{_SPACE}]*+(?:{start})|{dress}(?=[{initials}]){names})", re.MULTILINE),
        _compiled(_TAG.replace("LABEL", label)),
        _compiled(_BRACKET.replace("LABEL", label)),
        _compiled(_LINE.replace("LABEL", label)),
        _compiled(label),
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _any(words: str) -> str:
    """A pattern for one of the words; the longest first, so that none hides behind its start."""
    return "|".join(re.escape(word) for word in sorted(words.split(), key=len, reverse=True))


def _label(own_instruction: str, own_response: str) -> str:
    def words(kind: Kind, own: str) -> str:
        escaped = rf"[{_SPACE}]+".join(map(re.escape, own.split()))
        return (
            rf"(?P<own_{kind}>{escaped})|(?P<strong_{kind}>{_any(_STRONG[kind])})"
            rf"|(?P<weak_{kind}>{_any(_WEAK[kind])})"
        )

    # Scripts without spaces join the qualifier to the word.
    gap = rf"(?:[{_SPACE}_-]+|(?<=[\u3040-\u9fff]))"
    return (
        rf"(?P<qualifiers>(?:(?:{_any(f'{_OLD} {_NEW} {_SAMPLE}')}){gap}){{0,3}})"
        rf"(?:{words('instruction', own_instruction)}|{words('response', own_response)})"
        rf"(?P<suffix>[{_SPACE}]*[(（](?:{_any(_AFTERWARDS)}|v?\d{{1,3}})[)）]"
        rf"|[{_SPACE}]+(?:{_any(_AFTERWARDS)})(?=[{_SPACE}]*(?:\W|$))"
        rf"|[{_SPACE}]*\#?\d{{1,3}}|[{_SPACE}]+(?-i:[A-D])(?!\w))?"
    )


# ---- reading ---------------------------------------------------------------------------------


def find_headings(lines: Sequence[str], words: Grammar) -> tuple[list[Heading], bool]:
    """All headings outside code fences, a doubled one as one; and whether a fence stays open.

    At most MOST: more are a loop, and no example.
    """
    found: list[Heading] = []
    inside, is_open = fenced(lines)
    text, index, place, is_doubled = "\n".join(lines).lower(), 0, 0, False
    for start in words.may_be.finditer(text):
        index += text.count("\n", place, start.start())
        place = start.start()
        heading = None if index in inside else heading_at(lines, index, words)
        if not heading:
            continue
        is_doubled = not is_doubled and bool(found) and _says_again(found[-1], heading, lines)
        if is_doubled:
            first = found.pop()
            tier, is_stray = min(first.tier, heading.tier), first.is_stray or heading.is_stray
            heading = replace(heading, line=first.line, tier=tier, is_stray=is_stray)
        found.append(heading)
        if len(found) == MOST:
            break
    return found, is_open


def _says_again(first: Heading, second: Heading, lines: Sequence[str]) -> bool:
    """Whether the second announces what the first did, with nothing between them."""
    is_alike = first.kind == second.kind and not first.rest
    return is_alike and not any(line.strip() for line in lines[first.body : second.line])


def has_heading(text: str, instruction_marker: str, response_marker: str) -> bool:
    """Whether a line outside code fences is a marker, or its word as a heading of another form."""
    headings, _ = find_headings(text.split("\n"), grammar(instruction_marker, response_marker))
    return any(heading.tier < BARE for heading in headings)


def label_kind(text: str, words: Grammar) -> Kind | None:
    """Which part a name like 'refined_response' stands for, if any."""
    found = words.label.fullmatch(text.strip())
    return _word(found)[1] if found else None


def heading_at(lines: Sequence[str], index: int, words: Grammar) -> Heading | None:
    """The heading that a line is, if any."""
    line = lines[index]
    if len(line) > _LONGEST:
        return None
    for kind, marker in words.markers:
        if found := marker.fullmatch(line):
            rest = (found["rest"] or "").strip()
            return Heading(
                kind, index, index + 1, rest, 0, is_stray=True, is_old=False, is_tag=False
            )
    if found := words.tag.fullmatch(line) or words.bracket.fullmatch(line):
        return _heading(found, index, form=2)
    if not (found := words.line.fullmatch(line)):
        return None
    before = found["before"]
    form = 0 if _HASHES.search(before) else 1 if _BOLD.search(before) else 3
    if found["dash"] and form != 1:
        return None
    if form < 3 or found["colon"]:
        return _heading(found, index, form)
    # The word alone: 'Response', but not 'response' as the last word of a wrapped line.
    if line.strip()[0].islower():
        return None
    if index + 1 < len(lines) and _UNDERLINE.fullmatch(lines[index + 1]):
        return replace(_heading(found, index, form=0), body=index + 2)
    return _heading(found, index, form=BARE - 1)


def _word(found: re.Match[str]) -> tuple[str, Kind, str]:
    """The label's word, the part it announces, and how clearly: own, strong or weak."""
    for kind in ("instruction", "response"):
        for strength in ("own", "strong", "weak"):
            if word := found[f"{strength}_{kind}"]:
                return word, kind, strength
    raise AssertionError(f"a label without a word: {found[0]!r}")


def _heading(found: re.Match[str], index: int, form: int) -> Heading:
    """`form`: 0 a Markdown heading, 1 bold, 2 a tag, 3 with a colon, 4 the word alone."""
    word, kind, strength = _word(found)
    parts = found.groupdict()
    rest = (parts.get("rest") or parts.get("after") or "").strip()
    qualifiers = {text.casefold() for text in re.split(r"[\s_-]+", parts["qualifiers"] or "")}
    is_numbered = any(letter.isdigit() for letter in parts["suffix"] or "")
    is_sample = bool(qualifiers & set(_SAMPLE.split()))
    is_role = word.casefold() in _ROLES and form in (1, 3)
    is_stray = strength == "own" or (
        strength == "strong"
        and not is_numbered
        and not is_sample
        and (is_role or form in (0, 2) or (form == 1 and not rest))
    )
    return Heading(
        kind,
        index,
        index + 1,
        rest,
        tier=form + 1 + (0 if strength == "own" else BARE),
        is_stray=is_stray,
        is_old=bool(qualifiers & set(_OLD.split())),
        is_tag=form == 2,
    )
