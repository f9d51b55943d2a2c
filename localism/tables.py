"""Rows as people and programs read them: an aligned table, CSV, or JSON."""

import csv
import io
import json
from typing import Any

from localism.reader import Table

CELL_WIDTH = 60


def render(table: Table, form: str) -> str:
    """A query's answer as text that ends with a newline; form is table, csv or json."""
    if form == "json":
        return json.dumps(table.as_dicts(), indent=2, ensure_ascii=False) + "\n"
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows(table.rows)
        return out.getvalue()
    return aligned(table.columns, table.rows) + f"{len(table.rows):,} rows\n"


def aligned(columns: list[str], rows: list[list[Any]]) -> str:
    """Columns padded to their widest cell; numbers to the right, long text cut with an ellipsis."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
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


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, bool) or not isinstance(value, int):
        text = " ".join(str(value).split())
        return text if len(text) <= CELL_WIDTH else text[: CELL_WIDTH - 1] + "…"
    return f"{value:,}"
