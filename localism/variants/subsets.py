"""Parts of a set or of an instruction file: the longest answers, a random sample, disjoint splits.

The longest answers of Alpaca are a strong baseline, a random sample the plain one (paper, table 2);
disjoint splits of the run's own data show how much the draw of the skills matters (appendix F).
"""

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from localism.config import SeedSource
from localism.context import Context
from localism.errors import UsageError
from localism.paths import embedded
from localism.seeds.files import read, reservoir
from localism.stages.curate import token_counter
from localism.tables import number_of
from localism.variants.sets import Asked, SetExample, is_set, no_source, source_examples


def longest(context: Context, asked: Asked) -> list[SetExample]:
    """The examples with the longest answers, in tokens of the student; the earlier of equals."""
    count = token_counter(embedded(context.config.student.path))
    lengths = (
        (count(example.response or ""), -place, example)
        for place, example in enumerate(_all(context, asked))
    )
    found = heapq.nlargest(asked.settings["n"], lengths, key=lambda one: one[:2])
    return _enough([one[2] for one in sorted(found, key=lambda one: -one[1])], asked)


def random(context: Context, asked: Asked) -> list[SetExample]:
    """A seeded sample, in the source's order."""
    draw = Random(f"random subset {asked.settings['seed']}")
    drawn = reservoir(enumerate(_all(context, asked)), asked.settings["n"], draw)
    return _enough([example for _, example in sorted(drawn, key=lambda one: one[0])], asked)


def split(context: Context, asked: Asked) -> list[SetExample]:
    """Part `number` of `parts` equal ones, drawn with a seed; no example is in two of them."""
    examples = source_examples(context, asked.source)
    parts, number = asked.settings["parts"], asked.settings["number"]
    size = len(examples) // parts
    if not size:
        raise UsageError(
            f"{number_of(len(examples), 'example')} cannot be split into {parts}",
            where="--splits",
            fix=f"at most {len(examples)}",
        )
    order = list(range(len(examples)))
    Random(f"splits {asked.settings['seed']}").shuffle(order)
    return [examples[index] for index in sorted(order[(number - 1) * size : number * size])]


def _all(context: Context, asked: Asked) -> Iterable[SetExample]:
    if is_set(context.store, asked.source):
        return source_examples(context, asked.source)
    if not Path(asked.source).exists():
        raise no_source(context.store, asked.source)
    return _of_file(asked.source)


def _of_file(path: str) -> Iterator[SetExample]:
    """Rows of an instruction file; those without a response are no examples to train on."""
    for row in read(SeedSource(path=path)):
        if row.response and row.response.strip():
            yield SetExample(row.instruction, row.response)


def _enough(examples: list[SetExample], asked: Asked) -> list[SetExample]:
    if len(examples) < asked.settings["n"]:
        raise UsageError(
            f"{asked.source} has {number_of(len(examples), 'example')} with a response, not"
            f" {asked.settings['n']:,}",
            where="--from",
            fix="ask for fewer, or name a larger file",
        )
    return examples
