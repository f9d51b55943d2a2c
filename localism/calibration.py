"""From a short trial of a plan to what the whole plan will take: tokens, hours, energy.

A trial sees short conversations finish first, so a mean over the finished ones is too low. Here
every conversation that was begun counts: the turns that one did not come to are filled in from
those that did, by the length that it had so far (regression imputation; whether a turn was reached
in time depends on that length and on nothing that is not known). The rate is that of the steady
part, every reply's tokens being spread over the time in which it was written.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from localism.records import Reply

RAMP_SHARE = 0.25
RESAMPLES = 200
# The fit of a turn's length over the turns before is drawn to the mean as by so many more rows.
RIDGE_ROWS = 2.0

Numbers = NDArray[np.float64]
Amount = Literal["prompt_tokens", "completion_tokens", "seconds"]


class Stopped(Exception):
    """The trial is over: this conversation goes on in a later call."""


class Heard(NamedTuple):
    """A reply of a trial."""

    turn: str
    """Name of the turn in the prompt pack."""
    prompt_tokens: int
    """Of the whole conversation that was sent."""
    completion_tokens: int
    """Of the reply."""
    began: float
    """Moment of time.monotonic() at which it was asked."""
    ended: float
    """And at which it was there."""
    is_new: bool
    """The model was asked; otherwise the ledger had it."""

    @property
    def seconds(self) -> float:
        """From asking to the answer."""
        return self.ended - self.began


@dataclass
class Talk:
    """A conversation of a trial."""

    heard: list[Heard] = field(default_factory=list)
    """Its replies."""
    next_turn: str | None = None
    """The turn that it was stopped before; None when it came to its end."""


class Trial:
    """Watches the conversations of a trial, and stops each one between two turns at its end."""

    def __init__(self, until: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.began, self.until = clock(), until
        """Moments of the clock."""
        self.talks: dict[str, Talk] = {}
        """By mix_id."""
        self._clock = clock

    def before(self, mix_id: str, turn: str) -> float:
        """Before a turn: the moment. Raises Stopped when the trial is over."""
        moment = self._clock()
        talk = self.talks.setdefault(mix_id, Talk())
        if moment >= self.until:
            talk.next_turn = turn
            raise Stopped
        return moment

    def note(self, mix_id: str, turn: str, reply: Reply, began: float) -> None:
        """After a turn: what it took."""
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        heard = Heard(turn, *tokens, began, self._clock(), is_new=not reply.from_ledger)
        self.talks[mix_id].heard.append(heard)


class Steady(NamedTuple):
    """The part of a trial that its rate is taken from."""

    began: float
    """After the ramp-up: the first quarter, or longer where the first reply took longer."""
    ended: float
    """When no further turn was begun."""
    tokens_per_second: float
    """Completion tokens written in it."""


def steady_part(trial: Trial) -> Steady | None:
    """None when no reply came in the trial."""
    new = [heard for talk in trial.talks.values() for heard in talk.heard if heard.is_new]
    if not new:
        return None
    first, last = min(h.ended for h in new), max(h.ended for h in new)
    ended = min(trial.until, last)
    began = max(trial.began + RAMP_SHARE * (ended - trial.began), first)
    if began >= ended:  # the first replies came when it was over
        began, ended = trial.began, last
    tokens = sum(_share(heard, began, ended) * heard.completion_tokens for heard in new)
    return Steady(began, ended, tokens / (ended - began))


def _share(heard: Heard, began: float, ended: float) -> float:
    """The part of a reply that was written between two moments, if all of it took equally long."""
    overlap = min(heard.ended, ended) - max(heard.began, began)
    return max(0.0, overlap) / max(heard.seconds, 1e-9)


class Range(NamedTuple):
    """An amount with its 95% interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float, more: float = 0.0) -> "Range":
        """The same in another unit, and a fixed amount added."""
        return Range(*(bound * factor + more for bound in self))


class Forecast(NamedTuple):
    """What is left of a plan after a trial, in one amount."""

    each: float
    """Expected of a whole conversation."""
    left: Range
    """Of all that is left: conversations not begun, and turns of those that were stopped."""


class Lengths:
    """How long conversations of this plan are, from those of a trial."""

    def __init__(self, talks: Sequence[Talk], turns: Sequence[str]) -> None:
        self._talks, self._turns = talks, turns
        known = np.array([[_is_known(talk, turn, turns) for turn in turns] for talk in talks])
        self._known = known.reshape(len(talks), len(turns))
        due = [[talk.next_turn == turn for turn in turns] for talk in talks]
        self._due = np.array(due, bool).reshape(len(talks), len(turns))
        written = self._amounts("completion_tokens")
        self.unseen = [
            turn
            for column, turn in enumerate(turns)
            if not written[:, column].any()
            and (self._due[:, column].any() or not self._known[:, column].any())
        ]
        """Turns that no conversation has finished, and some will come to: counted like the mean of
        the others."""

    def calls(self) -> float:
        """Expected of a whole conversation: each turn by how often it was taken where it is known.

        One that nobody came to counts whole.
        """
        written = self._written() > 0
        known, taken = self._known | self._due, written | self._due
        shares = [taken[known[:, turn], turn].mean() if known[:, turn].any() else 1.0
                  for turn in range(len(self._turns))]  # fmt: skip
        return float(sum(shares))

    def turn_means(self, amount: Amount) -> dict[str, float]:
        """Expected of each turn in a conversation, those that skip it included."""
        filled = self._filled(self._amounts(amount), self._written(), None)
        return dict(zip(self._turns, filled.mean(axis=0).tolist(), strict=True))

    def forecast(self, amount: Amount, not_begun: int, seed: int) -> Forecast:
        """For so many further conversations and the rest of those that were stopped."""
        amounts, written = self._amounts(amount), self._written()
        filled = self._filled(amounts, written, None)
        have = (amounts * self._known).sum()
        each = float(filled.sum(axis=1).mean())
        value = not_begun * each + float(filled.sum()) - float(have)
        rng = np.random.default_rng(seed)
        draws = [self._draw(amounts, written, not_begun, rng) for _ in range(RESAMPLES)]
        low, high = np.quantile(draws, [0.025, 0.975])
        return Forecast(each, Range(value, min(value, float(low)), max(value, float(high))))

    def _draw(
        self, amounts: Numbers, written: Numbers, not_begun: int, rng: np.random.Generator
    ) -> float:
        """One possible future: lengths learned from a resample, and lengths yet to be drawn."""
        rows = rng.integers(len(amounts), size=len(amounts))
        totals = self._filled(amounts, written, rng, rows).sum(axis=1)
        spread = float(totals.std()) * np.sqrt(not_begun) * rng.standard_normal()
        rest = self._filled(amounts, written, rng).sum() - (amounts * self._known).sum()
        return float(not_begun * totals.mean() + spread + rest)

    def _written(self) -> Numbers:
        return self._amounts("completion_tokens")

    def _amounts(self, amount: Amount) -> Numbers:
        """(conversations, turns): what was heard; 0 for turns that were skipped or not reached."""
        table = np.zeros((len(self._talks), len(self._turns)))
        for row, talk in enumerate(self._talks):
            for heard in talk.heard:
                table[row, self._turns.index(heard.turn)] = getattr(heard, amount)
        return table

    def _filled(
        self,
        amounts: Numbers,
        written: Numbers,
        rng: np.random.Generator | None,
        rows: NDArray[np.int64] | None = None,
    ) -> Numbers:
        """The table with what was not reached filled in: expected, or with rng drawn at random.

        Turn by turn, by the completion tokens of the turns before, which are filled in alike.
        """
        rows = np.arange(len(amounts)) if rows is None else rows
        known, due = self._known[rows], self._due[rows]
        values, tokens = amounts[rows].copy(), written[rows].copy()
        for column in range(len(self._turns)):
            so_far = tokens[:, :column].copy()
            for table in (values, tokens):
                _fill(table, column, so_far, known, due, rng)
        return values


def _is_known(talk: Talk, turn: str, turns: Sequence[str]) -> bool:
    """Whether it is decided what this turn took: heard, or skipped for good."""
    return talk.next_turn is None or turns.index(turn) < turns.index(talk.next_turn)


def _fill(
    table: Numbers,
    column: int,
    so_far: Numbers,
    known: NDArray[np.bool_],
    due: NDArray[np.bool_],
    rng: np.random.Generator | None,
) -> None:
    """Fill the unknown entries of a turn's column, in place; due ones are sure to be taken.

    Where nothing is known to go by, as much as the mean of the turns that were seen.
    """
    values, decided, sure = table[:, column], known[:, column], due[:, column]
    for rows, basis in ((sure, decided & (values > 0)), (~decided & ~sure, decided)):
        if not rows.any():
            continue
        if not basis.any():
            seen = table[known & (table > 0)]
            values[rows] = seen.mean() if seen.size else 0.0
            continue
        fitted = _fit(so_far[basis], values[basis])
        expected = fitted(so_far[rows])
        if rng is not None:
            residuals = values[basis] - fitted(so_far[basis])
            expected = expected + rng.choice(residuals, size=len(expected))
        values[rows] = np.maximum(expected, 0.0)


def _fit(x: Numbers, y: Numbers) -> Callable[[Numbers], Numbers]:
    """y by the columns of x, linearly; near the mean of y where there are few rows (ridge).

    A column that is always the same in x plays no part.
    """
    middle, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    scaled = (x - middle) / scale
    square = scaled.T @ scaled + RIDGE_ROWS * np.eye(x.shape[1])
    slopes = np.linalg.solve(square, scaled.T @ (y - y.mean()))
    mean = float(y.mean())
    return lambda new: mean + (new - middle) / scale @ slopes
