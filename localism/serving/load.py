"""How busy a vLLM server is, by its own figures, and how many requests to keep going for that.

vLLM publishes its figures in Prometheus' text form under /metrics, beside /v1.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# More conversations than the engine decodes at once: while one replies and asks its next turn,
# another waits in the engine's queue and takes the free place.
QUEUED = 1.25
LOOK_SECONDS = 1.0
# A step up: from 80 to what fills 256 places in six looks.
STEP = 1.25
# After sequences were thrown out of the KV cache, the way back up is slow.
CAREFUL_STEP = 1.02
# Share of the requests that are with the engine; below it, this side is what takes the time.
BUSY = 0.7
# Sequences grow while they are written, so a cache that is nearly full has no room for more.
FULL_CACHE = 0.9
# A queue is long when it is half of what runs, and stays so; a queue of 0.25 is meant.
LONG_QUEUE = 0.5
LONG_LOOKS = 10
# Still rising, as while long prompts are read in, says nothing about how much the engine holds.
STEADY = 1.05
# Preemptions a look and running sequence: at this rate each one is computed again every 100 s.
TOLERATED_PREEMPTIONS = 0.01
EASED = 0.9

_FIGURE = re.compile(r"^vllm:(\w+)(\{.*\})? ([0-9.]+(?:e[+-]?[0-9]+)?)$", re.MULTILINE)
_ENGINE = re.compile(r'[{,]engine="([^"]*)"')


class Beat(NamedTuple):
    """What one engine has done by now; the same twice while it does nothing."""

    is_busy: bool
    """It has requests, running or waiting."""
    written: float
    """Tokens of replies since it started."""
    others: tuple[float, ...]
    """Requests running and waiting, prompt tokens read, cache in use, preemptions."""


class Figures(NamedTuple):
    """What one server says; one that holds several engines sums them up."""

    running: int
    """Requests in the batches."""
    waiting: int
    """Requests in its queue."""
    cache: float
    """Share of the KV cache in use, of the fullest engine."""
    preempted: int
    """Sequences thrown out of the KV cache, to be computed again; since the server started."""
    beats: dict[str, Beat] = {}
    """Of each engine of the server, by its number."""


class Load(NamedTuple):
    """How busy the servers of a role are, together."""

    running: int
    """Requests in the batches of all."""
    waiting: int
    """In their queues, as if each had no more than the shortest."""
    cache: float
    """Share of the KV cache in use, of the fullest."""
    preempted: int
    """Sequences thrown out since the last look."""


def read_figures(text: str) -> Figures | None:
    """The figures in a page of /metrics; None when it is not vLLM's."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for name, labels, value in _FIGURE.findall(text):
        engine = _ENGINE.search(labels)
        found[name][engine[1] if engine else ""] += float(value)
    running, waiting = found["num_requests_running"], found["num_requests_waiting"]
    if not running or not waiting:
        return None
    return Figures(
        int(sum(running.values())),
        int(sum(waiting.values())),
        max(found["kv_cache_usage_perc"].values(), default=0.0),
        int(sum(found["num_preemptions_total"].values())),
        {engine: _beat(engine, found) for engine in running},
    )


def _beat(engine: str, found: Mapping[str, Mapping[str, float]]) -> Beat:
    running, waiting, written, *others = (
        found[name].get(engine, 0.0)
        for name in (
            "num_requests_running",
            "num_requests_waiting",
            "generation_tokens_total",
            "prompt_tokens_total",
            "kv_cache_usage_perc",
            "num_preemptions_total",
        )
    )
    return Beat(running + waiting > 0, written, (running, waiting, *others))


def together(looks: Sequence[tuple[Figures, Figures | None]]) -> Load:
    """The load of several servers, each with what it said now and at the last look."""
    now = [figures for figures, _ in looks]
    return Load(
        sum(figures.running for figures in now),
        # Requests go where the fewest are: one full server must not keep the others from work.
        len(now) * min(figures.waiting for figures in now),
        max(figures.cache for figures in now),
        # Counted anew by a server that was started again, hence never below zero.
        sum(max(0, new.preempted - old.preempted) for new, old in looks if old),
    )


class Limit:
    """How many requests to keep going at once.

    Up while nothing waits and they are all with the engine; down to a quarter more than it runs
    when a long queue stays, and to less than it runs while it throws sequences out of its cache.
    """

    def __init__(self, first: int, most: int, *, is_fixed: bool = False) -> None:
        self.now = first
        """The number at present."""
        self.is_fixed = is_fixed
        """It does not follow anything."""
        self._most = max(first, most)
        self._was_pressed = False
        self._long: list[Load] = []

    def follow(self, load: Load, active: int) -> int:
        """One look, about once a second: the new number. `active`: requests going now."""
        # More than the limit are going while it was lowered and none has ended yet.
        if self.is_fixed or active > self.now:
            return self.now
        is_long = load.waiting > LONG_QUEUE * load.running
        self._long = [*self._long, load][-LONG_LOOKS:] if is_long else []
        if load.preempted > TOLERATED_PREEMPTIONS * load.running:
            self._was_pressed = True
            self.now = max(1, int(EASED * load.running))
        elif self._is_overlong():
            self.now = self._without_the_queue(load, active)
        elif self._has_room(load, active):
            self.now = min(self._most, max(self.now + 1, int(self.now * self._step())))
        return self.now

    def _step(self) -> float:
        return CAREFUL_STEP if self._was_pressed else STEP

    def _has_room(self, load: Load, active: int) -> bool:
        is_binding = active == self.now and load.running >= BUSY * active
        return is_binding and not load.waiting and load.cache * self._step() < FULL_CACHE

    def _is_overlong(self) -> bool:
        """The queue was long at every look, and the engine took no more in meanwhile."""
        if len(self._long) < LONG_LOOKS:
            return False
        return self._long[-1].running <= STEADY * self._long[0].running

    def _without_the_queue(self, load: Load, active: int) -> int:
        """A quarter more than has run; requests that are neither there nor waiting stay extra."""
        held = max(look.running for look in self._long)
        self._long = []
        between = max(0, active - load.running - load.waiting)
        return min(self.now, math.ceil(QUEUED * held) + between)
