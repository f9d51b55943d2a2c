"""The half of stage extract that starts from data (SDD): seed examples -> skill labels.

Seed files are JSONL: an object a line with an instruction, and if there are any an input and a
response (or output). The text of a seed is a value of the template `label`, never a template.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from localism.config import Config
from localism.context import Context
from localism.errors import ConfigError, StageError
from localism.parse import labels_with_reason, split_definition
from localism.paths import embedded
from localism.prompts import Pack, load_pack
from localism.records import stable_id
from localism.serving.client import Client, RequestFailed, for_each
from localism.skill_names import Name, normalise
from localism.store import Row

SHOWN = 3
SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class SeedExample:
    """One line of a seed file."""

    source: str
    """Name of the file."""
    ordinal: int
    """Line of the file, from 0."""
    instruction: str
    """With its input behind it."""
    response: str | None
    """If the file has one."""

    @property
    def seed_id(self) -> str:
        """By the instruction alone, which is all that is labelled: the same one counts once."""
        return stable_id("seed", self.instruction)


def load(config: Config) -> list[SeedExample]:
    """The seeded sample of all seed files together, ordered by file and line.

    Raises ConfigError when the prompt pack can't label, or for a line that is no seed example.
    """
    if not load_pack(config.prompts.pack).has("label"):
        raise ConfigError(
            f"prompt pack {config.prompts.pack} cannot label seed examples",
            where=f"[extract].method = {config.extract.method!r}",
            fix="add label.txt to the pack, or use method = 'sda'",
        )
    every = (seed for source in config.extract.seeds for seed in read(embedded(source.path)))
    sample = _sample(every, config.extract.seed_examples, Random(f"seed examples {config.seed}"))
    if not sample:
        raise ConfigError(
            "the seed files hold no example",
            where=f"models.toml [extract].seeds = {list(config.extract.seeds)!r}",
            fix='one JSON object a line, for instance {"instruction": "How do I ...?"}',
        )
    return sorted(sample, key=lambda seed: (seed.source, seed.ordinal))


def read(path: Path) -> Iterator[SeedExample]:
    """The seed examples of one file; a line that is none raises ConfigError with its number."""
    with path.open("rb") as lines:
        for ordinal, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                yield _parse(line, path.name, ordinal)
            except (ValueError, RecursionError) as wrong:
                raise ConfigError(
                    f"not a seed example: {wrong}",
                    where=f"{path}:{ordinal + 1}",
                    fix='write one JSON object a line: {"instruction": "...", "response": "..."}',
                ) from None


def _parse(line: bytes, source: str, ordinal: int) -> SeedExample:
    row = json.loads(line.decode("utf-8-sig"))
    if not isinstance(row, dict):
        raise ValueError("the line is not a JSON object")
    instruction, further = _text(row, "instruction"), _text(row, "input")
    if not instruction:
        raise ValueError("it has no instruction")
    instruction += f"\n\n{further}" if further else ""
    response = _text(row, "response") or _text(row, "output")
    return SeedExample(source, ordinal, instruction, response or None)


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key} is not a text")
    (value or "").encode()  # half of a surrogate pair is valid JSON and cannot be stored
    return (value or "").strip()


def _sample(every: Iterator[SeedExample], count: int, random: Random) -> list[SeedExample]:
    """`count` of them, each as likely as any other; holds no more than that in memory."""
    kept: list[SeedExample] = []
    for number, seed in enumerate(every):
        if number < count:
            kept.append(seed)
        elif (place := random.randrange(number + 1)) < count:
            kept[place] = seed
    return kept


async def label(context: Context, client: Client, pack: Pack, seeds: Sequence[SeedExample]) -> None:
    """Ask for the skills of every seed example; those that can't be read are counted."""
    distinct = {seed.seed_id: seed for seed in reversed(seeds)}
    context.store.add_rows("seed_example", [_seed_row(seed) for seed in distinct.values()])
    unread: list[str] = []
    done = 0

    async def work(seed: SeedExample) -> None:
        nonlocal done
        prompt = pack.render("label", instruction=seed.instruction)
        try:
            reply = await client.conversation().say(
                prompt, template="label", sampling=pack.extract_sampling
            )
        except RequestFailed as failed:
            unread.append(failed.reason)
        else:
            labels, reason = labels_with_reason(reply.text)
            names = [normalise(split_definition(raw)[0]) for raw in labels]
            if names and reply.finish_reason == "length":
                names[-1] = Name(None, "cut off")
            if not any(name.text for name in names):
                unread.append(reply.text)
            for position, (raw, name) in enumerate(zip(labels, names, strict=True)):
                row = label_row(
                    reply.turn_id, position, raw, name, "sdd", seed_id=seed.seed_id, reason=reason
                )
                context.store.add("skill_label", **row)
        done += 1
        context.progress.update(
            done, len(distinct), unit="seed examples",
            detail=f"{client.tokens_per_second():,.0f} tok/s",
        )  # fmt: skip

    await for_each(distinct.values(), work, client.in_flight)
    if len(unread) == len(distinct):
        raise nothing_read("no seed example could be labelled", unread)
    if unread:
        problem = f"{len(unread)} of {len(distinct)} seed examples got no usable label"
        context.warn("extract", problem, replies=unread[:SHOWN])


def label_row(
    turn_id: str,
    position: int,
    raw: str,
    name: Name,
    source: str,
    *,
    topic_id: str | None = None,
    seed_id: str | None = None,
    reason: str | None = None,
) -> Row:
    """A row of table skill_label."""
    return {
        "label_id": stable_id(turn_id, position),
        "raw": raw,
        "name": name.text,
        "unusable": name.problem,
        "source": source,
        "topic_id": topic_id,
        "seed_id": seed_id,
        "reason": reason,
        "turn_id": turn_id,
    }


def _seed_row(seed: SeedExample) -> Row:
    return {
        "seed_id": seed.seed_id,
        "source": seed.source,
        "ordinal": seed.ordinal,
        "instruction": seed.instruction,
        "response": seed.response,
    }


def nothing_read(problem: str, unread: Sequence[str]) -> StageError:
    """The error when not one reply could be used; it shows a few of them."""
    shown = [repr(text[:SHOWN_CHARACTERS]) for text in unread[:SHOWN]]
    return StageError(
        problem,
        where=f"replies: {'; '.join(shown) or 'none'}",
        fix="try a stronger teacher or another prompt pack ([prompts].pack)",
    )
