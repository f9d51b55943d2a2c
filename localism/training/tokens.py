"""Conversations -> token ids and labels.  The loss is on the response and its end token alone.

Done here rather than by the trainer, whose labels also hold what a template writes after the end
token, and which only warns when a template renders the prompt differently once a reply follows.
"""

import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from localism.errors import ConfigError

IGNORED = -100  # the label of tokens without loss
ROWS_AT_ONCE = 10_000


class Tokenized(NamedTuple):
    """What is trained on, and what of it was lost to max_length."""

    table: Any
    """pyarrow's, with lists input_ids and labels of equal length: 8 bytes a token, where Python's
    own lists take 31 and every GPU has a process that holds all of them."""
    dropped: int
    """Examples without room for a single token of their response."""
    cut: int
    """Examples that lost a part of their response, and the end token with it."""


def tokenize(path: Path, tokenizer: Any, end: str, max_length: int, where: str) -> Tokenized:
    """The examples of a JSONL file of prompt and completion, in its order.

    `end` is the token that ends a reply. Raises ConfigError when the chat template does not let a
    reply follow its prompt token by token; `where` then names the model.
    """
    end_id = tokenizer.convert_tokens_to_ids(end)
    rows, dropped, cut = _Rows(), 0, 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            ids, start = _example(json.loads(line), tokenizer, end_id, where)
            if start >= max_length:
                dropped += 1
                continue
            cut += len(ids) > max_length
            rows.add(ids[:max_length], start)
    return Tokenized(rows.table(), dropped, cut)


class _Rows:
    """Collects examples as packed numbers, and makes them a table, part by part."""

    def __init__(self) -> None:
        self._batches: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        self._ids, self._labels, self._ends = array("i"), array("i"), array("i", [0])

    def add(self, ids: Sequence[int], start: int) -> None:
        """An example whose response begins at a token."""
        self._ids.extend(ids)
        self._labels.extend([IGNORED] * start)
        self._labels.extend(ids[start:])
        self._ends.append(len(self._ids))
        if len(self._ends) > ROWS_AT_ONCE:  # one list of more than 2**31 tokens can't be indexed
            self._finish()

    def _finish(self) -> None:
        import pyarrow

        def numbers(values: "array[int]") -> Any:
            buffer = pyarrow.py_buffer(values)
            return pyarrow.Array.from_buffers(pyarrow.int32(), len(values), [None, buffer])

        ends = numbers(self._ends)
        columns = {
            name: pyarrow.ListArray.from_arrays(ends, numbers(values))
            for name, values in (("input_ids", self._ids), ("labels", self._labels))
        }
        self._batches.append(pyarrow.record_batch(columns))
        self._begin()

    def table(self) -> Any:
        """All that was added."""
        import pyarrow

        self._finish()
        return pyarrow.Table.from_batches(self._batches)


def _example(
    row: Mapping[str, Sequence[Any]], tokenizer: Any, end_id: int, where: str
) -> tuple[list[int], int]:
    """All tokens up to the end of the reply, and how many of them are the prompt."""
    messages = [*row["prompt"], *row["completion"]]
    asked = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    if not text.startswith(asked):
        raise ConfigError(
            "the student's chat template writes the prompt differently once a reply follows, so "
            "what is trained would not be what is asked",
            where=where,
            fix="let what add_generation_prompt writes be how the assistant's message begins",
        )
    prompt, whole = _ids(tokenizer, asked), _ids(tokenizer, text)
    if whole[: len(prompt)] != prompt:
        # A token would span prompt and reply ("\n" and "\n\n"), but the engine is given the prompt.
        whole = prompt + _ids(tokenizer, text[len(asked) :])
    if end_id not in whole[len(prompt) :]:
        raise ConfigError(
            "the student's chat template leaves the end token out after some replies",
            where=where,
            fix="let the template write eos_token after every assistant's content",
        )
    last = len(whole) - 1 - whole[::-1].index(end_id)
    # What a template writes behind the end token is never generated: the engine has stopped.
    return whole[: last + 1], len(prompt)


def _ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a rendered text, in which the template has put every special token itself."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def end_token(tokenizer: Any, where: str) -> str:
    """The token with which the chat template ends a reply: what the engine must stop at.

    It need not be the tokenizer's own end of text (Qwen's base models differ). Raises ConfigError
    when the template writes none: a model trained on it would never stop.
    """
    user, assistant = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}
    asked = tokenizer.apply_chat_template([user], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([user, assistant], return_dict=False)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ends = [token for token in whole[len(asked) :] if token in special]
    if not ends:
        raise ConfigError(
            "the student's chat template writes no end token after a reply, so the model would "
            "never learn to stop",
            where=where,
            fix="let the template write eos_token after the assistant's content; without any "
            "template the built-in one is used",
        )
    return str(tokenizer.convert_ids_to_tokens(ends[-1]))
