"""A judge that says what it is told to, for tests of protocols; no server behind it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from localism.prompting.packs import load_pack
from localism.records import Reply, Sampling, stable_id
from localism.suites import prompts
from localism.suites.records import Answer, Item, Judged, Judging, Suite


class Scripted:
    """In place of a Client: `says(prompt)` is each reply; what was asked is kept."""

    def __init__(self, says: Callable[[str], str]) -> None:
        self.says = says
        self.prompts: list[str] = []
        self.samplings: list[Sampling] = []
        self.extras: list[dict[str, Any]] = []

    def conversation(self, sample: int = 0) -> "Scripted":
        return self

    async def say(
        self, prompt: str, *, template: str, sampling: Sampling, extra: dict[str, Any]
    ) -> Reply:
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        self.extras.append(extra)
        return Reply(stable_id(template, prompt), self.says(prompt), "stop", 1, 1, False)


def judging(**changed: Any) -> Judging:
    """As a run has it, with the prompts that ship."""
    usual: dict[str, Any] = {
        "pack": load_pack("lean"), "kind": "letter", "both_orders": True,
        "render": prompts.load("judges").render, "max_tokens": 64, "structured": True,
        "seed": 0, "resamples": 100,
    }  # fmt: skip
    return Judging(**{**usual, **changed})


def judged(
    suite: Suite, item: Item, answers: Sequence[Answer], judge: Scripted, asked: Judging
) -> dict[str, Judged]:
    """Verdicts by aspect on one model's answers to an item."""

    async def ask() -> dict[str, Judged]:
        return {
            aspect: verdict
            for question in suite.questions(item, answers, asked)
            for aspect, verdict in zip(question.aspects, await question.ask(judge), strict=True)  # type: ignore[arg-type]
        }

    return asyncio.run(ask())
