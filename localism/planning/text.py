"""A plan as a table for people, or as facts for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from localism import tables
from localism.config import Config
from localism.planning import predict
from localism.planning.predict import Machine, Row
from localism.planning.seen import Seen
from localism.reader import Table

COLUMNS = ("stage", "to do", "calls", "in", "out", "time", "GPU hours", "basis")


def facts(
    config: Config, machine: Machine, rows: Sequence[Row], like: Seen | None, watts: float | None
) -> dict[str, Any]:
    """Rows, totals, disk and energy."""
    hours = sum(row.hours for row in rows)
    power = predict.watts(machine, watts)
    done = [row for row in rows if row.predicted_hours is not None]
    taken, predicted = sum(r.hours for r in done), sum(r.predicted_hours or 0 for r in done)
    return {
        "stages": [asdict(row) for row in rows],
        "hours": hours,
        "gpu_hours": sum(row.gpu_hours for row in rows),
        "output_tokens": sum(row.output_tokens for row in rows),
        "disk_bytes": predict.disk_bytes(config, sum(row.calls for row in rows), like),
        "watts": power,
        "kwh": None if power is None else power * hours / 1000,
        "predicted_over_taken": predicted / taken if taken else None,
    }


def render(found: dict[str, Any]) -> str:
    """The table, the totals, and how far to trust them."""
    rows = [Row(**row) for row in found["stages"]]
    columns, cells = [*COLUMNS], [_cells(row) for row in rows]
    if not found["gpu_hours"]:
        place = columns.index("GPU hours")
        columns.pop(place)
        for row_cells in cells:
            row_cells.pop(place)
    table = Table(columns, cells)
    lines = [tables.aligned(table.columns, table.rows, tables.terminal_width())]
    energy = "unknown (--watts N)" if found["kwh"] is None else f"{found['kwh']:,.2f} kWh"
    lines.append(
        f"{_hours(found['hours'])} in all, {found['gpu_hours']:,.1f} GPU hours, "
        f"{found['output_tokens']:,.0f} tokens written, {found['disk_bytes'] / 1e9:,.1f} GB of "
        f"disk, energy {energy}\n"
    )
    if found["predicted_over_taken"] is not None:
        lines.append(
            "in brackets: what would have been predicted for what is done, "
            f"{found['predicted_over_taken']:.2f} of the time that it took\n"
        )
    if any(row.basis == "assumed" for row in rows):
        lines.append(
            "assumed figures are good to a factor of three or four; --from RUN scales a run of "
            "yours, and `localism generate --calibrate` measures a minute\n"
        )
    return lines[0] + "".join(tables.filled(line) + "\n" for line in lines[1:])


def _cells(row: Row) -> list[Any]:
    predicted = row.predicted_hours
    beside = f" ({_hours(predicted)})" if predicted is not None else ""
    return [
        row.stage,
        f"{row.units:,} {row.unit}",
        f"{row.calls:,.0f}",
        f"{row.prompt_tokens:,.0f}",
        f"{row.output_tokens:,.0f}",
        _hours(row.hours) + beside,
        f"{row.gpu_hours:,.1f}",
        row.basis,
    ]


def _hours(hours: float) -> str:
    """3.2 h; below one in minutes."""
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:,.1f} min"
