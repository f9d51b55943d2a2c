"""What was done and what it cost: the funnel, the books, time and tokens by stage."""

from collections import Counter
from typing import Any

from localism.config import Config
from localism.store import Row, Store

# Time in which at least one call was under way: unlike the clock of a stage it leaves out loading
# and is not disturbed by a stop. Each call counts with what no call that began before it covers.
# (A count with FILTER over a growing window would be quadratic in DuckDB 2.0.)
BUSY = """
WITH mine AS (
    SELECT stage, epoch(finished_at) - seconds AS began, epoch(finished_at) AS ended
    FROM turn ANTI JOIN event e ON e.kind = 'forked' AND turn.finished_at <= e.happened_at
), covering AS (
    SELECT *, max(ended) OVER (
        PARTITION BY stage ORDER BY began, ended ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS covered FROM mine
)
SELECT stage, sum(ended - greatest(began, covered)) AS seconds
FROM covering WHERE covered IS NULL OR ended > covered GROUP BY stage
"""

# A training's last step knows all its tokens; its rate is that of the step.
_TRAINED = """
WITH step AS (
    SELECT coalesce(detail->>'training', 'main') AS training,
           (detail->>'tokens')::BIGINT AS tokens, (detail->>'tokens_per_second')::DOUBLE AS rate
    FROM event WHERE kind = 'train_step'
)
SELECT training, max(tokens) AS tokens, median(rate) AS rate FROM step
GROUP BY training ORDER BY training <> 'main', training
"""


def funnel(store: Store, config: Config) -> list[dict[str, Any]]:
    """Steps from the plan to the accepted examples: name, how many are left and lost, and why."""
    counted = store.query(
        "SELECT count(*) AS planned, count(*) FILTER (c.status = 'failed') AS failed, "
        "count(*) FILTER (c.status IS NULL OR c.status = 'written') AS pending "
        "FROM mix LEFT JOIN candidate c USING (mix_id)"
    )[0]
    left = counted["planned"]
    steps = [_step("planned", left, 0, f"mixes of {config.mix.k} and a query type")]
    lost_to = _lost_to_gates(store, config)
    failed = counted["failed"]
    lost = [("written", failed, "calls that failed" if failed else "no call failed")]
    lost += [(gate, lost_to[gate], f"gate {gate}") for gate in lost_to]
    lost += [("decided", counted["pending"], "not written or not judged yet")]
    for name, n, why in lost:
        left -= n
        if n or name == "written":
            steps.append(_step(name, left, n, why))
    return [*steps, _step("accepted", left, 0, "")]


def _step(name: str, left: int, lost: int, why: str) -> dict[str, Any]:
    return {"name": name, "left": left, "lost": lost, "why": why}


def _lost_to_gates(store: Store, config: Config) -> dict[str, int]:
    """Rejected examples by the first gate that each failed, in the order of the gates."""
    order = {str(gate): place for place, gate in enumerate(config.curate.gates)}
    first: dict[str, str] = {}
    for row in store.query(
        "SELECT mix_id, gate FROM verdict JOIN candidate USING (mix_id) "
        "WHERE NOT passed AND status = 'rejected'"
    ):
        gates = (row["gate"], first.get(row["mix_id"], row["gate"]))
        first[row["mix_id"]] = min(gates, key=lambda gate: order.get(gate, len(order)))
    counts = Counter(first.values())
    return {gate: counts[gate] for gate in sorted(counts, key=lambda gate: order.get(gate, 99))}


def costs(store: Store, stages: list[Row], tokens: list[Row]) -> list[dict[str, Any]]:
    """A row a stage that took time or calls: wall seconds, calls, tokens, and the rate of writing.

    The rate is completion tokens over the time in which at least one call was under way.
    """
    busy = {row["stage"]: row["seconds"] for row in store.query(BUSY)}
    by_stage = {row["stage"]: row for row in stages}
    names = [*by_stage, *(row["stage"] for row in tokens)]
    return [_cost(name, by_stage.get(name), tokens, busy) for name in dict.fromkeys(names)]


def _cost(
    name: str, stage: Row | None, tokens: list[Row], busy: dict[str, float]
) -> dict[str, Any]:
    calls = [row for row in tokens if row["stage"] == name]
    written = sum(row["completion_tokens"] for row in calls) if calls else None
    seconds = busy.get(name)
    return {
        "stage": name,
        "seconds": stage["seconds"] if stage and stage["summary"] else None,
        "predicted": stage["predicted"] if stage and stage["summary"] else None,
        "basis": stage["basis"] if stage else None,
        "interrupted": bool(stage and stage["tries"] > 1),
        "summary": (stage["summary"] or "").partition("\n")[0] if stage else "",
        "calls": sum(row["calls"] for row in calls) if calls else None,
        "prompt_tokens": sum(row["prompt_tokens"] for row in calls) if calls else None,
        "completion_tokens": written,
        "busy": seconds,
        "rate": written / seconds if written and seconds else None,
    }


def trained(store: Store) -> list[Row]:
    """Tokens of each training, and the median rate of its steps."""
    return store.query(_TRAINED)
