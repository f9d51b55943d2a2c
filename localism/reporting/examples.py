"""Examples to read: accepted and rejected ones with their lineage, and answers side by side."""

from typing import Any

from localism.store import Row, Store

ACCEPTED_SHOWN = 24
REJECTED_SHOWN = 3  # of each gate
LONGEST = 4000  # characters of one text; real answers rarely have more

# Evenly over the plan, so that no topic or early phase is favoured.
_ACCEPTED = """
WITH placed AS (
    SELECT c.mix_id, c.instruction, c.response, c.turn_id, m.ordinal,
           row_number() OVER (ORDER BY m.ordinal) - 1 AS place, count(*) OVER () AS n
    FROM candidate c JOIN mix m USING (mix_id) WHERE c.status = 'accepted' AND m.split = 'train'
)
SELECT mix_id, NULL AS gate, NULL AS reason, n, instruction, response FROM placed
WHERE place = 0 OR floor(place * $most / n) > floor((place - 1) * $most / n)
ORDER BY ordinal LIMIT $most
"""

# Where nothing could be parsed, the reply itself is shown.
_REJECTED = """
WITH out AS (
    SELECT v.gate, v.reason, c.mix_id, m.ordinal, coalesce(c.instruction, '') AS instruction,
           coalesce(c.response, t.text, '') AS response,
           row_number() OVER (PARTITION BY v.gate ORDER BY m.ordinal) AS place,
           count(*) OVER (PARTITION BY v.gate) AS n
    FROM verdict v JOIN candidate c USING (mix_id) JOIN mix m USING (mix_id)
    LEFT JOIN turn t USING (turn_id)
    WHERE NOT v.passed AND c.status = 'rejected'
)
SELECT gate, n, mix_id, reason, instruction, response
FROM out WHERE place <= $most ORDER BY n DESC, gate, place
"""

_LINEAGE = """
SELECT m.mix_id, m.ordinal, m.split, m.k, q.name AS query_type,
       list({'skill': s.name, 'cluster': cl.name, 'rare': s.rare} ORDER BY ms.position) AS skills
FROM mix m JOIN mix_skill ms USING (mix_id) JOIN skill s USING (skill_id)
JOIN cluster cl USING (cluster_id) LEFT JOIN query_type q USING (query_type_id)
WHERE m.mix_id IN $ids GROUP BY ALL
"""

_TURNS = """
WITH RECURSIVE chain AS (
    SELECT c.mix_id, t.turn_id, t.parent_id, t.template, t.completion_tokens, 0 AS back
    FROM candidate c JOIN turn t USING (turn_id) WHERE c.mix_id IN $ids
    UNION ALL
    SELECT chain.mix_id, t.turn_id, t.parent_id, t.template, t.completion_tokens, back + 1
    FROM chain JOIN turn t ON t.turn_id = chain.parent_id
)
SELECT mix_id, count(*) AS turns, sum(completion_tokens)::BIGINT AS tokens,
       string_agg(template, ', ' ORDER BY back DESC) AS templates
FROM chain GROUP BY mix_id
"""

_VERDICTS = "SELECT * FROM verdict WHERE mix_id IN $ids ORDER BY passed, gate"

# Test items at the 10th, 50th and 90th percentile of the picked model's preference, so that what
# is shown is neither the best nor the worst that could be found (with a dozen items or more).
_DUELS = """
WITH judged AS (
    SELECT a.mix_id, a.text AS picked, avg(j.preference) AS preference
    FROM answer a JOIN checkpoint k ON k.checkpoint_id = a.model_id AND k.picked
     AND k.training = 'main' JOIN judgment j USING (answer_id) WHERE a.split = 'test' GROUP BY ALL
    HAVING avg(j.preference) IS NOT NULL
), placed AS (
    SELECT *, row_number() OVER (ORDER BY preference, mix_id) AS place, count(*) OVER () AS n
    FROM judged
)
SELECT p.mix_id, c.instruction, c.response AS reference, p.picked, p.preference, b.text AS base
FROM placed p JOIN candidate c USING (mix_id)
LEFT JOIN answer b ON b.mix_id = p.mix_id AND b.model_id = 'base'
WHERE place IN (greatest(1, round(0.1 * n)), greatest(1, round(0.5 * n)), round(0.9 * n))
ORDER BY place
"""


def accepted_examples(store: Store, most: int = ACCEPTED_SHOWN) -> list[Row]:
    """Accepted training examples, evenly over the plan, with their lineage."""
    return _with_lineage(store, store.query(_ACCEPTED.replace("$most", str(int(most)))))


def rejected_examples(store: Store, most: int = REJECTED_SHOWN, long: int = LONGEST) -> list[Row]:
    """The first `most` rejected examples of each gate in the plan's order, n being how many it has.

    Instruction and response are cut to `long` characters; gates with most rejections come first.
    """
    return _with_lineage(store, store.query(_REJECTED.replace("$most", str(int(most)))), long)


def duels(store: Store) -> list[Row]:
    """Test prompts with the answers of the picked model and the base, and the reference."""
    rows = store.query(_DUELS)
    for row in rows:
        for name in ("instruction", "reference", "picked", "base"):
            row[name] = _cut(row[name], LONGEST)
    return rows


def _with_lineage(store: Store, rows: list[Row], long: int = LONGEST) -> list[Row]:
    """Each row with ordinal, split, query type, skills and clusters, turns and verdicts."""
    if not rows:
        return []
    ids = ", ".join("'" + row["mix_id"].replace("'", "''") + "'" for row in rows)

    def asked(sql: str) -> list[Row]:
        return store.query(sql.replace("$ids", f"({ids})"))

    lineage = {row["mix_id"]: row for row in asked(_LINEAGE)}
    turns = {row["mix_id"]: row for row in asked(_TURNS)}
    verdicts: dict[str, list[Any]] = {}
    for verdict in asked(_VERDICTS):
        verdicts.setdefault(verdict["mix_id"], []).append(verdict)
    return [
        {
            **row,
            **lineage.get(row["mix_id"], {}),
            "instruction": _cut(row["instruction"], long),
            "response": _cut(row["response"], long),
            "turns": turns.get(row["mix_id"]),
            "verdicts": verdicts.get(row["mix_id"], []),
        }
        for row in rows
    ]


def _cut(text: str | None, long: int) -> str | None:
    return text if text is None or len(text) <= long else f"{text[:long]} …"
