"""A training set of a run -> a folder that datasets.load_dataset reads, with its card."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

from localism.compare import Read
from localism.config import Config
from localism.errors import StageError, UsageError
from localism.export.rows import Provenance, Row, TrainingSet, pages
from localism.export.shapes import writers
from localism.licences import NO_LICENCE, Licence, find, of_role, of_seeds
from localism.paths import embedded
from localism.records import Split

# Kinds of sets for which a teacher writes; the others choose among what is there.
WRITTEN = ("brevity", "junk", "k", "teacher")


@dataclass
class Lengths:
    """Of one kind of text, in characters or tokens."""

    values: list[int] = field(default_factory=list)
    """One a text."""
    missing: int = 0
    """Texts that nobody counted."""

    def add(self, value: int | None) -> None:
        """Another text's length."""
        if value is None:
            self.missing += 1
        else:
            self.values.append(value)

    def of(self, measure: Callable[[list[int]], float]) -> float | None:
        """A measure of the lengths; None where any is missing, for it would be of the others."""
        return None if self.missing or not self.values else measure(self.values)


@dataclass
class Statistics:
    """What a split holds."""

    split: Split
    """train, dev or test."""
    examples: int = 0
    """Rows."""
    instruction_characters: Lengths = field(default_factory=Lengths)
    response_characters: Lengths = field(default_factory=Lengths)
    instruction_tokens: Lengths = field(default_factory=Lengths)
    response_tokens: Lengths = field(default_factory=Lengths)
    skills: set[str] = field(default_factory=set)
    clusters: set[str] = field(default_factory=set)
    query_types: set[str] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """Count a row of pages() with its provenance."""
        self.examples += 1
        self.instruction_characters.add(len(row["instruction"]))
        self.response_characters.add(len(row["response"]))
        self.instruction_tokens.add(row["instruction_tokens"])
        self.response_tokens.add(row["response_tokens"])
        self.skills.update(row["skills"])
        self.clusters.update(row["clusters"])
        self.query_types.update([row["query_type"]] if row["query_type"] else [])

    def as_facts(self) -> Row:
        """Plain values, for a card and for --json; lengths are mean and median, tokens also sum."""
        facts: Row = {"split": self.split, "examples": self.examples}
        for name in ("instruction_characters", "response_characters", "instruction_tokens",
                     "response_tokens"):  # fmt: skip
            lengths: Lengths = getattr(self, name)
            facts |= {name: lengths.of(fmean), f"{name}_median": lengths.of(median)}
            facts[f"{name}_sum"] = lengths.of(sum)
        for name in ("skills", "clusters", "query_types"):
            facts[name] = len(getattr(self, name))
        return facts


def write(
    folder: Path,
    read: Read,
    config: Config,
    chosen: TrainingSet,
    licence: Licence,
    forms: Sequence[str],
    kinds: Sequence[str],
    splits: Sequence[Split],
) -> list[Row]:
    """Write the examples in every shape and kind of file; returns the facts of each split.

    A split without examples gets no file, for loaders refuse empty ones, and has no facts. Raises
    StageError when no split has any.
    """
    provenance = Provenance(read, config, chosen, licence.card_id)
    facts = []
    for split in splits:
        statistics = Statistics(split)
        batches = pages(read, chosen, split)
        first = next(batches, None)
        if first is None:
            continue
        with writers(folder, forms, kinds, split) as put:
            for page in (first, *batches):
                rows = [{**row, **provenance.of(row)} for row in page]
                for row in rows:
                    statistics.add(row)
                put(rows)
        facts.append(statistics.as_facts())
    if not facts:
        raise StageError(
            "there is no accepted example to export",
            where=f"training set {chosen.name}, {', '.join(splits)}",
            fix='see why: localism sql "FROM rejections"',
        )
    return facts


def require_curated(read: Read, run: str) -> None:
    """UsageError until the run has decided which examples it accepts."""
    rows = read(
        "SELECT kind FROM event WHERE stage = 'curate'"
        " AND kind IN ('stage_finished', 'stage_reopened') ORDER BY happened_at DESC LIMIT 1"
    )
    if not rows or rows[0]["kind"] != "stage_finished":
        raise UsageError(
            "the examples of this run have not been curated yet",
            where=f"--run {run}",
            fix=f"localism curate --run {run}",
        )


def parents(config: Config, chosen: TrainingSet) -> dict[str, Licence]:
    """The licences of what the examples of a set come from, by name.

    The run's teacher and its seed data, unless all of it is from a file; such files; and other
    teachers that wrote for the set or for those before it.
    """
    ancestry = chosen.ancestry()
    files = [one.file for one in ancestry if one.file]
    teachers = [str(one.settings["teacher"]) for one in ancestry if one.settings.get("teacher")]
    found: dict[str, Licence] = {}
    if not files or any(one.kind in WRITTEN for one in ancestry):
        found |= {"teacher": of_role(config, "teacher"), **of_seeds(config)}
    for file in files:
        found[f"file {file}"] = find(Path(file), "seeds")
    for teacher in teachers:
        is_served = teacher.startswith(("http://", "https://"))
        licence = NO_LICENCE if is_served else find(embedded(teacher), "teacher")
        found[f"teacher {teacher}"] = licence
    return found
