"""How the servers of a role are, in a line each: for `localism status`, and for events.

The process that works writes logs/heartbeat-ROLE.json in the run folder every few seconds while
requests are under way; others read it. A file, because the corpus is no place for what is true for
three seconds.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from localism.serving.endpoint import Endpoint
from localism.serving.endpoints import Endpoints
from localism.serving.engine import Engine
from localism.tables import number_of

WRITE_SECONDS = 3.0
# Below, it is alive without further words.
QUIET_SECONDS = 30.0


class Heartbeat:
    """Writes the file of one role."""

    def __init__(self, folder: Path, role: str, stage: str, endpoints: Endpoints) -> None:
        self._path = folder / "logs" / f"heartbeat-{role}.json"
        self._role, self._stage, self._endpoints = role, stage, endpoints
        self._written = -math.inf

    def beat(self, engine: Engine | None) -> None:
        """Write how things are, unless that was done just now."""
        moment = time.monotonic()
        if moment - self._written < WRITE_SECONDS:
            return
        self._written = moment
        if engine and engine.loading_since:
            line = f"loads the model, {moment - engine.loading_since:.0f} s"
            servers = [{"url": engine.url, "state": "loading", "line": line}]
        else:
            servers = [_facts(one, self._endpoints, moment) for one in self._endpoints.all]
        facts = {"role": self._role, "stage": self._stage, "is_external": engine is None}
        building = self._path.with_suffix(".partial")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        building.write_text(
            json.dumps({**facts, "servers": servers, "pid": os.getpid(), "at": time.time()})
        )
        building.replace(self._path)

    def end(self) -> None:
        """Nothing is under way any more."""
        self._path.unlink(missing_ok=True)
        self._written = -math.inf


def _facts(endpoint: Endpoint, endpoints: Endpoints, moment: float) -> dict[str, Any]:
    asked, pulse = endpoint.under_way.values(), endpoint.pulse
    silent = moment - max(endpoint.last_heard, min(asked)) if asked else 0.0
    still = pulse.still_seconds(moment) if endpoint.has_figures else 0.0
    allowed = pulse.allowed_seconds()
    rate = pulse.tokens_per_second() or endpoints.pace.tokens_per_second()
    oldest = moment - min(asked, default=moment)
    answered = moment - endpoint.last_success
    facts = {
        "url": endpoint.url, "tokens_per_second": round(rate, 1), "under_way": len(asked),
        "oldest_request_seconds": round(oldest), "silent_seconds": round(silent),
        "still_seconds": round(still),
    }  # fmt: skip
    said = f"last answer {answered:.0f} s ago" if math.isfinite(answered) else "no answer yet"
    if endpoint.rests_until:
        state, line = "away", "set aside until it answers again"
    elif not asked:
        state, line = "idle", f"nothing to do, {said}"
    elif allowed is not None and still > QUIET_SECONDS:
        left = max(0.0, allowed - still)
        line = (
            f"silent for {silent:.0f} s, counters stand still, {endpoints.remedy} in {left:.0f} s"
        )
        state = "still"
    elif silent > QUIET_SECONDS and pulse.advances(moment):
        state, line = "slow", endpoint.slowness(moment)
    elif silent > QUIET_SECONDS:
        waiting = number_of(len(asked), "request waits", "requests wait")
        state, line = "silent", f"silent for {silent:.0f} s, {said}, {waiting}"
    else:
        state, line = "alive", f"alive, {rate:,.0f} tok/s, {said}"
    return {**facts, "state": state, "line": line}


def read(folder: Path, pid: int) -> list[dict[str, Any]]:
    """The servers of every role that process `pid` last told of; role, stage and age beside."""
    found = []
    for path in sorted((folder / "logs").glob("heartbeat-*.json")):
        try:
            facts = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            continue  # it ended at this moment
        if facts["pid"] != pid:
            continue  # left by a process that was killed
        age = max(0.0, time.time() - facts["at"])
        names = {name: facts[name] for name in ("role", "stage", "is_external")}
        found += [{**names, "age_seconds": round(age), **one} for one in facts["servers"]]
    return found
