"""Brief or careless answers in the place of good ones (paper, section 3.5).

A seeded share of the source's examples keeps its instruction and gets another answer from the same
teacher, one call each: `brevity` one paragraph, `junk` a deliberately unhelpful one. The same seed
chooses the same examples for both kinds, and a smaller share is part of a larger one, so that sets
can be compared pair by pair.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from localism.context import Context
from localism.errors import UsageError
from localism.parsing.debris import bare_answer
from localism.prompting.packs import load_pack
from localism.serving.client import RequestFailed
from localism.serving.server import serve
from localism.stages.curate_shirkers import poor_answer
from localism.tables import number_of
from localism.variants.sets import Asked, SetExample, source_examples


def poor(context: Context, asked: Asked) -> list[SetExample]:
    """The source with a share of its answers replaced; one that could not be had is failed."""
    examples = source_examples(context, asked.source)
    chosen = _chosen(len(examples), asked.settings["share"], asked.settings["seed"])
    asyncio.run(_replace(context, asked.kind, examples, chosen))
    return examples


def _chosen(count: int, share: float, seed: int) -> list[int]:
    """Indices of the examples to spoil; UsageError when the share is less than one of them."""
    wanted = round(share * count)
    if not wanted:
        raise UsageError(
            f"a share of {share:g} of {number_of(count, 'example')} is none",
            where="--share",
            fix=f"at least {1 / count:.4f}",
        )
    order = list(range(count))
    Random(f"poor answers {seed}").shuffle(order)
    return sorted(order[:wanted])


async def _replace(
    context: Context, kind: str, examples: list[SetExample], chosen: Sequence[int]
) -> None:
    """Ask the teacher, and put each new example in the place of the old one."""
    pack = load_pack(context.config.prompts.pack)
    done = 0
    async with serve(context, role="teacher", stage="variant") as client:

        async def work(index: int) -> None:
            nonlocal done
            example = examples[index]
            try:
                reply = await poor_answer(client, pack, kind, example.instruction or "")
            except RequestFailed as failed:
                examples[index] = replace(example, status="failed", reason=failed.reason)
            else:
                examples[index] = _with_answer(example, bare_answer(reply.text), reply.turn_id)
            done += 1
            speed = f"{client.tokens_per_second():,.0f} tok/s"
            context.progress.update(done, len(chosen), unit="answers", detail=speed)

        await client.for_each(chosen, work)


def _with_answer(example: SetExample, answer: str | None, turn_id: str) -> SetExample:
    if answer is None:
        return replace(example, status="failed", reason="the reply was empty", turn_id=turn_id)
    return replace(example, response=answer, changed=True, turn_id=turn_id)
