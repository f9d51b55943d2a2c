"""What passes between a benchmark's protocol and the runner that asks the models.

A protocol is a module of this room with the functions of `Protocol`. It says how its public files
are read, what a model is asked, what the judge is asked about an answer, and how judgments become
scores; it starts no engine and writes no row.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from localism.records import Sampling, stable_id
from localism.serving.client import Client


@dataclass(frozen=True)
class Item:
    """One entry of a benchmark."""

    suite: str
    """Its benchmark: alpacaeval, mt-bench, ..., or the stem of a file."""
    own_id: str
    """As the benchmark calls it; unique within it."""
    turns: tuple[str, ...]
    """User messages, in order."""
    reference: str | None = None
    """The answer to compare with, or a right one; None where the protocol needs none."""
    category: str | None = None
    """Of the benchmark's own kinds."""
    tags: tuple[str, ...] = ()
    """Further kinds; an item may have several."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """What else the protocol needs; JSON values."""

    @cached_property
    def item_id(self) -> str:
        """Stable id of its content."""
        return stable_id(
            self.suite, self.own_id, self.turns, self.reference, self.category, self.tags,
            dict(self.detail),
        )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a model answered to one turn of an item."""

    model_id: str
    """base, a checkpoint_id, or the folder name of a model."""
    item_id: str
    """What it answers."""
    turn: int
    """From 1."""
    sample: int
    """From 0, where a protocol asks several times."""
    text: str | None
    """None when the call failed."""
    finish_reason: str
    """stop, length, or failed."""


@dataclass(frozen=True)
class Judged:
    """One verdict on an answer."""

    value: float | None
    """On the protocol's own scale; None is unscored."""
    label: str | None = None
    """The verdict as the judge gave it."""
    reason: str | None = None
    """Why it is unscored, or was decided without the judge."""
    turn_id: str | None = None
    """The call that it was read from."""


@dataclass(frozen=True)
class Judgment:
    """A stored verdict."""

    item_id: str
    """Whose answer was judged."""
    model_id: str
    """Who gave it."""
    aspect: str
    """What was asked."""
    sample: int
    """Of the answer, or of the judgment where it is repeated."""
    value: float | None
    """None is unscored."""
    label: str | None
    """The verdict as the judge gave it."""


@dataclass(frozen=True)
class Question:
    """One call to the judge about one model's answers to one item."""

    item_id: str
    """What was answered."""
    model_id: str
    """Who answered."""
    aspects: tuple[str, ...]
    """What the reply says something about; one judgment row each."""
    ask: Callable[[Client], Awaitable[Sequence[Judged]]]
    """Asks, and returns a verdict for each aspect. RequestFailed makes all of them unscored."""
    sample: int = 0
    """Tells repeated questions apart."""


@dataclass(frozen=True)
class SuiteScore:
    """A row of table suite_score but for suite and judge, which the runner adds."""

    model_id: str
    """Who was scored."""
    metric: str
    """What was measured."""
    value: float | None
    """None when nothing was scored."""
    low: float | None
    """Lower end of the 95% interval."""
    high: float | None
    """Upper end."""
    n: int
    """Items behind the value."""
    unscored: int
    """Items that should be behind it and are not."""
    part: str = ""
    """'' is the whole suite; else a category, skill or task."""
    note: str | None = None
    """What belongs beside the number."""


@dataclass(frozen=True)
class Judging:
    """What a protocol needs to ask the judge and to score, beside items and answers."""

    pack: Any
    """The run's prompt pack, whose pairwise prompt and labels pick uses too."""
    kind: str
    """How the judge compares: letter or likelihood ([judge].kind)."""
    both_orders: bool
    """Whether pairs are shown in both orders."""
    render: Callable[..., str]
    """render(template, **values) fills a prompt of prompts/judges/."""
    max_tokens: int
    """Longest written verdict."""
    structured: bool
    """Whether written verdicts are asked for as JSON under the server's structured output."""
    seed: int
    """Of the bootstrap."""
    resamples: int
    """Of the bootstrap."""
    length_slope: Mapping[str, float] = field(default_factory=dict)
    """phi_calibrated and phi_error, the judge's own taste for length, where it is known."""


class Suite(Protocol):
    """The functions of a protocol's module."""

    NAME: str
    """As in --suite, and the name of its sample."""
    HEADLINE: str
    """The metric that stands for the suite."""
    SAMPLES: int
    """How often a model answers an item."""
    PROMPTS: Mapping[str, Set[str]]
    """Templates of prompts/judges/ that it uses, and what each is filled with."""

    def read(self, source: Path) -> list[Item]:
        """Items of the benchmark's public files; ConfigError names file, line and column."""

    def turns(self, item: Item) -> int:
        """How many messages a model is asked."""

    def message(self, item: Item, turn: int, render: Callable[..., str]) -> str:
        """The user message of a turn, from 1."""

    def sampling(self, item: Item, turn: int, usual: Sampling) -> Sampling:
        """How the answer is sampled; `usual` is the student's own."""

    def questions(
        self, item: Item, answers: Sequence[Answer], judging: Judging
    ) -> Iterator[Question]:
        """What the judge is asked about one model's answers to an item; failed ones are there."""

    def scores(
        self,
        items: Sequence[Item],
        answers: Sequence[Answer],
        judgments: Sequence[Judgment],
        judging: Judging,
    ) -> Iterator[SuiteScore]:
        """Scores of every model that has answers, with intervals, whole and by part."""
