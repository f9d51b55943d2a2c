"""Rows as people and programs read them: an aligned table, CSV, or JSON."""

import csv
import io
import json
from typing import Any

from localism.reader import Table

CELL_WIDTH = 60


def render(table: Table, form: str, width: int | None = None) -> str:
    """A query's answer as text that ends with a newline; form is table, csv or json.

    A table is made to fit `width` characters where that is given.
    """
    if form == "json":
        return json.dumps(table.as_dicts(), indent=2, ensure_ascii=False) + "\n"
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows([_text_of(value) for value in row] for row in table.rows)
        return out.getvalue()
    return aligned(table.columns, table.rows, width) + f"{number_of(len(table.rows), 'row')}\n"


def number_of(count: int, noun: str) -> str:
    """'1 row', '2,000 rows'."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def aligned(columns: list[str], rows: list[list[Any]], width: int | None = None) -> str:
    """Columns padded to their widest cell; numbers to the right, long text cut with an ellipsis.

    With `width` the widest columns are narrowed until a line fits, to their names at the least.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    if width is not None:
        widths = _fitted(widths, [len(name) for name in columns], width)
        cells = [[shortened(c, w) for c, w in zip(row, widths, strict=True)] for row in cells]
    right = [
        all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(columns))
    ]
    lines = [columns, ["-" * width for width in widths], *cells]
    return "".join(
        "  ".join(
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(line, widths, right, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def _fitted(widths: list[int], least: list[int], width: int) -> list[int]:
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > width:
        spare = [have - need for have, need in zip(widths, least, strict=True)]
        widest = max(range(len(widths)), key=lambda i: (spare[i] > 0, widths[i]))
        if spare[widest] <= 0:
            break
        widths[widest] -= 1
    return widths


def shortened(text: str, width: int) -> str:
    """A text in at most so many characters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def _text_of(value: Any) -> Any:
    """A list or a struct as JSON, which other programs can read back; anything else as it is."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, bool) or not isinstance(value, int):
        return shortened(" ".join(str(_text_of(value)).split()), CELL_WIDTH)
    return f"{value:,}"
