"""Slow or hung: whether an engine's own counters advance while it has requests.

Silence alone does not tell: one request of 8,000 tokens on a slow machine is silent for an hour
and well. vLLM publishes what it has read and written after every step, under /metrics.
"""

from collections import deque

from localism.serving.load import Beat, Figures

# Counters may stand still for so long, and for 20 times the longest stop that was seen and passed:
# what takes one engine a second, a step of a large model on a CPU, takes another a minute.
STILL_SECONDS = 60.0
STOPS_SEEN = 20.0
# Looks that lie further apart say nothing about what happened between them.
RARE_SECONDS = 30.0
SPEED_SECONDS = 15.0


class Pulse:
    """What one server's counters did, look by look. Moments are of time.monotonic()."""

    def __init__(self) -> None:
        self.looked = float("-inf")
        """When it was last looked at, also in vain."""
        self._beats: dict[str, Beat] = {}
        self._changed: dict[str, float] = {}
        self._longest = 0.0
        self._written: deque[tuple[float, float]] = deque()

    def note(self, figures: Figures | None, moment: float) -> None:
        """One look; None where a server that publishes figures did not answer."""
        is_rare, self.looked = moment - self.looked > RARE_SECONDS, moment
        if figures is None:
            return
        for name, beat in figures.beats.items():
            before = self._beats.get(name)
            if is_rare or not before or not before.is_busy:
                self._changed[name] = moment
            elif beat != before:
                self._longest = max(self._longest, moment - self._changed[name])
                self._changed[name] = moment
        self._beats = dict(figures.beats)
        written = sum(beat.written for beat in self._beats.values())
        if is_rare or (self._written and written < self._written[-1][1]):
            self._written.clear()
        self._written.append((moment, written))
        while moment - self._written[0][0] > SPEED_SECONDS:
            self._written.popleft()

    def still_seconds(self, moment: float) -> float:
        """How long the counters of an engine with requests have stood still; 0 for idle ones."""
        since = [self._changed[name] for name, beat in self._beats.items() if beat.is_busy]
        return moment - min(since) if since and moment - self.looked < RARE_SECONDS else 0.0

    def allowed_seconds(self) -> float | None:
        """How long they may; None until they were seen to advance, as while an engine warms up."""
        return STILL_SECONDS + STOPS_SEEN * self._longest if self._longest else None

    def is_hung(self, moment: float) -> bool:
        """It has requests, and its counters have stood still for longer than they may."""
        allowed = self.allowed_seconds()
        return allowed is not None and self.still_seconds(moment) > allowed

    def advances(self, moment: float) -> bool:
        """It has requests and is at work on them."""
        is_busy = any(beat.is_busy for beat in self._beats.values())
        is_seen = bool(self._longest) and moment - self.looked < RARE_SECONDS
        return is_busy and is_seen and not self.is_hung(moment)

    def tokens_per_second(self) -> float:
        """Of replies, lately, by the engine's own count: also those of unfinished requests."""
        if len(self._written) < 2:
            return 0.0
        (began, before), (ended, after) = self._written[0], self._written[-1]
        return (after - before) / (ended - began)
