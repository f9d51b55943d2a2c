"""Labels of a choice -> the tokens by which a reply can begin with them.

A model that means "m" may write the token m or the token of a space and m, whichever its tokenizer
and its habits prefer; both are that label, so a label's probability is the sum over its one-token
spellings. All are asked of the server, because "m" by itself and "m" after an assistant header are
different tokens in some vocabularies.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from localism.errors import ConfigError

Tokenize = Callable[[dict[str, Any]], Awaitable[list[int]]]
"""A request of vLLM's /tokenize, without the model -> token ids."""


class Labels:
    """The labels that one model was asked for so far."""

    def __init__(self, tokenize: Tokenize, role: str, where: str) -> None:
        self._tokenize, self._role, self._where = tokenize, role, where
        self._known: dict[str, tuple[int, ...]] = {}
        self._lock = asyncio.Lock()

    async def spellings(self, labels: tuple[str, ...]) -> list[tuple[int, ...]]:
        """The tokens of each label. Raises ConfigError for one that no single token spells, and for
        two that share a token, as "m" and "M" do where a vocabulary knows no capitals."""
        async with self._lock:
            for label in labels:
                if label not in self._known:
                    self._known[label] = await self._spell(label)
        found = [self._known[label] for label in labels]
        tokens = [token for spelled in found for token in spelled]
        if len(set(tokens)) < len(tokens):
            raise ConfigError(
                f"the labels {', '.join(map(repr, labels))} are one token to the {self._role}",
                where=self._where,
                fix="use labels that differ in more than capitals, for instance A and B",
            )
        return found

    async def _spell(self, label: str) -> tuple[int, ...]:
        spelled: list[int] = []
        attempts = [
            await self._after_header(label),
            await self._alone(label),
            await self._alone(f" {label}"),
        ]
        for tokens in attempts:
            if len(tokens) == 1 and tokens[0] not in spelled:
                spelled += tokens
        if spelled:
            return tuple(spelled)
        raise ConfigError(
            f"the label {label!r} is {len(attempts[1])} tokens of the {self._role}, not one",
            where=self._where,
            fix="use labels that are one token each, for instance single letters",
        )

    async def _alone(self, text: str) -> list[int]:
        return await self._tokenize({"prompt": text, "add_special_tokens": False})

    async def _after_header(self, label: str) -> list[int]:
        """The label's tokens as the beginning of a reply: the difference of two rendered chats.

        Empty for templates that render a finished reply in another way than a started one.
        """
        question = {"role": "user", "content": "?"}
        reply = {"role": "assistant", "content": label}
        begun: dict[str, Any] = {"messages": [question], "add_generation_prompt": True}
        labelled: dict[str, Any] = {
            "messages": [question, reply],
            "add_generation_prompt": False,
            "continue_final_message": True,
        }
        before, after = await self._tokenize(begun), await self._tokenize(labelled)
        return after[len(before) :] if after[: len(before)] == before else []
