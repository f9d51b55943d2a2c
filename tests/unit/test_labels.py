"""Which tokens a label is, under tokenizers that spell it in their own ways."""

import asyncio
from typing import Any

import pytest

from localism.errors import ConfigError
from localism.serving.labels import Labels

HEADER = 1
KNOWN = {"m": 10, "M": 11, " m": 20, " M": 21, "yes": 30}


def tokens_of(text: str) -> list[int]:
    """Whole words that the vocabulary knows, single letters otherwise."""
    return [KNOWN[text]] if text in KNOWN else [100 + ord(letter) for letter in text]


def server(space: str = "", fold: bool = False, prefix: bool = True) -> Any:
    """A /tokenize whose template writes `space` before a reply.

    fold: a vocabulary without capitals. prefix: a finished reply is rendered as a started one.
    """

    async def tokenize(request: dict[str, Any]) -> list[int]:
        reply = request.get("prompt")
        header = []
        if reply is None:
            header = [HEADER if prefix or len(request["messages"]) == 1 else HEADER + 1]
            messages = request["messages"][1:]
            reply = space + messages[0]["content"] if messages else ""
        return header + tokens_of(reply.lower() if fold else reply)

    return tokenize


def spellings(labels: tuple[str, ...], **kind: Any) -> list[tuple[int, ...]]:
    return asyncio.run(Labels(server(**kind), "judge", "pack").spellings(labels))


def test_a_label_is_all_its_one_token_spellings_each_once() -> None:
    assert spellings(("m", "M")) == [(10, 20), (11, 21)]
    # the template puts a space before replies: that spelling is found first, the others too
    assert spellings(("m", "M"), space=" ") == [(20, 10), (21, 11)]
    assert spellings(("yes", "m")) == [(30,), (10, 20)]


def test_a_template_that_hides_where_a_reply_begins_leaves_the_label_by_itself() -> None:
    assert spellings(("m", "M"), prefix=False) == [(10, 20), (11, 21)]


def test_labels_that_a_vocabulary_without_capitals_cannot_tell_apart_are_refused() -> None:
    with pytest.raises(ConfigError) as error:
        spellings(("m", "M"), fold=True)
    assert "'m', 'M' are one token" in error.value.problem and "A and B" in error.value.fix


def test_a_label_that_no_single_token_spells_is_refused_with_its_length() -> None:
    with pytest.raises(ConfigError, match="'no' is 2 tokens of the judge, not one"):
        spellings(("m", "no"))
