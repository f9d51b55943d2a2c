"""A corpus of millions of turns for benchmarks/scale.py: rows of real sizes, made cheaply.

Texts are slices of one long random text whose words are as unequally frequent as those of a
language (Zipf), so that a compressor finds about what it finds in prose. Prompts are the lengths of
pack lean. Ids are scattered like the hashes that they stand for.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from localism.config import Config
from localism.models_toml import load
from localism.prompting.packs import packaged
from localism.recipe import write_recipe
from localism.store import WRITING, Store, attached

TURNS_EACH = 5
"""Of a conversation: draft, rewrite, critique, refine, rewrite."""
K, SKILLS, SKILLS_A_CLUSTER = 3, 5_000, 4
GATES = 13
"""Verdicts of an example, as in the default run."""
BLOB_BYTES, VOCABULARY = 64_000_000, 30_000
BULK, MADE, COPIED_AT_ONCE = 8_000, 200_000, 50_000
TEMPLATES = {"draft": 829, "rewrite": 400, "critique": 318, "refine": 488, "rewrite2": 400}
"""Characters of what does not change in a prompt."""
SHORTEST, LONGEST, MEDIAN = 500, 2_000, 1_000
START = datetime(2026, 3, 2)
SCATTER = 0x9E3779B97F4A7C15


def blob() -> str:
    """The long text, the same each time."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlcumwfgypb"))
    words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 11, VOCABULARY)]
    share = 1 / np.arange(1, VOCABULARY + 1)
    drawn = rng.choice(VOCABULARY, BLOB_BYTES // 5, p=share / share.sum())
    return " ".join([words[place] for place in drawn])[:BLOB_BYTES]


def scattered(kind: int, number: int) -> str:
    """Sixteen hex digits, a different one for each number: no order, like a hash."""
    return f"{(number * SCATTER + kind) % 2**64:016x}"


def scattered_sql(kind: int, number: str) -> str:
    """The same in SQL."""
    product = f"(({number})::HUGEINT * {SCATTER} + {kind}) % 18446744073709551616::HUGEINT"
    return f"lpad(lower(to_hex(({product})::UBIGINT)), 16, '0')"


MIX, TURN = 1, 2


class Maker:
    """Rows of turns and candidates, one after the other."""

    def __init__(self) -> None:
        self._blob, self._rng = blob(), np.random.default_rng(1)
        self._constant = {name: self._slice(size) for name, size in TEMPLATES.items()}

    def _slice(self, size: int) -> str:
        start = int(self._rng.integers(BLOB_BYTES - size))
        return self._blob[start : start + size]

    def conversations(self, first: int, last: int) -> Iterator[tuple[list[Any], dict[str, Any]]]:
        """(turn rows, candidate row) of the mixes with these ordinals."""
        sizes = np.clip(
            self._rng.lognormal(np.log(MEDIAN), 0.5, (last - first, TURNS_EACH)), SHORTEST, LONGEST
        ).astype(int)
        for row, mix in enumerate(range(first, last)):
            turns = [self._turn(mix, place, int(sizes[row, place])) for place in range(TURNS_EACH)]
            yield turns, self._candidate(mix, turns[-1])

    def _turn(self, mix: int, place: int, size: int) -> dict[str, Any]:
        number = mix * TURNS_EACH + place
        name = list(TEMPLATES)[place]
        text, varying = self._slice(size), self._slice(90) if place == 0 else ""
        return {
            "turn_id": scattered(TURN, number),
            "parent_id": scattered(TURN, number - 1) if place else None,
            "stage": "generate",
            "role": "teacher",
            "template": name,
            "prompt": self._constant[name] + varying,
            "prompt_hash": scattered(3, number),
            "model_fingerprint": "70a1c5f2e9b84d37",
            "sampling": '{"max_tokens": 1024, "temperature": 0.7, "top_p": 1.0}',
            "sample": 0,
            "text": text,
            "logprobs": None,
            "finish_reason": "stop",
            "prompt_tokens": 250 + 400 * place,
            "completion_tokens": size // 5,
            "seconds": size / 200,
            "finished_at": START + timedelta(seconds=0.02 * number),
        }

    def _candidate(self, mix: int, last: dict[str, Any]) -> dict[str, Any]:
        is_out = mix % 17 == 0
        cut = len(last["text"]) // 4
        return {
            "mix_id": scattered(MIX, mix),
            "instruction": last["text"][:cut],
            "response": last["text"][cut:],
            "status": "rejected" if is_out else "accepted",
            "reason": "complete: as it was made" if is_out else None,
            "turn_id": last["turn_id"],
            "completion_tokens": 5 * last["completion_tokens"],
            "instruction_tokens": cut // 5,
            "response_tokens": (len(last["text"]) - cut) // 5,
        }


def bulk(corpus: Path, maker: Maker, first: int, last: int) -> None:
    """Conversations written quickly, past the store; beyond MADE with the texts of the first ones.

    A compressor sees a hundred thousand rows at a time, and no two copies of a text among them.
    """
    import pyarrow

    def insert(connection: Any, table: str, rows: list[dict[str, Any]]) -> None:
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        connection.register("batch", pyarrow.table(columns))
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM batch")

    with attached(corpus=(corpus, WRITING)) as connection:
        for start in range(first, min(last, MADE), BULK):
            made = list(maker.conversations(start, min(start + BULK, last, MADE)))
            insert(connection, "turn", [turn for turns, _ in made for turn in turns])
            insert(connection, "candidate", [candidate for _, candidate in made])
        for start in range(max(first, MADE), last, COPIED_AT_ONCE):
            for sql in copied(start, min(COPIED_AT_ONCE, last - start)):
                connection.execute(sql)


def copied(first: int, count: int) -> Iterator[str]:
    """SQL for so many conversations from `first` on, with the texts of those MADE at most."""
    origin = first % MADE
    turns = f"""
        SELECT *, (epoch_us(finished_at) - epoch_us(TIMESTAMP '{START}')) // 20000
                  + {TURNS_EACH * (first - origin)} AS number
        FROM turn WHERE finished_at >= TIMESTAMP '{START}' + to_microseconds({100_000 * origin})
          AND finished_at < TIMESTAMP '{START}' + to_microseconds({100_000 * (origin + count)})
    """
    mix = f"(number // {TURNS_EACH})"
    yield f"""
        INSERT INTO turn BY NAME SELECT * EXCLUDE (number) REPLACE (
            {scattered_sql(TURN, "number")} AS turn_id,
            CASE WHEN number % {TURNS_EACH} > 0 THEN {scattered_sql(TURN, "number - 1")} END
                AS parent_id,
            {scattered_sql(3, "number")} AS prompt_hash,
            TIMESTAMP '{START}' + to_microseconds(20000 * number) AS finished_at) FROM ({turns})
    """
    yield f"""
        INSERT INTO candidate BY NAME SELECT {scattered_sql(MIX, mix)} AS mix_id,
            text[:len(text) // 4] AS instruction, text[len(text) // 4 + 1:] AS response,
            CASE WHEN {mix} % 17 = 0 THEN 'rejected' ELSE 'accepted' END AS status,
            CASE WHEN {mix} % 17 = 0 THEN 'complete: as it was made' END AS reason,
            {scattered_sql(TURN, "number")} AS turn_id, 5 * completion_tokens AS completion_tokens,
            len(text) // 20 AS instruction_tokens, 3 * len(text) // 20 AS response_tokens
        FROM ({turns}) WHERE number % {TURNS_EACH} = {TURNS_EACH - 1}
    """


def config() -> Config:
    """The built-in recipe: what is measured reads no model."""
    return load(packaged("models.toml"), ())


def begin(folder: Path) -> None:
    """A run folder with skills, query types and scores, and no mix yet."""
    folder.mkdir(parents=True)
    write_recipe(folder, packaged("models.toml"), (), config())
    with Store(folder / "corpus.duckdb") as store:
        add_run(store)
        add_skills(store, SKILLS)


def add_run(store: Store) -> None:
    """The run's own row, its assets, and finished stages."""
    recipe = config()
    store.add(
        "run", run_id="r", name="scale", created_at=START, version="0", rehearsal=True,
        recipe=recipe.model_dump_json(), recipe_hash=recipe.recipe_hash(),
    )  # fmt: skip
    for role in ("teacher", "student", "embedder"):
        store.add("asset", asset_id=role, role=role, path=f"embedded:{role}", fingerprint=role)
    for stage in ("extract", "cluster", "mix", "generate", "curate"):
        store.event("stage_started", stage)
        store.event("stage_finished", stage, summary="made")


def add_skills(store: Store, count: int) -> None:
    """So many skills in clusters of four, each with its label."""
    words = "printf('%02d_of_skill_%07d', i % 97, i)"
    cluster = f"'c' || (i // {SKILLS_A_CLUSTER})"
    store.execute(
        f"INSERT INTO skill SELECT 's' || i, {words}, {cluster}, false, 1, 0, 1.0, i % 90, i % 71"
        f" FROM range({count}) t(i)"
    )
    store.execute(
        f"INSERT INTO cluster SELECT {cluster}, {words}, {words}, {SKILLS_A_CLUSTER}, 1.0, NULL"
        f" FROM range(0, {count}, {SKILLS_A_CLUSTER}) t(i)"
    )
    store.execute(
        f"INSERT INTO skill_label BY NAME SELECT 'l' || i AS label_id, {words} AS raw,"
        f" {words} AS name, 's' || i AS skill_id, 'sda' AS source FROM range({count}) t(i)"
    )
    store.execute(
        "INSERT INTO query_type SELECT 'q' || i, 'type_' || i, NULL, i, NULL FROM range(8) t(i)"
    )


def add_plan(store: Store, first: int, last: int) -> None:
    """Mixes with their skills and verdicts, in SQL: only turns and candidates are measured."""
    mix = scattered_sql(MIX, "i")
    split = "CASE WHEN i < 200 THEN 'test' WHEN i < 400 THEN 'dev' ELSE 'train' END"
    store.execute(
        f"INSERT INTO mix SELECT {mix}, i, {K}, 'q' || (i % 8), {split}, false"
        f" FROM range({first}, {last}) t(i)"
    )
    # Strides that are prime to each other: every skill as often, pairs seldom twice.
    skill = f"'s' || ((i * (1 + 2 * p) + p * 1709 + (i // {SKILLS}) * p * 37) % {SKILLS})"
    store.execute(
        f"INSERT OR IGNORE INTO mix_skill SELECT {mix}, p, {skill}"
        f" FROM range({first}, {last}) t(i), range({K}) u(p)"
    )
    store.execute(
        f"INSERT INTO verdict SELECT {mix}, 'gate_' || g, NOT (i % 17 = 0 AND g = {GATES - 1}),"
        f" CASE WHEN i % 17 = 0 AND g = {GATES - 1} THEN 'complete: as it was made' END,"
        f" (i * 31 % 1000) / 1000 FROM range({first}, {last}) t(i), range({GATES}) u(g)"
    )
