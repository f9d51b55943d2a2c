"""Does a text break off? What an unfinished last line leaves behind, told apart from styles.

Only the end is looked at, since that is where a cut-off reply shows. A rule that good texts break
(poems without full stops, lists of key words, forms to fill in, letters that end in a name) asks
for evidence from the rest of the same text first.
"""

import re

from localism.curation.candidate import words

# A sentence of fewer words may be a title, a name, a label or a line of a list of key words.
_SENTENCE_WORDS = 6
_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])(?:\s+(?P<text>.*)|\s*)$")
_ENDS = re.compile(r"[.!?…:。！？।॥؟۔։።][\"'”’»“)\]}*_`~」』】）\s]*$")
_SENTENCE_ENDS = re.compile(r"[.!?…।॥؟۔։።][\"'”’»)*_]*\s|[。！？]")
# No sentence, title or line of verse ends in one of these.
_DANGLING = re.compile(
    r"(?:^|\s)(?:the|an|and|or|of|your|my|our|their|its|because|which|whose|than|und|oder|dass|weil"
    r"|as|if|although|unless|during|between|among|into|onto"
    r"|eine|einen|einem|et|ou|des|du|avec|parce|los|las|para|porque|della|degli|perché|het|een)$"
)
_HEADING = re.compile(r"#{1,6}\s+\S")
_CODE_SPAN = re.compile(r"`[^`\n]*`|\$[^$\n]+\$|https?://[^\s)]+")
# Neither a power (x**2) nor a keyword argument (**options) opens bold type.
_BOLD = re.compile(r"(?<!\d)\*\*(?!\d)")
_OPENS_BOLD = re.compile(r"(?:^|[\s(])\*\*[^\W\d](?:[^*]*\w)?$")
_LETTERS_OF_QUOTES = ("“”", "„“”", "「」", "『』", "（）")


def breaks_off(text: str) -> str | None:
    """What shows that a text is unfinished, or None."""
    lines = [line.rstrip() for line in text.rstrip().split("\n") if line.strip()]
    if not lines or lines[-1].lstrip().startswith(("```", "~~~")):
        return None
    return _open_mathematics(text) or _unfinished_line(lines) or _open_pair(text)


def _open_mathematics(text: str) -> str | None:
    if text.count("$$") % 2 or text.count("\\[") > text.count("\\]"):
        return "formula not closed"
    if text.count("\\begin{") > text.count("\\end{"):
        return "environment not closed"
    return None


def _unfinished_line(lines: list[str]) -> str | None:
    """By the last line and how the others of its kind end."""
    last, before = lines[-1], lines[:-1]
    item = _ITEM.fullmatch(last)
    if item and not item["text"]:
        return "empty list item" if before and _ITEM.fullmatch(before[-1]) else None
    if last.lstrip().startswith("|"):
        closed = any(line.lstrip().startswith("|") and line.endswith("|") for line in before)
        return "table row not closed" if closed and not last.endswith("|") else None
    if len(_BOLD.findall(last)) % 2 and _OPENS_BOLD.search(_CODE_SPAN.sub("", last)):
        return "bold not closed"
    if re.search(r"[:：]\**$", last) and not (before and re.search(r"[:：]\W*$", before[-1])):
        # The lines of a form end so too, and a last field stands among others.
        return "nothing after a colon" if item or len(words(last)) >= 4 else None
    if _HEADING.match(last) and _has_filled_heading(before):
        return "nothing below the last heading"
    is_prose = bool(_SENTENCE_ENDS.search("\n".join(lines)))  # lines of code end in ; too
    if re.search(r"[,，、；]$|(?<![:;=-])[(\[{]$", last) and len(words(last)) >= 4:
        return "no end of the sentence"
    if re.search(r";$|[^\W\d_]-$", last) and len(words(last)) >= _SENTENCE_WORDS and is_prose:
        return "no end of the sentence"
    if _DANGLING.search(last):
        return "no end of the sentence"
    return "no end of the sentence" if _is_cut_sentence(last, before) else None


def _is_cut_sentence(last: str, before: list[str]) -> bool:
    """Whether the last line lacks the full stop that all lines of its kind have."""
    ends_in_code = any(span.end() == len(last) for span in _CODE_SPAN.finditer(last))
    if not last[-1].isalpha() or _is_verbatim(last) or ends_in_code:
        return False
    is_item = bool(_ITEM.fullmatch(last))
    if is_item:
        items = [line for line in before if _ITEM.fullmatch(line)]
        if len(items) >= 2 and all(_ENDS.search(line) for line in items):
            return True
    if len(words(last)) < _SENTENCE_WORDS:
        return False
    peers = [
        line
        for line in before
        if bool(_ITEM.fullmatch(line)) == is_item
        and len(words(line)) >= _SENTENCE_WORDS
        and not _is_verbatim(line)
    ]
    if not all(_ENDS.search(line) for line in peers):
        return False
    if is_item:
        return len(peers) >= 2
    return len(_SENTENCE_ENDS.findall("\n".join([*before, last]))) >= 2


def _has_filled_heading(lines: list[str]) -> bool:
    """Whether a heading has text below it: an outline of headings alone has none."""
    return any(
        _HEADING.match(line) and not _HEADING.match(below)
        for line, below in zip(lines, lines[1:], strict=False)
    )


def _is_verbatim(line: str) -> bool:
    """A heading, a table row or an indented block: not expected to be a sentence."""
    return line.startswith(("#", "    ", "\t")) or line.lstrip().startswith("|")


def _open_pair(text: str) -> str | None:
    """A bracket or quotation mark of the last paragraph that nothing closes, no full stop after."""
    last = _CODE_SPAN.sub("", text.rstrip().rpartition("\n\n")[2])
    if _ENDS.search(last):
        return None
    opened = sum(last.count(mark) for mark in "([{")
    if opened > sum(last.count(mark) for mark in ")]}") and not re.search(r"[:;=]-?[(\[]", last):
        return "bracket not closed"
    if any(
        last.rfind(pair[0]) > max(last.rfind(mark) for mark in pair[1:])
        for pair in _LETTERS_OF_QUOTES
    ):
        return "quotation not closed"
    # The last straight mark of the text stands where one opens.
    if re.search(r"(?:^|[\s(\[])\"(?=\S)[^\"]*$", last):
        return "quotation not closed"
    return None
