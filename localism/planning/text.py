"""A plan as a table for people, or as facts for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from localism import tables
from localism.config import Config
from localism.planning.disk import needed
from localism.planning.hardware import Machine, engines
from localism.planning.predict import Row
from localism.planning.seen import Seen
from localism.power import Power
from localism.reader import Table
from localism.tables import gigabytes

COLUMNS = (
    "stage", "units", "in ledger", "calls", "in", "out", "time", "GPU hours", "basis", "kWh",
)  # fmt: skip


def facts(
    config: Config,
    machine: Machine,
    rows: Sequence[Row],
    like: Seen | None,
    power: Power,
    budget: float | None,
) -> dict[str, Any]:
    """Rows, how engines lie on GPUs, totals, disk and energy; how far a budget of hours goes."""
    stages = [asdict(row) | {"kwh": _kwh(row.hours, power)} for row in rows]
    done = [row for row in rows if row.predicted_hours and row.hours]
    taken, predicted = sum(r.hours or 0 for r in done), sum(r.predicted_hours or 0 for r in done)
    hours = sum(row.hours or 0 for row in rows)
    calls = sum(row.calls + row.in_ledger for row in rows)
    disk = needed(config, machine.gpus, calls, like)
    return {
        "stages": stages,
        "engines": engines(config, machine),
        "hours": hours,
        "unknown": [row.stage for row in rows if row.hours is None],
        "gpu_hours": sum(row.gpu_hours or 0 for row in rows),
        "output_tokens": sum(row.output_tokens for row in rows),
        "disk_bytes": disk.most,
        "disk": disk._asdict() | {"stays": disk.stays},
        "watts": power.watts,
        "watts_source": power.source,
        "kwh": _kwh(hours, power),
        "predicted_over_taken": predicted / taken if taken else None,
        "budget": None if budget is None else _within(rows, budget),
    }


def _kwh(hours: float | None, power: Power) -> float | None:
    return None if hours is None or power.watts is None else power.watts * hours / 1000


def _within(rows: Sequence[Row], budget: float) -> dict[str, Any]:
    """How far so many hours go from here: the stage, the share of it, and what is left then."""
    ahead = [row for row in rows if row.predicted_basis is None]
    found: dict[str, Any] = {"hours": budget, "stage": None, "share": 1.0}
    left = budget
    for row in ahead:
        hours = row.hours or 0.0
        if found["stage"] is None and hours > left:
            found |= {"stage": row.stage, "share": left / hours}
        left -= hours
    return found | {"hours_left": max(0.0, -left)}


def render(found: dict[str, Any]) -> str:
    """The table, the totals, and how far to trust them."""
    columns, cells = [*COLUMNS], [_cells(row) for row in found["stages"]]
    in_ledger = sum(row["in_ledger"] for row in found["stages"])
    for name, amount in (("GPU hours", found["gpu_hours"]), ("in ledger", in_ledger)):
        if not amount:
            place = columns.index(name)
            for line in (columns, *cells):
                line.pop(place)
    table = Table(columns, cells)
    placed = [f"{role}: {said}" for role, said in found["engines"].items()]
    lines = [*placed, *_totals(found), *_trust(found)]
    return tables.aligned(
        table.columns, table.rows, tables.terminal_width(), whole="--json"
    ) + "".join(tables.filled(line) + "\n" for line in lines)


def _totals(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{_hours(found['hours'])} in all, {found['gpu_hours']:,.1f} GPU hours, "
        f"{found['output_tokens']:,.0f} tokens written, {gigabytes(found['disk_bytes'])} "
        f"of disk{_left(found)}, {_energy(found['kwh'])} kWh at {found['watts']:,.0f} W "
        f"({found['watts_source']})"
    ]
    lines += _of_the_ledger(found["stages"])
    if found["unknown"]:
        lines.append(
            f"not counted, for a model behind endpoints may be of any size: "
            f"{', '.join(found['unknown'])}; --calibrate or --from RUN helps"
        )
    if budget := found["budget"]:
        is_left = any(row["predicted_basis"] is None for row in found["stages"])
        reached = "the end" if is_left else "no further: nothing is left to do"
        if budget["stage"]:
            reached = f"{budget['share']:.0%} of stage {budget['stage']}; "
            reached += f"{_hours(budget['hours_left'])} are left then"
        lines.append(f"{_hours(budget['hours'])} from here reach {reached}")
    return lines


def _of_the_ledger(stages: Sequence[dict[str, Any]]) -> list[str]:
    """What need not be paid, and what may not have to be."""
    lines = []
    if number := sum(row["in_ledger"] for row in stages):
        lines.append(
            f"{number:,} calls are in the ledger already, where their replies are looked up"
        )
    for why in dict.fromkeys(row["unless"] for row in stages if row["unless"]):
        those = [row for row in stages if row["unless"] == why]
        named = ", ".join(f"{row['perhaps_in_ledger']:,} of {row['stage']}" for row in those)
        lines.append(f"in the ledger and not counted on: {named}; for {why}")
    return lines


def _left(found: dict[str, Any]) -> str:
    """How much of the disk stays, where [train].keep leaves less than there was."""
    disk = found["disk"]
    return "" if disk["kept"] == disk["checkpoints"] else f" ({gigabytes(disk['stays'])} stay)"


def _trust(found: dict[str, Any]) -> list[str]:
    lines, bases = [], {row["basis"] for row in found["stages"]}
    if found["predicted_over_taken"] is not None:
        on = {row["predicted_basis"] for row in found["stages"]} - {None}
        lines.append(
            f"in brackets: what was predicted for what is done ({'; '.join(sorted(on))}), "
            f"{found['predicted_over_taken']:.2f} of the time that it took"
        )
    if "calibrated" in bases:
        lines.append(
            "of calibrated figures the 95% interval is that of the lengths; the rate is taken as "
            "the trial had it"
        )
    if "assumed" in bases:
        lines.append(
            "assumed figures are good to a factor of three or four; --from RUN scales a run of "
            "yours, and --calibrate measures a minute"
        )
    return lines


def _cells(row: dict[str, Any]) -> list[Any]:
    beside = ""
    if row["predicted_basis"] is not None:
        beside = f" ({_hours(row['predicted_hours'])})"
    elif row["low_hours"] is not None:
        beside = f" ({_hours(row['low_hours'])} to {_hours(row['high_hours'])})"
    return [
        row["stage"],
        f"{row['units']:,} {row['unit']}",
        f"{row['in_ledger']:,}",
        f"{row['calls']:,.0f}",
        f"{row['prompt_tokens']:,.0f}",
        f"{row['output_tokens']:,.0f}",
        _hours(row["hours"]) + beside,
        "?" if row["gpu_hours"] is None else f"{row['gpu_hours']:,.1f}",
        row["basis"],
        _energy(row["kwh"]),
    ]


def _energy(kwh: float | None) -> str:
    """1,230; 4.2; 0.00021; ? where it is not known."""
    if kwh is None:
        return "?"
    return f"{kwh:,.0f}" if kwh >= 10 else f"{kwh:.2g}"


def _hours(hours: float | None) -> str:
    """3.2 h; below one in minutes; ? where it is not known."""
    if hours is None:
        return "?"
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:,.1f} min"
