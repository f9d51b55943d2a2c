"""The half of stage extract that starts from data (SDD): seed examples -> skill labels.

The text of a seed is a value of the template `label`, never a template, and the pack paper puts it
into a block whose end it cannot contain (prompts.marker).
"""

from collections.abc import Iterable, Sequence

from localism.config import Config
from localism.context import Context
from localism.errors import ConfigError, StageError
from localism.parsing.lists import labels_with_reason, split_definition
from localism.prompting.packs import Pack, load_pack
from localism.records import Reply, stable_id
from localism.seeds.files import SeedExample, sample_sources
from localism.serving.client import Client, RequestFailed
from localism.skill_names import Name, normalise
from localism.store import Row
from localism.tables import number_of

SHOWN = 3
SHOWN_CHARACTERS = 200
# Some 3,000 tokens: what a question needs shows in that much of it, and it fits any real teacher.
LONGEST_SEED = 12_000


def load(config: Config) -> list[SeedExample]:
    """The seeded sample of every source, ordered by source and row.

    Raises ConfigError when the prompt pack can't label, or for a row that is no seed example.
    """
    if not load_pack(config.prompts.pack).has("label"):
        raise ConfigError(
            f"prompt pack {config.prompts.pack} cannot label seed examples",
            where=f"[extract].method = {config.extract.method!r}",
            fix="add label.txt to the pack, or use method = 'sda'",
        )
    return sample_sources(config.extract, config.seed)


def shortened(text: str) -> str:
    """The text, or of one longer than LONGEST_SEED characters its beginning and its end."""
    if len(text) <= LONGEST_SEED:
        return text
    half = LONGEST_SEED // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters left out]\n{text[-half:]}"


async def label(context: Context, client: Client, pack: Pack, seeds: Sequence[SeedExample]) -> None:
    """Ask for the skills of every seed example; those that can't be read are counted."""
    distinct = {seed.seed_id: seed for seed in reversed(seeds)}
    context.store.add_rows("seed_example", [_seed_row(seed) for seed in distinct.values()])
    if len(distinct) < len(seeds):
        repeated = len(seeds) - len(distinct)
        context.warn(
            "extract", f"the instruction of another one in {number_of(repeated, 'seed example')}"
        )
    _say_which_are_cut(context, distinct.values())
    unread: list[str] = []
    done = 0

    async def work(seed: SeedExample) -> None:
        nonlocal done
        try:
            reply, names = await _labelled(context, client, pack, seed)
        except RequestFailed as failed:
            unread.append(failed.reason)
        else:
            if not any(name.text for _, name in names):
                unread.append(reply.text)
            reason = labels_with_reason(reply.text)[1]
            for position, (raw, name) in enumerate(names):
                row = label_row(
                    reply.turn_id, position, raw, name, "sdd", seed_id=seed.seed_id, reason=reason
                )
                context.store.add("skill_label", **row)
        done += 1
        context.progress.update(
            done, len(distinct), unit="seed examples",
            detail=f"{client.tokens_per_second():,.0f} tok/s",
        )  # fmt: skip

    await client.for_each(distinct.values(), work)
    if len(unread) == len(distinct):
        raise nothing_read("no seed example could be labelled", unread)
    if unread:
        problem = f"{len(unread)} of {len(distinct)} seed examples got no usable label"
        context.warn("extract", problem, replies=unread[:SHOWN])


async def _labelled(
    context: Context, client: Client, pack: Pack, seed: SeedExample
) -> tuple[Reply, list[tuple[str, Name]]]:
    """A reply and its labels; asked again, as another sample, while none of them is usable."""
    prompt = pack.render("label", instruction=shortened(seed.instruction))
    for sample in range(context.config.extract.retries + 1):
        reply = await client.conversation(sample).say(
            prompt, template="label", sampling=pack.extract_sampling
        )
        names = read_labels(reply)
        if any(name.text for _, name in names):
            break
    return reply, names


def read_labels(reply: Reply) -> list[tuple[str, Name]]:
    """Each label as the teacher wrote it, and its name; a cut-off last one has none."""
    labels, _ = labels_with_reason(reply.text)
    names = [normalise(split_definition(raw)[0]) for raw in labels]
    if names and reply.finish_reason == "length":
        names[-1] = Name(None, "cut off")
    return list(zip(labels, names, strict=True))


def _say_which_are_cut(context: Context, seeds: Iterable[SeedExample]) -> None:
    cut = [seed.seed_id for seed in seeds if len(seed.instruction) > LONGEST_SEED]
    if cut:
        problem = (
            f"more than {LONGEST_SEED:,} characters in {number_of(len(cut), 'seed example')}; the "
            "teacher is shown beginning and end"
        )
        context.warn("extract", problem, seed_ids=cut)


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
