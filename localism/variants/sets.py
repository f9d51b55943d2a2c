"""A training set to be made: what it is made from, its name, and how it lands in the corpus.

A set is written in one transaction, so that it is there whole or not at all. The model calls that
it took are in the ledger, so that a call which is stopped and repeated pays for none of them twice.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from localism.context import Context
from localism.errors import UsageError
from localism.paths import embedded
from localism.stages.curate import token_counter
from localism.store import Row, Store
from localism.training.sets import ACCEPTED, MAIN

Status = Literal["accepted", "rejected", "failed"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TAKEN = frozenset({ACCEPTED, MAIN, "base", "reference"})


@dataclass(frozen=True)
class Asked:
    """A training set that somebody asked for."""

    name: str
    """Of the set."""
    kind: str
    """What is done with the source: brevity, junk, longest, random, split, k, teacher."""
    source: str
    """accepted, another set of the corpus, or a file."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Everything else that it depends on: count, share, k, teacher, seed."""


@dataclass(frozen=True)
class SetExample:
    """An example of a source or of a set."""

    instruction: str | None
    """None when none was written."""
    response: str | None
    """None when none was written."""
    mix_id: str | None = None
    """The mix that it was made from; None from a file."""
    skills: tuple[str, ...] = ()
    """Names of its skills."""
    status: Status = "accepted"
    """Whether train takes it."""
    reason: str | None = None
    """Why it does not."""
    changed: bool = False
    """Written for this set; otherwise it is as in the source."""
    turn_id: str | None = None
    """The call that wrote what is new in it."""


Maker = Callable[[Context, Asked], Sequence[SetExample]]


def make(context: Context, asked: Asked, maker: Maker) -> str:
    """Make a set that is not there yet and say what is in it.

    UsageError when another set has the name, or when the source does not exist.
    """
    store = context.store
    known = store.query("SELECT * FROM training_set WHERE set_name = ?", [asked.name])
    if known:
        _refuse_another(known[0], asked)
    else:
        check_name(asked.name)
        count = token_counter(embedded(context.config.student.path))
        _write(store, asked, maker(context, asked), count)
    return describe(store, asked.name)


def check_name(name: str) -> None:
    """UsageError for what cannot be the name of a set: it becomes one of a folder."""
    if not _NAME.fullmatch(name) or name in TAKEN:
        raise UsageError(
            f"{name!r} cannot be the name of a training set",
            where="--name",
            fix="use letters, digits, '.', '_' and '-', for instance brevity-20; "
            f"{', '.join(sorted(TAKEN))} have a meaning already",
        )


def _refuse_another(known: Row, asked: Asked) -> None:
    made_of = (known["kind"], known["source"], json.loads(known["settings"]))
    if made_of != (asked.kind, asked.source, asked.settings):
        raise UsageError(
            f"there is a training set {asked.name!r} already, made in another way",
            where=f"table training_set: {known['kind']} of {known['source']}, {known['settings']}",
            fix="give this one another name with --name",
        )


def _write(
    store: Store, asked: Asked, examples: Sequence[SetExample], count: Callable[[str], int]
) -> None:
    if not examples:
        raise UsageError(
            "there is nothing to make a training set of",
            where=f"--from {asked.source}",
            fix="curate the run first, or name a file that holds examples",
        )
    with store.transaction():
        store.add(
            "training_set",
            set_name=asked.name,
            kind=asked.kind,
            source=asked.source,
            settings=json.dumps(asked.settings, sort_keys=True),
            planned=len(examples),
        )
        rows = [
            {
                "set_name": asked.name,
                "ordinal": ordinal,
                **asdict(example),
                "instruction_tokens": None
                if example.instruction is None
                else count(example.instruction),
                "response_tokens": None if example.response is None else count(example.response),
            }
            for ordinal, example in enumerate(examples)
        ]
        store.add_rows("set_example", rows)


def describe(store: Store, name: str) -> str:
    """For instance 'brevity-20: 398 examples, 80 of them written for it; 2 rejected'."""
    row = store.query(
        """
        SELECT count(*) FILTER (status = 'accepted') AS examples,
               count(*) FILTER (status = 'accepted' AND changed) AS changed,
               count(*) FILTER (status = 'rejected') AS rejected,
               count(*) FILTER (status = 'failed') AS failed
        FROM set_example WHERE set_name = ?
        """,
        [name],
    )[0]
    text = f"{name}: {row['examples']:,} example{'' if row['examples'] == 1 else 's'}"
    if row["changed"]:
        text += f", {row['changed']:,} of them written for it"
    left_out = [f"{row[what]:,} {what}" for what in ("rejected", "failed") if row[what]]
    return "; ".join([text, *left_out])


def source_examples(context: Context, source: str) -> list[SetExample]:
    """The examples of a source that is in the corpus; UsageError names those there are."""
    store = context.store
    if source == ACCEPTED:
        rows = store.query(
            """
            SELECT c.instruction, c.response, m.mix_id, list(s.name ORDER BY ms.position) AS skills
            FROM candidate c JOIN mix m USING (mix_id) JOIN mix_skill ms USING (mix_id)
            JOIN skill s USING (skill_id)
            WHERE c.status = 'accepted' AND m.split = 'train'
            GROUP BY c.instruction, c.response, m.mix_id, m.ordinal ORDER BY m.ordinal
            """
        )
    else:
        rows = store.query(
            "SELECT instruction, response, mix_id, skills FROM set_example"
            " WHERE set_name = ? AND status = 'accepted' ORDER BY ordinal",
            [source],
        )
    if not rows:
        raise no_source(store, source)
    return [SetExample(**{**row, "skills": tuple(row["skills"])}) for row in rows]


def is_set(store: Store, source: str) -> bool:
    """Whether a source is a training set of the corpus."""
    return source == ACCEPTED or bool(
        store.query("SELECT 1 FROM training_set WHERE set_name = ?", [source])
    )


def no_source(store: Store, source: str) -> UsageError:
    """The error for a source that is neither a set nor a file, or that is empty."""
    sets = [row["set_name"] for row in store.query("SELECT set_name FROM training_set")]
    exists = Path(source).exists()
    return UsageError(
        f"this kind of set cannot be made from the file {source}"
        if exists
        else f"there is no training set or file {source!r}, or it is empty",
        where=f"--from {source}",
        fix=f"name one of: {', '.join([ACCEPTED, *sorted(sets)])}"
        + ("; longest and random also take files" if exists else ", or an instruction file"),
    )
