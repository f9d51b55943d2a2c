"""What has been done in a run, as facts and as a screen; works beside a running process."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localism import lock, offline, reader, recipe, tables
from localism.errors import ConfigError
from localism.records import STAGES
from localism.serving import heartbeat
from localism.training.sets import Training

_CARRIED = """
SELECT detail->>'parent' AS parent, (detail->>'turns')::BIGINT AS calls
FROM event WHERE kind = 'forked'
"""
_ENDPOINTS = """
WITH stage AS (SELECT max(happened_at) AS began FROM event WHERE kind = 'stage_started'),
used AS (
    SELECT DISTINCT detail->>'role' AS role, unnest(from_json(detail->'urls', '["VARCHAR"]')) AS url
    FROM event, stage WHERE kind = 'endpoints_used' AND happened_at >= began
), said AS (
    SELECT detail->>'role' AS role, detail->>'url' AS url, kind, happened_at AS since,
           detail->>'problem' AS problem
    FROM event, stage WHERE kind IN ('endpoint_away', 'endpoint_back') AND happened_at >= began
    QUALIFY row_number() OVER (PARTITION BY role, url ORDER BY happened_at DESC) = 1
)
SELECT role, url, coalesce(kind <> 'endpoint_away', true) AS works, since, problem
FROM used LEFT JOIN said USING (role, url) ORDER BY role, url
"""
# An older heartbeat is told with its age: the run's own process stands still, or its disk does.
OLD_SECONDS = 15
STATES = {"stage_started": "under way", "stage_finished": "done", "stage_reopened": "to do"}


def facts(folder: Path, stages: Sequence[str]) -> dict[str, Any]:
    """Stages with state and summary, books, tokens and refused connections of a run.

    tokens are of its own calls; carried_over says of a fork what it has from which parent, waiting
    what is to be done by hand for trainings beside the run's own, allowed_hosts which machines it
    may speak to beside its own (null where its recipe can't be read); while a run works, endpoints
    which of the servers that it asks answer, engines how each of them is at this moment.
    """
    if not (folder / reader.CORPUS).exists():
        return {
            "run": str(folder),
            "stages": [{"stage": s, "state": "to do"} for s in stages],
            "books": [],
            "tokens": [],
            "carried_over": [],
            "waiting": [],
            "endpoints": [],
            "engines": [],
            "refused_connections": len(offline.refused_connections(folder)),
            "allowed_hosts": _allowed_hosts(folder),
        }
    events = reader.read(
        folder,
        "SELECT stage, kind, detail->>'summary' AS summary FROM event "
        "WHERE kind IN ('stage_started', 'stage_finished', 'stage_reopened') ORDER BY happened_at",
    ).as_dicts()
    state = {stage: {"stage": stage, "state": "to do", "summary": ""} for stage in stages}
    for event in events:
        state[event["stage"]] |= {
            "state": STATES[event["kind"]],
            "summary": event["summary"] or "",
        }
    rests = not lock.is_held(folder)
    if rests:
        for row in state.values():
            row["state"] = "interrupted" if row["state"] == "under way" else row["state"]
    books = reader.read(folder, "SELECT * FROM books").as_dicts()
    return {
        "run": str(folder),
        "stages": list(state.values()),
        "books": books,
        "waiting": _waiting(folder, books) if rests else [],
        "endpoints": [] if rests else reader.read(folder, _ENDPOINTS).as_dicts(),
        "tokens": reader.read(folder, "SELECT * FROM tokens").as_dicts(),
        "carried_over": reader.read(folder, _CARRIED).as_dicts(),
        "engines": [] if rests else _engines(folder),
        "refused_connections": len(offline.refused_connections(folder)),
        "allowed_hosts": _allowed_hosts(folder),
    }


def _allowed_hosts(folder: Path) -> list[str] | None:
    try:
        return list(recipe.named_hosts(recipe.frozen_recipe(folder)))
    except (ConfigError, OSError):
        return None  # of a run that another version began, for instance: the rest can be said


def _waiting(folder: Path, books: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Trainings beside the run's own with a stage to do: nothing starts that by itself."""
    options = {
        row["name"]: Training(**row).option()
        for row in reader.read(folder, "SELECT name, set_name, seed FROM training").as_dicts()
    }
    found: dict[str, dict[str, Any]] = {}
    for row in books:
        stage, _, training = row["stage"].partition(" ")
        stage = stage.partition("/")[0]
        if training in options and stage in ("pick", "evaluate") and row["pending"]:
            command = f"localism {stage} --run {folder.name}{options[training]}"
            found.setdefault(training, {"training": training, "stage": stage, "command": command})
    return list(found.values())


# ---- the screen ------------------------------------------------------------------------------

# What a screen that is too low does without, one after the other: more than a line for a stage,
# tokens, what was carried over and allowed, books that are settled, servers that work and a line
# for each stage that is done or to do, books of other stages than the one under way, books at all.
STEPS = 7
UNKNOWN_WIDTH = 80


def render(facts: dict[str, Any], width: int | None = None, height: int | None = None) -> str:
    """The facts as one screen of so many columns, the terminal's by default.

    With a height it has no more rows than that: what is worked on now and what is wrong stay.
    """
    width = width or tables.terminal_width(UNKNOWN_WIDTH)
    lines = _lines(facts, width, 0)
    for step in range(1, STEPS + 1):
        if height is None or _rows(lines, width) <= height:
            return "\n".join(lines)
        lines = _lines(facts, width, step)
    return "\n".join(_cut(lines, width, height or 0))


def _cut(lines: list[str], width: int, height: int) -> list[str]:
    """As many of the first lines as there is room for; the last says how many are missing."""
    if _rows(lines, width) <= height:
        return lines
    kept = list(lines)
    while kept and _rows(kept, width) >= height:
        kept.pop()
    return [*kept, f"… and {len(lines) - len(kept)} more lines"]


def _rows(lines: Sequence[str], width: int) -> int:
    """What they take of a terminal, which breaks those that are too long for it."""
    return sum(max(1, -(-tables.width_of(line) // width)) for line in lines)


def _lines(facts: dict[str, Any], width: int, step: int) -> list[str]:
    """What is left of the screen after so many steps."""
    blocks = [
        [f"run {facts['run']}", *_stages(facts["stages"], width, step), *_servers(facts, width)]
    ]
    books = facts["books"]
    if step >= 4:
        books = [row for row in books if row["pending"] or row["failed"]]
    if step >= 6:
        now = [row["stage"] for row in facts["stages"] if row["state"] == "under way"]
        books = [row for row in books if re.split("[ /]", row["stage"])[0] in now]
    blocks += [_table("books", books, width)] if step < STEPS else []
    blocks += [_table("tokens", facts["tokens"], width)] if step < 2 else []
    blocks += [_endpoints(facts, width, step)]
    blocks += [_waiting_lines(row, width) for row in facts["waiting"]]
    if step < 3:
        blocks += [_carried(row, width) for row in facts["carried_over"]]
    refused = tables.number_of(facts["refused_connections"], "connection")
    blocks += [[f"{refused} refused by the air gap"]]
    if step < 3:
        hosts = facts["allowed_hosts"]
        allowed = ", ".join(hosts or ["nothing" if hosts == [] else "(recipe.json can't be read)"])
        blocks[-1] += tables.hanging("allowed beside this machine: ", allowed, width)
    first, *others = [block for block in blocks if block]
    return [*first, *(line for block in others for line in (*[""][: step < 4], *block))]


def _stages(stages: Sequence[dict[str, Any]], width: int, step: int) -> list[str]:
    lines: list[str] = []
    folded: dict[str, list[str]] = {"done": [], "to do": []}
    for index, row in enumerate(stages, 1):
        if step >= 5 and row["state"] in folded:
            folded[row["state"]].append(row["stage"])
            continue
        summary = (row.get("summary") or "").splitlines()
        label = f"[{index}/{len(stages)}] {row['stage']:<10} {row['state']:<10} "
        lines += tables.hanging(label, summary[0] if summary else "", width, 1 if step else 9)
    done, to_do = (
        tables.hanging(f"{state}: ", ", ".join(names), width) if names else []
        for state, names in folded.items()
    )
    return [*done, *lines, *to_do]


def _servers(facts: dict[str, Any], width: int) -> list[str]:
    """The run's own: 'engine teacher: alive, 812 tok/s, last answer 2 s ago', for instance."""
    own = [row for row in facts["engines"] if not row["is_external"]]
    return [
        line for row in own for line in tables.hanging(f"engine {row['role']}: ", _told(row), width)
    ]


def _table(title: str, rows: Sequence[dict[str, Any]], width: int) -> list[str]:
    if not rows:
        return []
    cells = [list(row.values()) for row in rows]
    table = tables.aligned(list(rows[0]), cells, width, 2, whole="--json")
    return [title, *table.splitlines()]


def _endpoints(facts: dict[str, Any], width: int, step: int) -> list[str]:
    told = {(row["role"], row["url"]): _told(row) for row in facts["engines"]}
    lines = []
    for row in facts["endpoints"]:
        state = told.get((row["role"], row["url"]), "works")
        if not row["works"]:
            state = f"away since {row['since'][11:19]}: {row['problem']}"
        if step < 5 or not row["works"]:
            lines += tables.hanging(f"  {row['role']:<8} {row['url']}  ", state, width)
    return ["endpoints", *lines] if lines else []


def _waiting_lines(row: dict[str, Any], width: int) -> list[str]:
    """A command stays on one line, so that it can be pasted."""
    text = f"{row['training']} waits for stage {row['stage']}:"
    whole = f"{text} {row['command']}"
    return [whole] if tables.width_of(whole) <= width else [text, f"  {row['command']}"]


def _carried(row: dict[str, Any], width: int) -> list[str]:
    calls = tables.number_of(row["calls"], "model call")
    text = f"carried over from run {row['parent']}; those that are used here are not paid again"
    return tables.hanging("", f"{calls} {text}", width)


def _engines(folder: Path) -> list[dict[str, Any]]:
    """How the servers are that the run's process asks; none of those that a killed one asked."""
    by = lock.holder(folder)
    return heartbeat.read(folder, by.pid) if by else []


def _told(row: dict[str, Any]) -> str:
    age = row["age_seconds"]
    old = f"  (said {age} s ago: the run's own process stands still)" if age > OLD_SECONDS else ""
    return f"{row['line']}{old}"


UNITS = {"generate": "mixes", "curate": "candidates"}


def left(folder: Path, stages: Sequence[str], detail: str = "") -> str:
    """What is done and what is left of these stages when the time is up, in a line.

    detail: how far the stage came, where the books do not say it.
    """
    found = facts(folder, STAGES)
    states = {row["stage"]: row["state"] for row in found["stages"]}
    done = [stage for stage in stages if states[stage] == "done"]
    waiting = [stage for stage in stages if stage not in done]
    parts = [f"{', '.join(done)} done"] if done else []
    if not waiting:  # the run's own training is done, another one is not
        parts = [f"{stages[-1]} {detail or 'not done for every training'}"]
    else:
        now, *later = waiting
        parts.append(f"{now} {detail or _how_far(found['books'], now)}")
        parts += [f"then {', '.join(later)}"] if later else []
    return f"the time is up: {'; '.join(parts)}. The same command continues."


def _how_far(books: Sequence[dict[str, Any]], stage: str) -> str:
    """For instance '3,214 of 4,100 mixes, 886 left'; the books balance, whenever a run stops."""
    texts = []
    for row in books:
        name, _, what = row["stage"].partition("/")
        finished = row["accepted"] + row["rejected"] + row["failed"]
        assert row["planned"] == finished + row["pending"], row
        if name == stage and row["pending"]:
            unit = UNITS.get(name, what)
            texts.append(
                f"{finished:,} of {row['planned']:,} {unit}, {row['pending']:,} left".strip()
            )
    return " and ".join(texts) or "not done"
