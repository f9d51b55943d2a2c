"""What a run is expected to take, noted before it begins, and compared when it is done.

Event `planned` has every stage that is still to be done, with seconds and basis; `plan_checked`
has what they were predicted to take and took. The report shows both (stage_time.STAGES).
"""

import os
from dataclasses import replace
from typing import Any

from localism import stage_time
from localism.context import Context
from localism.errors import LocalismError
from localism.gpus import find_gpus
from localism.offline import child_environment
from localism.planning import predict, seen
from localism.planning.hardware import Machine
from localism.progress import duration
from localism.store import Row


def this_machine(environment: dict[str, str]) -> Machine:
    """Cores, and the GPUs that a child with this environment would see."""
    return Machine(find_gpus(environment), len(os.sched_getaffinity(0)))


def note(context: Context) -> None:
    """Keep the plan of what is left to do; one that cannot be made is none of a run's faults."""
    # What a stage has done already will be in the time that it took.
    own = replace(seen.gather(context.folder, context.config, context.store.query), begun={})
    try:
        machine = this_machine(child_environment(context.folder))
        rows = list(predict.rows(context.config, machine, own, None))
    except LocalismError:  # a model that fits nowhere, which its own stage will say
        return
    ahead = [row for row in rows if row.basis != "done"]
    if ahead:
        context.store.event("planned", stages=[_noted(row) for row in ahead])


def _noted(row: predict.Row) -> dict[str, Any]:
    return {
        "stage": row.stage,
        "seconds": None if row.hours is None else 3600 * row.hours,
        "basis": row.basis,
        "calls": row.calls,
        "output_tokens": row.output_tokens,
    }


def check(context: Context) -> str:
    """Compare at the end; for instance 'predicted 8m, 1.06 of the time that it took (...)'.

    Empty where nothing was predicted.
    """
    rows = compared(context.store.query(stage_time.STAGES))
    if not rows:
        return ""
    context.store.event("plan_checked", stages=rows)
    predicted, took = (sum(row[key] for row in rows) for key in ("predicted", "seconds"))
    each = ", ".join(f"{row['stage']} {row['predicted'] / row['seconds']:.2g}" for row in rows)
    bases = "; ".join(dict.fromkeys(row["basis"] for row in rows))
    return (
        f"predicted {duration(predicted)} for what took {duration(took)}, {predicted / took:.2f} "
        f"of it ({each}; {bases})"
    )


def compared(stages: list[Row]) -> list[dict[str, Any]]:
    """Those that are done and were predicted."""
    keys = ("stage", "predicted", "seconds", "basis")
    return [
        {key: row[key] for key in keys}
        for row in stages
        if row["predicted"] is not None and row["seconds"]
    ]
