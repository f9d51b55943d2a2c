"""Stage extract: what a teacher can do, in its own words -> topics, query types, skill labels.

SDA (paper 2.1, method 2, and J.4) asks the teacher itself: topics, unless a taxonomy gives them,
then skills for each topic, then query types. Every list is asked for in rounds, each naming what is
known already, several samples a round, until enough is there or hardly anything new comes. SDD
(method 1) labels seed examples, in extract_seeds.py. Of each list the items that most replies agree
on are kept, every time they were given a row; so are unusable ones, without a name.
Alone: localism extract --run NAME
"""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localism.config import Extract
from localism.context import Context
from localism.errors import ConfigError
from localism.parsing import structured
from localism.parsing.lists import json_listed, listed, says_nothing
from localism.prompting.packs import Pack, load_pack
from localism.records import Reply, stable_id
from localism.serving.client import Client, RequestFailed
from localism.serving.crew import for_each
from localism.serving.server import serve
from localism.skill_names import Name, normalise
from localism.stages import extract_seeds
from localism.tables import number_of
from localism.taxonomy import Branch, read_taxonomy

# Two dry rounds in a row end a list. One alone may be bad luck: the last rounds ask for few items.
DRY_ROUNDS = 2
# From this many words on, an item that stands in the prompt was copied from it. Shorter ones may
# well be both: 'public speaking' is a topic and a skill.
COPIED_WORDS = 4
# A full stop inside an item, unless it ends an abbreviation: 'U.S. history' is a name.
_SENTENCE_END = re.compile(r"\w{3,}[.!?]\s")


@dataclass(frozen=True)
class Topic:
    """What skills are asked about."""

    name: str
    """As the taxonomy or the teacher wrote it."""
    branch: Branch
    """Where in the taxonomy it stands."""
    turn_id: str | None
    """The reply that named it; None when the taxonomy did."""


@dataclass(frozen=True)
class Item:
    """One item of one reply."""

    turn_id: str
    """The reply's row in the ledger."""
    position: int
    """In the reply, from 0."""
    raw: str
    """As the teacher wrote it."""
    name: str
    """Without emphasis and definition."""
    definition: str | None
    """What the teacher wrote behind the name."""
    key: str | None
    """The normalised name, by which items are the same; None when the item is unusable."""
    unusable: str | None
    """Why it is."""


def run(context: Context) -> str:
    """Ask for what is missing; finished turns come from the ledger and give the same rows again."""
    section = context.config.extract
    branches = read_taxonomy(Path(section.taxonomy)) if section.taxonomy else [Branch("", "", ())]
    pack = load_pack(context.config.prompts.pack)
    if not pack.uses("topics", "subject") and any(b.subject and not b.topics for b in branches):
        raise ConfigError(
            f"prompt pack {pack.name} cannot ask for the topics of a subject",
            where=f"{section.taxonomy}: a subject without topics",
            fix="list its topics, or use a pack whose topics.txt mentions {{ subject }}",
        )
    seeds = extract_seeds.load(context.config) if section.method != "sda" else []
    with context.store.transaction():
        # Of a call that was ended: the ledger gives its rows again, and a call that failed then may
        # succeed now and change which items most replies agree on.
        for table in ("topic", "query_type", "skill_label", "seed_example"):
            context.store.execute(f"DELETE FROM {table}")
    asyncio.run(_run(context, pack, branches, seeds))
    return _summary(context)


async def _run(
    context: Context,
    pack: Pack,
    branches: Sequence[Branch],
    seeds: Sequence[extract_seeds.SeedExample],
) -> None:
    async with serve(context, role="teacher", stage="extract") as client:
        if context.config.extract.method != "sdd":
            lists = Lists(client, pack, context.config.extract)
            topics = await _topics(context, client, lists, branches)
            await _skills(context, client, lists, topics)
            await _query_types(context, lists)
            if lists.unread:
                context.warn(
                    "extract",
                    f"{number_of(len(lists.unread), 'reply', 'replies')} held nothing usable",
                )
        if seeds:
            await extract_seeds.label(context, client, pack, seeds)


def _summary(context: Context) -> str:
    def count(sql: str) -> int:
        found: int = context.store.value(sql)
        return found

    skills = count("SELECT count(DISTINCT name) FROM skill_label")
    labels = count("SELECT count(*) FROM skill_label")
    topics = count("SELECT count(*) FROM topic")
    seeds = count("SELECT count(*) FROM seed_example")
    types = count("SELECT count(*) FROM query_type")
    sources = [number_of(topics, "topic")] * bool(topics)
    sources += [number_of(seeds, "seed example")] * bool(seeds)
    text = f"{number_of(skills, 'skill name')} in {number_of(labels, 'label')}"
    text += f" from {' and '.join(sources)}"
    return text + (f"; {number_of(types, 'query type')}" if types else "")


# ---- lists, round after round ----------------------------------------------------------------


class Lists:
    """Asks a teacher for lists and remembers what could not be read."""

    def __init__(self, client: Client, pack: Pack, section: Extract) -> None:
        self._client, self._pack, self._section = client, pack, section
        self.unread: list[str] = []
        """Replies without a usable item, and why calls failed."""

    async def collect(self, template: str, wanted: int, **values: str) -> list[Item]:
        """Every item of every reply, in an order that does not depend on who answered first."""
        section, items = self._section, list[Item]()
        known: dict[str, str] = {}
        dry = 0
        values.setdefault("domain", section.domain)
        for number in range(section.max_rounds):
            count = min(section.list_length, wanted - len(known))
            prompt = self._pack.render(template, count=count, known=[*known.values()], **values)
            found = await self._round(template, prompt, number, count)
            before = len(known)
            for item in found:
                if item.key is not None:
                    known.setdefault(item.key, item.key if template == "skills" else item.name)
            items += found
            is_dry = len(known) - before <= section.least_yield * len(found)
            dry = dry + 1 if is_dry else 0
            if len(known) >= wanted or dry == DRY_ROUNDS:
                break
        return items

    async def _round(self, template: str, prompt: str, number: int, count: int) -> list[Item]:
        """All samples of one prompt at once, put together in sample order."""
        samples = self._section.samples
        replies: dict[int, list[Item]] = {}

        async def ask(sample: int) -> None:
            # Counted on from round to round: where nothing new came the prompt is the same again.
            replies[sample] = await self._reply(template, prompt, number * samples + sample, count)

        await for_each(range(samples), ask, samples)
        return [item for sample in sorted(replies) for item in replies[sample]]

    async def _reply(self, template: str, prompt: str, sample: int, count: int) -> list[Item]:
        """The items of one reply; asked again, as another sample, while none of them is usable."""
        section = self._section
        fields = ["name"] if template == "topics" else ["name", "definition"]
        extra = structured.a_list(template, fields, count) if self._pack.structured else {}
        for attempt in range(section.retries + 1):
            number = sample + attempt * section.max_rounds * section.samples
            try:
                reply = await self._client.conversation(number).say(
                    prompt, template=template, sampling=self._pack.extract_sampling, extra=extra
                )
            except RequestFailed as failed:
                self.unread.append(failed.reason)
                return []
            items = read_items(
                reply,
                prompt,
                needs_definition=template == "query_types",
                is_structured=self._pack.structured,
            )
            if any(item.key is not None for item in items) or says_nothing(reply.text):
                break
            self.unread.append(reply.text)
        return items


def read_items(
    reply: Reply, prompt: str, *, needs_definition: bool = False, is_structured: bool = False
) -> list[Item]:
    """The items of a reply; sentences, copies of the prompt and a cut-off last item have no key."""
    items = []
    found = (json_listed(reply.text) if is_structured else None) or listed(reply.text)
    for position, (raw, name, definition) in enumerate(found):
        key, unusable = normalise(name)
        if reply.finish_reason == "length" and position == len(found) - 1:
            unusable = "cut off"
        elif _SENTENCE_END.search(name):
            unusable = "a sentence"
        elif _repeats(raw, prompt):
            unusable = "copied from the prompt"
        elif needs_definition and not definition:
            unusable = "without a definition"
        key = None if unusable else key
        items.append(Item(reply.turn_id, position, raw, name, definition, key, unusable))
    return items


def _repeats(item: str, prompt: str) -> bool:
    words = item.casefold().split()
    return len(words) >= COPIED_WORDS and " ".join(words) in " ".join(prompt.casefold().split())


def most_agreed(items: Sequence[Item], wanted: int) -> dict[str, Item]:
    """Key -> the first item with it, for the `wanted` keys that most replies named.

    Several samples of one prompt agree on what belongs in the list; what only one of them came up
    with is more often off the subject or made up. Ties go to what came first.
    """
    first: dict[str, Item] = {}
    support: Counter[str] = Counter()
    for item in items:
        if item.key is not None:
            first.setdefault(item.key, item)
            support[item.key] += 1
    best = [key for key, _ in support.most_common(wanted)]  # stable: first come, first listed
    return {key: first[key] for key in best}


# ---- the three lists of SDA ------------------------------------------------------------------


async def _topics(
    context: Context, client: Client, lists: Lists, branches: Sequence[Branch]
) -> dict[str, Topic]:
    """Normalised name -> topic, in the order of the taxonomy; the first of a name wins."""
    wanted = context.config.extract.topics
    asked = [number for number, branch in enumerate(branches) if not branch.topics]
    named: dict[int, list[Topic]] = {}
    context.progress.update(0, wanted * len(asked), unit="topics")

    async def name(number: int) -> None:
        field, subject, _ = branch = branches[number]
        items = await lists.collect("topics", wanted, field=field, subject=subject)
        best = most_agreed(items, wanted).values()
        named[number] = [Topic(item.name, branch, item.turn_id) for item in best]

    await client.for_each(asked, name, requests_each=context.config.extract.samples)
    topics: dict[str, Topic] = {}
    for number, branch in enumerate(branches):
        given = [Topic(topic, branch, None) for topic in branch.topics]
        for topic in given or named[number]:
            # A name of the lab's own stands as it is, whatever normalise thinks of it.
            topics.setdefault(normalise(topic.name).text or topic.name, topic)
    if asked:
        found = sum(map(len, named.values()))
        _check(context, lists, "topics", found, wanted * len(asked))
    for ordinal, (key, topic) in enumerate(topics.items()):
        context.store.add(
            "topic",
            topic_id=stable_id("topic", key),
            name=topic.name,
            field=topic.branch.field or None,
            subject=topic.branch.subject or None,
            ordinal=ordinal,
            turn_id=topic.turn_id,
        )
    return topics


async def _skills(context: Context, client: Client, lists: Lists, topics: dict[str, Topic]) -> None:
    """Skills of every topic, all topics at once; each topic's rounds in order."""
    section = context.config.extract
    found: dict[str, int] = {}

    async def extract(key: str) -> None:
        items = await lists.collect("skills", section.skills_per_topic, topic=topics[key].name)
        kept = most_agreed(items, section.skills_per_topic)
        found[key] = len(kept)
        for item in items:
            if item.key is not None and item.key not in kept:
                continue  # beyond what was wanted; it stays in the ledger
            context.store.add("skill_label", **extract_seeds.label_row(
                item.turn_id, item.position, item.raw, Name(item.key, item.unusable), "sda",
                topic_id=stable_id("topic", key), reason=item.definition,
            ))  # fmt: skip
        context.progress.update(
            len(found), len(topics), unit="topics",
            detail=f"{client.tokens_per_second():,.0f} tok/s",
        )  # fmt: skip

    await client.for_each(topics, extract, requests_each=section.samples)
    if not any(found.values()):
        raise extract_seeds.nothing_read("the teacher listed no skills", lists.unread)
    short = [key for key, number in found.items() if number < section.skills_per_topic]
    if short:
        context.warn(
            "extract",
            f"{len(short)} of {len(topics)} topics gave fewer than the"
            f" {section.skills_per_topic} skills wanted, for instance {sorted(short)[0]}",
        )


async def _query_types(context: Context, lists: Lists) -> None:
    wanted = context.config.extract.query_types
    query_types = most_agreed(await lists.collect("query_types", wanted), wanted)
    _check(context, lists, "query types", len(query_types), wanted)
    for ordinal, (key, item) in enumerate(query_types.items()):
        context.store.add(
            "query_type",
            query_type_id=stable_id("query_type", key),
            name=item.name,
            definition=item.definition,
            ordinal=ordinal,
            turn_id=item.turn_id,
        )


def _check(context: Context, lists: Lists, what: str, found: int, wanted: int) -> None:
    """None at all ends the stage; fewer than wanted is a warning, and it goes on."""
    if not found:
        raise extract_seeds.nothing_read(f"the teacher listed no {what}", lists.unread)
    if found < wanted:
        context.warn("extract", f"{found} of the {wanted} {what} wanted were found")
