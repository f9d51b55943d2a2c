"""Why an example is what it is: its skills and their labels, every turn, every verdict."""

from pathlib import Path
from typing import Any

from localism import reader
from localism.errors import UsageError
from localism.tables import number_of


def explain(folder: Path, example: str) -> str:
    """The whole story of one example as text.

    `example` is a mix_id or an ordinal. Raises UsageError when the run has no such example.
    """
    # Tables with texts are asked by their keys alone: a join would read all of their rows.
    rows = _read(
        folder,
        "SELECT m.*, q.name AS query_type FROM mix m LEFT JOIN query_type q USING (query_type_id)"
        f" WHERE m.mix_id = '{_literal(example)}'"
        + (f" OR m.ordinal = {int(example)}" if example.isdecimal() else ""),
    )
    if not rows:
        raise UsageError(
            f"this run has no example {example!r}",
            where=str(folder),
            fix='list some: localism sql "SELECT mix_id, ordinal, split FROM mix LIMIT 10"',
        )
    mix = rows[0]
    found = _read(folder, f"SELECT * FROM candidate WHERE mix_id = '{mix['mix_id']}'")
    written = found[0] if found else {"status": None, "reason": None, "turn_id": None}
    lines = [
        f"example {mix['mix_id']}   ordinal {mix['ordinal']}   split {mix['split']}   "
        f"type {mix['query_type']}   {written['status'] or 'pending'}"
        + (f": {written['reason']}" if written["reason"] else "")
    ]
    lines += _skills(folder, mix["mix_id"]) + _turns(folder, written["turn_id"])
    lines += _verdicts(folder, mix["mix_id"]) + _answers(folder, mix["mix_id"])
    return "\n".join(lines)


def _skills(folder: Path, mix_id: str) -> list[str]:
    rows = _read(
        folder,
        "SELECT skill, cluster, count(*) AS labels, min(label) AS label, min(source) AS source "
        f"FROM lineage WHERE mix_id = '{mix_id}' GROUP BY ALL ORDER BY skill",
    )
    return [
        f"skill {row['skill']}   cluster {row['cluster']}   from {row['labels']} label(s), "
        f"for instance {row['label']!r} ({row['source']})"
        for row in rows
    ]


def _turns(folder: Path, turn_id: str | None) -> list[str]:
    rows: list[dict[str, Any]] = []
    while turn_id:
        found = _read(folder, f"SELECT * FROM turn WHERE turn_id = '{turn_id}'")
        rows = [*found, *rows]
        turn_id = found[0]["parent_id"] if found else None
    lines = []
    for row in rows:
        lines += [
            "",
            f"--- {row['template']}: {row['prompt_tokens']} + {row['completion_tokens']} "
            f"tokens, {row['seconds']:.1f}s, {row['finish_reason']}, turn {row['turn_id']}",
            row["prompt"],
            "--- reply",
            row["text"],
        ]
    return lines


def _verdicts(folder: Path, mix_id: str) -> list[str]:
    rows = _read(folder, f"SELECT * FROM verdict WHERE mix_id = '{mix_id}' ORDER BY gate")
    room = max((len(row["gate"]) for row in rows), default=0)
    return ["", "--- verdicts"] + [
        f"{row['gate']:<{room}} {'passed' if row['passed'] else 'failed'}"
        + (f"   {row['value']:.3g}" if row["value"] is not None else "")
        + (f"   {row['reason']}" if row["reason"] else "")
        for row in rows
    ]


def _answers(folder: Path, mix_id: str) -> list[str]:
    rows = _read(
        folder,
        "SELECT a.model_id, a.text, avg(j.preference) AS preference, count(j.judgment_id) AS n "
        "FROM answer a LEFT JOIN judgment j USING (answer_id) "
        f"WHERE a.mix_id = '{mix_id}' GROUP BY ALL ORDER BY a.model_id",
    )
    lines = []
    for row in rows:
        preference = "unscored" if row["preference"] is None else f"{row['preference']:.3f}"
        lines += [
            "",
            f"--- answer of {row['model_id']}, preference over the reference "
            f"{preference} from {number_of(row['n'], 'judgment')}",
            row["text"] or "(failed)",
        ]
    return lines


def _read(folder: Path, sql: str) -> list[dict[str, Any]]:
    return reader.read(folder, sql).as_dicts()


def _literal(text: str) -> str:
    return text.replace("'", "''")
