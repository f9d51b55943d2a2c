"""How many sentences a text has, by rules alone: nothing is downloaded.

Written for the short English texts of SKILL-MIX, where a full stop too many costs a point. A
sentence ends at . ! ? or an ellipsis (with the quotes and brackets that close there) when what
follows begins another one, at a blank line, and where a list's next item begins. Abbreviations,
initials, decimals, numbers of list items and speech that goes on ("Why?" he asked) end none.
"""

import re

# A run of marks, then whatever closes there; emphasis closes too.
_END = re.compile(r"""(?P<marks>[.!?…]+|[。！？｡।؟۔]+)(?P<closed>["'”’»)\]}*_]*)""")  # noqa: RUF001
_QUOTES = "\"'”’»"  # noqa: RUF001
_WIDE = "。！？｡।؟۔"  # noqa: RUF001
# Between paragraphs, and before an item of a list.
_BREAK = re.compile(r"\n\s*\n|\n(?=[ \t]*(?:[-*+•‣–]|\(?\d{1,3}[.)])[ \t]+\S)")
_ITEM_NUMBER = re.compile(r"^\W*\(?\d{1,3}$")
_SAID = re.compile(
    r"\w+(?:'s)? (?:said|says|asked|asks|replied|replies|answered|answers|cried|cries|shouted|"
    r"shouts|whispered|whispers|muttered|mutters|exclaimed|exclaims|wondered|wonders|insisted|"
    r"insists|added|adds|called|calls|thought|thinks)\b"
)
# Never the end of a sentence: a name, a thing or an example follows.
_LEADS = frozenset("mr mrs ms mx dr messrs mme mlle e.g eg i.e ie cf vs viz ca approx al".split())
# The same where they are written as titles: 'one more rep.' ends a sentence.
_TITLES = frozenset(
    "Prof St Mt Rev Hon Gen Col Capt Cmdr Lt Sgt Maj Gov Sen Rep Pres Supt Fr".split()
)
# An abbreviation only before a number: 'a ripe fig.' ends a sentence.
_NUMBERED = frozenset("no nos p pp fig figs eq sec ch vol".split())
# An abbreviation that may end a sentence too, where the next word could begin one.
_TRAILS = frozenset(
    "etc jr sr inc ltd co corp a.m p.m am pm ph.d m.d b.a m.a b.sc m.sc esq dept est min max oz lb "
    "lbs ft jan feb mar apr jun jul aug sept sep oct nov dec ave blvd rd bros".split()
)
_DOTTED = re.compile(r"(?:[A-Za-z]\.)*[A-Za-z]")
_FIRST_WORDS = frozenset(
    "the a an he she it they we i you this that these those but and so or in on at as when while "
    "if its his her their my our your then yet for no not what who why how where there here after "
    "before each every with from to by once only even still now just let".split()
)


def count(text: str) -> int:
    """How many sentences the text has; 0 for one without a letter or digit."""
    return sum(_within(part) for part in _BREAK.split(text))


def _within(part: str) -> int:
    """Of one paragraph or list item."""
    ends = sum(_is_end(part, found) for found in _END.finditer(part))
    return ends + 1 if _has_words(part) else 0


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _is_end(part: str, found: re.Match[str]) -> bool:
    """Whether a sentence ends here and another one begins."""
    before, marks, after = part[: found.start()], found["marks"], part[found.end() :]
    if not _has_words(before) or not _has_words(after):
        return False
    if marks[0] in _WIDE:
        return True
    if not after[0].isspace():
        return _lacks_space(before, after) and not _is_abbreviated(before, after)
    rest = after.lstrip()
    first = next(character for character in rest if character.isalnum())
    is_lower = first.islower()
    closed = found["closed"].strip("*_")
    if closed and (is_lower or (closed[-1] in _QUOTES and _SAID.match(rest))):
        return False
    if marks == ".":
        return not _is_abbreviated(before, rest)
    if "!" in marks or "?" in marks:
        return not is_lower
    return not is_lower and not re.match(r"\W*I\b", rest)  # an ellipsis may be a pause


def _lacks_space(before: str, after: str) -> bool:
    """Two sentences without a space between them: 'It ended.Then it rained.'"""
    return bool(re.search(r"[a-z]{2}$", before) and re.match(r"[A-Z][a-z']+[\s,]", after))


def _is_abbreviated(before: str, rest: str) -> bool:
    """Whether the full stop after `before` belongs to its last word."""
    word = re.split(r"[\s\"'“‘(\[/—–]+", before)[-1]  # noqa: RUF001
    following = re.match(r"\W*(\w+)", rest)
    assert following, rest
    bare, is_lower = word.lower(), following[1][0].islower()
    if _ITEM_NUMBER.match(before) or bare in _LEADS or word in _TITLES:
        return True
    if bare in _NUMBERED:
        return following[1][0].isdigit()
    if bare in _TRAILS:
        return is_lower or following[1][0].isdigit()
    if _DOTTED.fullmatch(word) and (word[0].isupper() or "." in word):
        return following[1].lower() not in _FIRST_WORDS or is_lower
    return False
