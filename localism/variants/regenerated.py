"""The same tuples of skills written anew: with fewer or more skills in each, or by another teacher.

With a smaller k a tuple loses its last skills, with a larger one it gains some, chosen so that all
are used evenly. Query types stay. What comes out meets the run's own gates, held-out examples among
the duplicates, and the run's own judge, whoever wrote it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from localism.config import Config
from localism.context import Context
from localism.coverage import extended_sets
from localism.curation.candidate import Candidate, Verdict
from localism.errors import UsageError
from localism.paths import EMBEDDED, embedded
from localism.records import Mix
from localism.serving.server import serve
from localism.stages.curate import accepted_held_out, decide
from localism.stages.generate import Writer, in_order
from localism.stages.mix import Plan, load_mixes
from localism.store import Row
from localism.tables import number_of
from localism.variants.sets import Asked, SetExample, source_examples
from localism.weights import check_model_folder


def is_address(teacher: str) -> bool:
    """Whether a teacher is named by the URL of a server rather than by its folder."""
    return teacher.startswith(("http://", "https://"))


def check_teacher(teacher: str) -> str:
    """The teacher as it is kept: a URL, or the whole path of a folder that can be served.

    Raises ConfigError for a folder that cannot.
    """
    if is_address(teacher):
        return teacher
    check_model_folder(embedded(teacher), "--teacher", needs_chat_template=True)
    return teacher if teacher.startswith(EMBEDDED) else str(Path(teacher).resolve())


def with_teacher(config: Config, teacher: str) -> Config:
    """The recipe with another teacher, served as the run's own is; a judge of its own stays."""
    own = {"endpoints": (teacher,), "path": ""} if is_address(teacher) else {"path": teacher}
    plain = {"endpoints": (), "served_name": "", "engine_arguments": ()}
    other = config.teacher.model_copy(update={**plain, **own})
    return config.model_copy(update={"teacher": other})


def regenerated(context: Context, asked: Asked) -> list[SetExample]:
    """A conversation for each example of the source, and what the gates say of it."""
    mixes = _tuples(context, asked)
    writing = context
    if teacher := asked.settings.get("teacher"):
        writing = replace(context, config=with_teacher(context.config, teacher))
    rows = asyncio.run(_write(writing, asked, mixes))
    verdicts = _judge(context, asked, mixes, rows)
    return [_example(mix, rows[mix.mix_id], verdicts.get(mix.mix_id)) for mix in mixes]


def _tuples(context: Context, asked: Asked) -> list[Mix]:
    """The source's mixes with the skills that they are to have now, in the plan's order."""
    examples = source_examples(context, asked.source)
    skills = {example.mix_id: example.skills for example in examples if example.mix_id}
    mixes = [mix for mix in load_mixes(context.store, ("train",)) if mix.mix_id in skills]
    if not mixes:
        raise UsageError(
            f"the examples of {asked.source} were not made from skills",
            where=f"--from {asked.source}",
            fix="name accepted, or a set that was made from it",
        )
    mixes = [replace(mix, skills=skills[mix.mix_id]) for mix in mixes]
    k = asked.settings.get("k")
    if k is None:
        return mixes
    if all(len(mix.skills) == k for mix in mixes) and "teacher" not in asked.settings:
        raise UsageError(
            f"the examples of {asked.source} have k = {k} already",
            where=f"--k {k}",
            fix="give another k, or another teacher with --teacher",
        )
    return _resized(context, mixes, k, asked.settings["seed"])


def _resized(context: Context, mixes: Sequence[Mix], k: int, seed: int) -> list[Mix]:
    """The mixes with their first k skills, or with further ones up to k."""
    units = Plan(context).units
    if k > len(units):
        raise UsageError(
            f"only {number_of(len(units), 'skill')} to choose from",
            where=f"--k {k}",
            fix="a smaller k",
        )
    numbers = {unit.name: number for number, unit in enumerate(units)}
    clusters = [unit.cluster_id for unit in units]
    sets = [tuple(numbers[skill] for skill in mix.skills[:k]) for mix in mixes]
    grown = extended_sets(sets, clusters, k, Random(f"more skills {seed}"))
    return [
        replace(mix, skills=tuple(units[number].name for number in members))
        for mix, members in zip(mixes, grown, strict=True)
    ]


async def _write(context: Context, asked: Asked, mixes: Sequence[Mix]) -> dict[str, Row]:
    """mix_id -> a row as of table candidate; calls that the ledger has cost nothing."""
    rows: dict[str, Row] = {}

    def keep(**row: object) -> None:
        rows[str(row["mix_id"])] = row

    known_as = f"teacher of {asked.name}" if "teacher" in asked.settings else None
    async with serve(context, role="teacher", stage="variant", known_as=known_as) as client:
        writer = Writer(context, client, mixes, 0, keep)
        await client.for_each(in_order(mixes, client.in_flight), writer.write)
    return rows


def _judge(
    context: Context, asked: Asked, mixes: Sequence[Mix], rows: dict[str, Row]
) -> dict[str, Verdict]:
    """mix_id -> the verdict of the gate that rejects it, or the last one that it passed."""
    ends = {
        row["turn_id"]: row["finish_reason"]
        for row in context.store.query("SELECT turn_id, finish_reason FROM turn")
    }
    # Names of their own: the same mixes have verdicts of the run's own examples.
    written = [
        Candidate(
            f"{asked.name}:{mix.mix_id}",
            mix.split,
            mix.ordinal,
            mix.skills,
            rows[mix.mix_id]["instruction"],
            rows[mix.mix_id]["response"],
            rows[mix.mix_id]["reason"],
            ends.get(rows[mix.mix_id]["turn_id"]),
        )
        for mix in mixes
        if rows[mix.mix_id]["status"] != "failed"
    ]
    found = decide(context, [*accepted_held_out(context.store), *written], stage="variant")
    context.store.execute(
        "DELETE FROM verdict WHERE list_contains(?, mix_id)", [[one.mix_id for one in written]]
    )
    return {
        one.mix_id.removeprefix(f"{asked.name}:"): list(found[one.mix_id].values())[-1]
        for one in written
    }


def _example(mix: Mix, row: Row, verdict: Verdict | None) -> SetExample:
    """What came of one mix; a verdict of None is a call that failed."""
    example = SetExample(
        row["instruction"],
        row["response"],
        mix.mix_id,
        mix.skills,
        changed=True,
        turn_id=row["turn_id"],
    )
    if verdict is None:
        return replace(example, status="failed", reason=row["reason"])
    if verdict.passed:
        return example
    return replace(example, status="rejected", reason=verdict.reason)
