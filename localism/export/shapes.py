"""An example in the shapes that trainers take, and files of them: JSONL and Parquet."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from localism.export.rows import LISTS, PROVENANCE, Row

Put = Callable[[list[Row]], None]


class Shape(NamedTuple):
    """One way to write an example."""

    columns: tuple[str, ...]
    """Of its text, before those of PROVENANCE."""
    of: Callable[[str, str], Row]
    """(instruction, response) -> its columns."""


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


SHAPES = {
    "instruction": Shape(
        ("instruction", "response"),
        lambda instruction, response: {"instruction": instruction, "response": response},
    ),
    "messages": Shape(
        ("messages",),
        lambda instruction, response: {
            "messages": [_message("user", instruction), _message("assistant", response)]
        },
    ),
    "prompt-completion": Shape(
        ("prompt", "completion"),
        lambda instruction, response: {
            "prompt": [_message("user", instruction)],
            "completion": [_message("assistant", response)],
        },
    ),
    "alpaca": Shape(
        ("instruction", "input", "output"),
        lambda instruction, response: {
            "instruction": instruction,
            "input": "",  # the examples keep what is to be worked on in the instruction
            "output": response,
        },
    ),
}
"""By the name of --format."""
KINDS = ("parquet", "jsonl")
"""Of files."""
CONVERSATIONS = ("messages", "prompt", "completion")
"""Columns that hold lists of messages."""


def file_of(form: str, split: str, kind: str) -> str:
    """Where the examples of a split lie in the folder of a data set; kind is one of KINDS."""
    return f"{form}/{split}.{kind}"


def features(form: str) -> list[dict[str, Any]]:
    """The columns with their types as a card declares them.

    Declared, because a loader that guesses takes a column without values in one split for another
    type than in the next.
    """
    message = [{"name": name, "dtype": "string"} for name in ("role", "content")]
    types: dict[str, dict[str, Any]] = {name: {"list": message} for name in CONVERSATIONS}
    types |= {name: {"list": "string"} for name in LISTS}
    names = (*SHAPES[form].columns, *PROVENANCE)
    return [{"name": name, **types.get(name, {"dtype": "string"})} for name in names]


@contextmanager
def writers(folder: Path, forms: Sequence[str], kinds: Sequence[str], split: str) -> Iterator[Put]:
    """put(rows) writes rows, each with instruction, response and PROVENANCE, to every file."""
    with ExitStack() as files:
        puts = []
        for form, kind in product(forms, kinds):
            path = folder / file_of(form, split, kind)
            path.parent.mkdir(exist_ok=True)
            writer = _parquet(path, form) if kind == "parquet" else _jsonl(path, form)
            puts.append(files.enter_context(writer))

        def put(rows: list[Row]) -> None:
            for one in puts:
                one(rows)

        yield put


def shaped(form: str, row: Row) -> Row:
    """A row in one of SHAPES, its provenance beside it."""
    of = SHAPES[form].of
    return of(row["instruction"], row["response"]) | {name: row[name] for name in PROVENANCE}


@contextmanager
def _jsonl(path: Path, form: str) -> Iterator[Put]:
    with path.open("w", encoding="utf-8") as file:

        def put(rows: list[Row]) -> None:
            file.writelines(
                json.dumps(shaped(form, row), ensure_ascii=False) + "\n" for row in rows
            )

        yield put


@contextmanager
def _parquet(path: Path, form: str) -> Iterator[Put]:
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    message = pyarrow.struct([("role", text), ("content", text)])
    types = dict.fromkeys(LISTS, pyarrow.list_(text))
    types |= dict.fromkeys(CONVERSATIONS, pyarrow.list_(message))
    names = (*SHAPES[form].columns, *PROVENANCE)
    schema = pyarrow.schema([(name, types.get(name, text)) for name in names])
    with pyarrow.parquet.ParquetWriter(path, schema) as file:

        def put(rows: list[Row]) -> None:
            table = pyarrow.Table.from_pylist([shaped(form, row) for row in rows], schema=schema)
            file.write_table(table)

        yield put
