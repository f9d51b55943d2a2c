"""Rows as people and programs read them: a table that fits the terminal, CSV, JSON or Markdown."""

import csv
import io
import json
import re
import shutil
import unicodedata
from typing import Any, NamedTuple

from localism.reader import Table

FORMS = ("table", "csv", "json", "markdown")
PIPED = 120
NARROWEST = 40
GAP = 2
# How narrow a column may get before another one is left out.
LEAST_PROSE, LEAST_NAME = 16, 10
NAME_LINES = 4
# So few rows that are too wide for a table are shown as blocks.
RECORDS, RECORD_LINES = 3, 8
# Marks that change the direction of what follows them.
_STEERING = re.compile("[\u202a-\u202e\u2066-\u2069]")
# A text is broken at its spaces, a name also behind these.
_WORDS = re.compile(r"\S+|\s+")
_PIECES = re.compile(r"[^\s_/.,:-]*[_/.,:-]+|[^\s_/.,:-]+|\s+")


def render(table: Table, form: str, width: int | None = None, prose_lines: int = 1) -> str:
    """A query's answer as text that ends with a newline; form is one of FORMS.

    A table is made to fit `width` columns of the terminal where that is given; see `aligned`.
    """
    if form == "json":
        return json.dumps(table.as_dicts(), indent=2, ensure_ascii=False) + "\n"
    if form == "csv":
        return "".join(_csv_line(row) for row in [table.columns, *table.rows])
    if form == "markdown":
        return _markdown(table)
    count = f"{number_of(len(table.rows), 'row')}\n"
    return aligned(table.columns, table.rows, width, prose_lines) + count


def terminal_width(unknown: int = PIPED) -> int:
    """Columns of the terminal, or of $COLUMNS; `unknown` where there is none."""
    return max(NARROWEST, shutil.get_terminal_size((unknown, 24)).columns)


def filled(text: str) -> str:
    """Lines of a text broken at its spaces to fit the terminal."""
    width = terminal_width()
    return "\n".join(
        part for line in text.splitlines() for part in _wrapped(line, width, 9, _WORDS)
    )


def hanging(label: str, text: str, width: int, most: int = 9) -> list[str]:
    """A text behind a label, in at most so many lines; those after the first stand under it."""
    room = max(LEAST_PROSE, width - width_of(label))
    first, *more = _wrapped(text, room, most, _WORDS)
    space = " " * width_of(label)
    return [f"{label}{first}".rstrip(), *(space + line for line in more)]


def number_of(count: int, noun: str, plural: str = "") -> str:
    """'1 row', '2,000 rows'; `plural` where it does not end in s alone."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def gigabytes(size: float) -> str:
    """Bytes as '1.5 GB'; what is less than a tenth of one in MB."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def aligned(
    columns: list[str],
    rows: list[list[Any]],
    width: int | None = None,
    prose_lines: int = 1,
    whole: str = "--format csv",
) -> str:
    """Columns padded to their widest cell, numbers to the right.

    With `width`, columns of text are narrowed first: a cell takes up to `prose_lines` lines, and
    ends in an ellipsis where that is too little. Then names are broken, those of the columns
    included. What does not fit even so is left out from the right and named under the table; a few
    rows are written one under the other instead, whole. `whole`: the option that shows everything.
    """
    shaped = [_Column.of(name, [row[i] for row in rows]) for i, name in enumerate(columns)]
    shown, widths = _fitted(shaped, width)
    if width is not None and shown < len(columns) and 0 < len(rows) <= RECORDS:
        return _records(shaped, len(rows), width)
    lines = _header(shaped[:shown], widths)
    for number in range(len(rows)):
        cells = [
            _wrapped(column.cells[number], room, column.lines(prose_lines), column.pieces())
            for column, room in zip(shaped[:shown], widths, strict=True)
        ]
        lines += _side_by_side(cells, shaped, widths)
    if shown < len(columns):
        left = number_of(len(columns) - shown, "column")
        note = f"{left} did not fit: {', '.join(columns[shown:])}; {whole} has all"
        lines += _wrapped(note, width or PIPED, NAME_LINES, _WORDS)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _records(columns: list["_Column"], rows: int, width: int) -> str:
    """Each row as a block with a line or more for each column."""
    names = max(width_of(column.name) for column in columns)
    lines = []
    for number in range(rows):
        lines += [f"--- {number + 1}"] if rows > 1 else []
        for column in columns:
            room = max(LEAST_PROSE, width - names - GAP)
            first, *more = _wrapped(column.cells[number], room, RECORD_LINES, column.pieces())
            lines.append(f"{column.name:<{names + GAP}}{first}")
            lines += [" " * (names + GAP) + line for line in more]
    return "".join(f"{line.rstrip()}\n" for line in lines)


class _Column(NamedTuple):
    """A column as it will be shown."""

    name: str
    cells: list[str]
    is_number: bool
    is_prose: bool

    @classmethod
    def of(cls, name: str, values: list[Any]) -> "_Column":
        known = [value for value in values if value is not None]
        is_number = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in known
        )
        cells = _even(values) if is_number else [_cell(value) for value in values]
        return cls(name, cells, is_number, not is_number and any(" " in cell for cell in cells))

    def lines(self, prose_lines: int) -> int:
        """How many lines a cell may take."""
        return prose_lines if self.is_prose else NAME_LINES

    def pieces(self) -> re.Pattern[str]:
        """What its cells may be broken into."""
        return _WORDS if self.is_prose else _PIECES

    def natural(self) -> int:
        """Width without any breaking."""
        return max([width_of(self.name), *(width_of(cell) for cell in self.cells)])

    def least(self) -> int:
        """The narrowest that can still be read; a number is never broken."""
        words = max((width_of(piece) for piece in _PIECES.findall(self.name)), default=1)
        if self.is_number:
            return max([words, *(width_of(cell) for cell in self.cells)])
        return min(self.natural(), max(words, LEAST_PROSE if self.is_prose else LEAST_NAME))


def _fitted(columns: list[_Column], width: int | None) -> tuple[int, list[int]]:
    """How many columns are shown, and how wide each is."""
    if width is None:
        return len(columns), [column.natural() for column in columns]
    shown = len(columns)
    while shown > 1 and _total([column.least() for column in columns[:shown]]) > width:
        shown -= 1
    widths = [column.natural() for column in columns[:shown]]
    headers = [max([1, *(width_of(cell) for cell in column.cells)]) for column in columns[:shown]]
    # Texts first; then the names of columns that are wider than what stands under them; then names.
    texts = [c.least() if c.is_prose else w for c, w in zip(columns[:shown], widths, strict=True)]
    bare = [
        max(c.least(), min(t, h)) for c, t, h in zip(columns[:shown], texts, headers, strict=True)
    ]
    for floors in (texts, bare, [column.least() for column in columns[:shown]]):
        widths = _narrowed(widths, floors, width)
    return shown, [min(one, width) for one in widths]


def _narrowed(widths: list[int], floors: list[int], width: int) -> list[int]:
    """The widest of what is above its floor gives way, until the line fits."""
    widths = list(widths)
    while _total(widths) > width:
        spare = [have - least for have, least in zip(widths, floors, strict=True)]
        widest = max(range(len(widths)), key=lambda i: (spare[i] > 0, widths[i]))
        if spare[widest] <= 0:
            break
        widths[widest] -= 1
    return widths


def _total(widths: list[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _header(columns: list[_Column], widths: list[int]) -> list[str]:
    names = [
        _wrapped(column.name, room, NAME_LINES, _PIECES)
        for column, room in zip(columns, widths, strict=True)
    ]
    rule = (" " * GAP).join("-" * width for width in widths)
    tallest = max((len(name) for name in names), default=0)
    names = [[""] * (tallest - len(name)) + name for name in names]  # down to the rule
    return [*_side_by_side(names, columns, widths), rule]


def _side_by_side(cells: list[list[str]], columns: list[_Column], widths: list[int]) -> list[str]:
    """Cells of several lines each as lines of the table; `columns` says what goes to the right."""
    lines = []
    for number in range(max((len(cell) for cell in cells), default=0)):
        parts = []
        for cell, column, width in zip(cells, columns, widths, strict=False):
            text = cell[number] if number < len(cell) else ""
            space = " " * (width - width_of(text))
            parts.append(space + text if column.is_number else text + space)
        lines.append((" " * GAP).join(parts))
    return lines


# ---- text ------------------------------------------------------------------------------------


def width_of(text: str) -> int:
    """Columns that a text takes on a terminal: two for a wide character, none for an accent."""
    if text.isascii():
        return len(text)
    return sum(_width_of_character(character) for character in text)


def _width_of_character(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shortened(text: str, width: int) -> str:
    """A text in at most so many columns, with an ellipsis where something is missing."""
    return text if width_of(text) <= width else _cut(text, width - 1).rstrip() + "…"


def _cut(text: str, width: int) -> str:
    """The beginning of a text that takes at most so many columns."""
    taken = 0
    for place, character in enumerate(text):
        taken += _width_of_character(character)
        if taken > width:
            return text[:place]
    return text


def _wrapped(text: str, width: int, most: int, pieces: re.Pattern[str]) -> list[str]:
    """A text in lines of at most `width` columns; the last one shows where it goes on."""
    rest = text
    lines: list[str] = []
    while width_of(rest) > width and len(lines) < most - 1:
        line = _first_line(rest, width, pieces)
        lines.append(line.rstrip())
        rest = rest[len(line) :].lstrip()
    return [*lines, shortened(rest, width)]


def _first_line(text: str, width: int, pieces: re.Pattern[str]) -> str:
    """As many whole pieces as fit; a piece that is too long for a line is cut."""
    line = ""
    for piece in pieces.findall(text):
        if width_of((line + piece).rstrip()) > width:
            break
        line += piece
    return line or _cut(text, width)


def _csv_line(row: list[Any]) -> str:
    """A row of CSV that ends with a newline."""
    out = io.StringIO()
    # With this end of line the writer quotes a lone carriage return, too.
    csv.writer(out, lineterminator="\r\n").writerow([_text_of(value) for value in row])
    return out.getvalue()[:-2] + "\n"


def _text_of(value: Any) -> Any:
    """A list or a struct as JSON, which other programs can read back; anything else as it is."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _cell(value: Any) -> str:
    """A value on one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return _harmless(" ".join(str(_text_of(value)).split()))


def _even(values: list[Any]) -> list[str]:
    """Numbers of one column: 47.0 below 46.9, where two decimals are enough for all."""
    cells = [_cell(value) for value in values]
    decimals = max((len(cell.partition(".")[2]) for cell in cells), default=0)
    if not 0 < decimals <= 2:
        return cells
    return [
        f"{value:,.{decimals}f}" if isinstance(value, float) else cell
        for value, cell in zip(values, cells, strict=True)
    ]


def _harmless(text: str) -> str:
    """Without control characters: a model's text must not steer the terminal that shows it."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        or (unicodedata.category(character) in ("Zs", "Cf") and not _STEERING.match(character))
        else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def _markdown(table: Table) -> str:
    columns = [_Column.of(name, [r[i] for r in table.rows]) for i, name in enumerate(table.columns)]
    rows = [
        table.columns,
        ["---:" if column.is_number else "---" for column in columns],
        *([column.cells[number] for column in columns] for number in range(len(table.rows))),
    ]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows
    )
