"""Examples of the corpus with where each came from, page by page.

Read through a function that takes SQL and returns rows: the open corpus of a stage, or a reader
from outside, also while the run is working.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from localism.compare import Read
from localism.config import Config
from localism.errors import UsageError
from localism.paths import shown
from localism.records import Split
from localism.training.sets import ACCEPTED

Row = dict[str, Any]
PAGE = 10_000  # each page reads the keys of all candidates once, and its own texts
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
PROVENANCE = (
    "mix_id",
    "skills",
    "clusters",
    "query_type",
    "sources",
    "teacher",
    "teacher_fingerprint",
    "prompt_pack",
    "prompt_pack_fingerprint",
    "licence",
)
"""Columns that every row has beside its text."""
LISTS = ("skills", "clusters", "sources")


@dataclass(frozen=True)
class TrainingSet:
    """A set of examples by name, and what it was made from."""

    name: str
    """accepted, or one of table training_set."""
    kind: str = ""
    """brevity, junk, longest, ...; empty for accepted."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What it was made with."""
    source: "TrainingSet | None" = None
    """The set that it was made from; None for accepted and for a set from a file."""
    file: str = ""
    """The file that it was made from."""

    def ancestry(self) -> list["TrainingSet"]:
        """What it was made from, oldest first, and itself."""
        return [*(self.source.ancestry() if self.source else []), self]

    def described(self) -> str:
        """For instance 'brevity of accepted (seed 0, share 0.2)'."""
        if not self.kind:
            return "the examples that the run accepted"
        made_of = self.source.name if self.source else shown(self.file)
        told = {key: shown(str(value)) for key, value in self.settings.items()}
        settings = ", ".join(f"{key} {value}" for key, value in told.items())
        return f"{self.kind} of {made_of}" + (f" ({settings})" if settings else "")


def training_set(read: Read, name: str) -> TrainingSet:
    """A set with its ancestry; UsageError names the sets there are."""
    if name == ACCEPTED:
        return TrainingSet(ACCEPTED)
    known = {row["set_name"]: row for row in read("SELECT * FROM training_set ORDER BY ALL")}
    if name not in known:
        raise UsageError(
            f"there is no training set {name!r}",
            where="table training_set",
            fix=f"name one of: {', '.join([ACCEPTED, *known])}",
        )
    row = known[name]
    is_set = row["source"] == ACCEPTED or row["source"] in known
    return TrainingSet(
        name,
        row["kind"],
        json.loads(row["settings"]),
        training_set(read, row["source"]) if is_set else None,
        "" if is_set else row["source"],
    )


def quoted(text: str) -> str:
    """As a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


# ---- pages ---------------------------------------------------------------------------------

# The page is cut before its texts and its skills are looked up: otherwise those of all examples
# are, each time.
_ACCEPTED = """
WITH cut AS MATERIALIZED (
    SELECT m.ordinal, m.mix_id, m.query_type_id, c.rowid AS place
    FROM candidate c JOIN mix m USING (mix_id)
    WHERE c.status = 'accepted' AND m.split = {split} AND m.ordinal > {after}
    ORDER BY m.ordinal LIMIT {most}
), page AS MATERIALIZED (
    SELECT cut.* EXCLUDE (place), c.instruction, c.response, c.turn_id, {tokens}
    FROM cut JOIN candidate c ON c.rowid = cut.place
), shown AS (
    SELECT ms.mix_id, list(s.name ORDER BY ms.position) AS skills
    FROM mix_skill ms JOIN skill s USING (skill_id) WHERE ms.mix_id IN (SELECT mix_id FROM page)
    GROUP BY ms.mix_id
)
SELECT page.* EXCLUDE (query_type_id), q.name AS query_type, skills
FROM page LEFT JOIN shown USING (mix_id) LEFT JOIN query_type q USING (query_type_id)
ORDER BY ordinal
"""
_OF_SET = """
SELECT e.ordinal, e.mix_id, e.instruction, e.response, q.name AS query_type, e.turn_id, {tokens},
       e.skills, t.model_fingerprint
FROM set_example e LEFT JOIN mix m USING (mix_id) LEFT JOIN query_type q USING (query_type_id)
LEFT JOIN turn t ON t.turn_id = e.turn_id
WHERE e.set_name = {name} AND e.status = 'accepted' AND e.ordinal > {after}
ORDER BY e.ordinal LIMIT {most}
"""


def pages(read: Read, chosen: TrainingSet, split: Split) -> Iterator[list[Row]]:
    """Rows of a set (dev and test: of the run) in its order, some thousands at a time.

    instruction, response, instruction_tokens and response_tokens (None where nobody counted them),
    query_type, skills, mix_id, turn_id.
    """
    of_run = split != "train" or chosen.name == ACCEPTED
    table = "candidate" if of_run else "set_example"
    names = ("instruction_tokens", "response_tokens")
    there = columns(read, table)
    tokens = ", ".join(f"{name if name in there else 'NULL'} AS {name}" for name in names)
    after = -1
    while True:
        sql = (_ACCEPTED if of_run else _OF_SET).format(
            tokens=tokens, split=quoted(split), name=quoted(chosen.name), after=after, most=PAGE
        )
        rows = read(sql)
        if rows:
            yield rows
            after = rows[-1]["ordinal"]
        if len(rows) < PAGE:
            return


def columns(read: Read, table: str) -> set[str]:
    """The columns of a table; empty for one that a corpus of an earlier version lacks."""
    rows = read(f"SELECT column_name FROM duckdb_columns() WHERE table_name = {quoted(table)}")
    return {row["column_name"] for row in rows}


# ---- provenance ----------------------------------------------------------------------------

_SKILLS = """
SELECT s.name, any_value(cl.name) AS cluster,
       list(DISTINCT e.source ORDER BY e.source) FILTER (e.source IS NOT NULL) AS sources
FROM skill s JOIN cluster cl USING (cluster_id)
LEFT JOIN skill_label l USING (skill_id) LEFT JOIN seed_example e USING (seed_id)
GROUP BY s.name
"""


class Provenance:
    """Where the rows of a set came from, by mix."""

    def __init__(self, read: Read, config: Config, chosen: TrainingSet, licence: str) -> None:
        self._skills = {row["name"]: row for row in read(_SKILLS)}
        self._chosen, self._licence = chosen, licence
        assets = {row["role"]: row for row in read("SELECT role, path, fingerprint FROM asset")}
        pack = assets.get("prompts", {})
        self._pack = (shown(pack.get("path", config.prompts.pack)), pack.get("fingerprint"))
        teacher = shown(config.teacher.path or assets.get("teacher", {}).get("path", ""))
        self._writers: dict[str, tuple[str, str]] = {}
        for name, sql in _writing(chosen, teacher):
            self._last = name
            for row in read(sql):
                self._writers[row["mix_id"]] = (name, row["model_fingerprint"])

    def of(self, row: Row) -> Row:
        """The columns PROVENANCE of a row of pages()."""
        known = [self._skills[name] for name in row["skills"] or () if name in self._skills]
        sources = {source for skill in known for source in skill["sources"] or ()}
        file = next((one.file for one in self._chosen.ancestry() if one.file), "")
        if row["mix_id"] is None and file:
            sources = {shown(file)}
        teacher, fingerprint = self._writers.get(row["mix_id"], (None, None))
        if written := row.get("model_fingerprint"):  # for this very set, also of a file's rows
            teacher, fingerprint = self._last, written
        pack, pack_fingerprint = self._pack if teacher else (None, None)
        values = (
            row["mix_id"],
            row["skills"] or [],
            [skill["cluster"] for skill in known],
            row["query_type"],
            sorted(sources),
            teacher,
            fingerprint,
            pack,
            pack_fingerprint,
            self._licence,
        )
        return dict(zip(PROVENANCE, values, strict=True))


def _writing(chosen: TrainingSet, teacher: str) -> Iterator[tuple[str, str]]:
    """(teacher, query for mix_id and model_fingerprint), from the oldest set to the chosen one.

    Each later set overrides what it wrote anew; what it took over keeps its writer.
    """
    yield (
        teacher,
        "SELECT c.mix_id, t.model_fingerprint FROM candidate c JOIN turn t USING (turn_id)"
        " WHERE c.status = 'accepted'",
    )
    for one in chosen.ancestry():
        teacher = shown(one.settings.get("teacher") or "") or teacher
        if one.kind:
            yield (
                teacher,
                "SELECT e.mix_id, t.model_fingerprint FROM set_example e JOIN turn t"
                f" USING (turn_id) WHERE e.mix_id IS NOT NULL AND e.set_name = {quoted(one.name)}",
            )
