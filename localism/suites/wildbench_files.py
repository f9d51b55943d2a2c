"""WildBench's public files: the dataset v2, and answers of models to compare with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localism.errors import ConfigError
from localism.suites.files import READABLE, Row, only_file, rows, unique
from localism.suites.records import Item
from localism.suites.wildbench_rules import REFERENCES, TASKS, sides

# A copy of the dataset has v1, v2 and v2-hard, each with a test-*.parquet.
DATASET = ("v2/test-*.parquet", "test-*.parquet", "wildbench.jsonl", "wildbench.json")
ROLES = ("user", "assistant")
Outputs = Mapping[str, Mapping[str, str]]
"""Answers by model, then by session_id."""


def read_items(source: Path, suite: str) -> list[Item]:
    """Items in the dataset's order, which decides who is shown first.

    References are the files of the leaderboard's three models (a folder MODEL with Parquet files,
    or MODEL.json) if any of them lies in the source; else the dataset's own column `references`.
    Raises ConfigError for a row that is not the dataset's, and for references that lack an item.
    """
    file = only_file(source, DATASET, "the dataset v2")
    found = list(rows(file))
    unique([_own_id(row) for row in found], str(file))
    outputs = _outputs(source) if source.is_dir() else {}
    return [
        _item(suite, row, outputs, is_first)
        for row, is_first in zip(found, sides(len(found)), strict=True)
    ]


def _item(suite: str, row: Row, outputs: Outputs, is_first: bool) -> Item:
    *history, query = _conversation(row)
    if query["role"] != "user":
        row.refuse("the conversation does not end with the user", "take the dataset as it is")
    tags = [row.text("primary_tag"), *_texts(row, "secondary_tags")]
    if unknown := sorted({*tags} - TASKS.keys()):
        row.refuse(f"no tag of WildBench: {', '.join(unknown)}", f"it has {', '.join(TASKS)}")
    detail = {
        "history": history,
        "checklist": list(row.texts("checklist")),
        "references": _references(row, outputs),
        "is_first": is_first,
    }
    tasks = tuple(dict.fromkeys(TASKS[tag] for tag in tags))
    return Item(suite, _own_id(row), (query["content"],), None, tags[0], tasks, detail)


def _own_id(row: Row) -> str:
    return row.text("session_id", "id")


def _conversation(row: Row) -> list[dict[str, str]]:
    said = row.values.get("conversation_input")
    if not isinstance(said, list) or not said:
        row.refuse("no messages in conversation_input", "take the dataset v2 as it is")
    return [_said(row, number, entry) for number, entry in enumerate(said, 1)]


def _said(row: Row, number: int, entry: Any) -> dict[str, str]:
    if not isinstance(entry, dict) or entry.get("role") not in ROLES:
        row.refuse(f"message {number} is by neither {' nor '.join(ROLES)}", "take it as it is")
    content = Row(f"{row.where} message {number}", entry).text("content", empty=True)
    return {"role": entry["role"], "content": content}


def _texts(row: Row, name: str) -> tuple[str, ...]:
    """A list of texts that may be empty or left out."""
    return row.texts(name) if row.values.get(name) else ()


# ---- references ----------------------------------------------------------------------------


def _references(row: Row, outputs: Outputs) -> dict[str, str]:
    """The answers to compare with, by model."""
    own_id = _own_id(row)
    if lacking := [model for model, texts in outputs.items() if own_id not in texts]:
        row.refuse(
            f"{', '.join(lacking)} did not answer {own_id}",
            "bring the answers to this version of the dataset, or leave that model's files out",
        )
    if outputs:
        return {model: texts[own_id] for model, texts in outputs.items()}
    column = row.values.get("references") or {}
    if not isinstance(column, dict):
        row.refuse("references is no table of model and text", "take the dataset v2 as it is")
    given = Row(f"{row.where} references", {k: v for k, v in column.items() if v is not None})
    return {model: given.text(model, empty=True) for model in given.values}


def _outputs(source: Path) -> dict[str, dict[str, str]]:
    found = {model: _output_files(source, model) for model in REFERENCES}
    return {model: _of_files(files) for model, files in found.items() if files}


def _output_files(source: Path, model: str) -> list[Path]:
    """A model's files: MODEL.json as in result_dirs, or MODEL/*.parquet as in the dataset."""
    single = [path for end in READABLE for path in sorted(source.rglob(model + end))]
    if len(single) > 1:
        raise ConfigError(
            f"several files could hold the answers of {model}",
            where=", ".join(map(str, single[:4])),
            fix="keep one of them",
        )
    return single or sorted(source.rglob(f"{model}/*.parquet"))


def _of_files(files: list[Path]) -> dict[str, str]:
    found = [row for file in files for row in rows(file)]
    unique([_own_id(row) for row in found], str(files[0]))
    return {_own_id(row): _output(row) for row in found}


def _output(row: Row) -> str:
    """output: a text, or a list whose first text counts."""
    value = row.values.get("output")
    return row.texts("output")[0] if isinstance(value, list) else row.text("output", empty=True)
