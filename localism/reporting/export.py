"""The data set as files: accepted examples -> JSONL, Parquet and a dataset card."""

import json
import os
from pathlib import Path
from typing import Any

from localism.store import Store

COLUMNS = ("mix_id", "split", "instruction", "response", "skills", "clusters", "query_type")
_EXAMPLES = """
SELECT m.mix_id, m.split, c.instruction, c.response,
       list(s.name ORDER BY ms.position) AS skills, list(cl.name ORDER BY ms.position) AS clusters,
       any_value(q.name) AS query_type
FROM candidate c JOIN mix m USING (mix_id) JOIN mix_skill ms USING (mix_id)
JOIN skill s USING (skill_id) JOIN cluster cl USING (cluster_id)
LEFT JOIN query_type q USING (query_type_id)
WHERE c.status = 'accepted'
GROUP BY m.mix_id, m.split, m.ordinal, c.instruction, c.response
ORDER BY m.ordinal
"""


def write(store: Store, folder: Path, card: str) -> dict[str, int]:
    """Write export/SPLIT.jsonl, SPLIT.parquet and README.md; returns examples a split.

    Files appear whole or not at all: each is written beside its place and renamed.
    """
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    examples = store.query(_EXAMPLES)
    counts = {}
    for split in ("train", "dev", "test"):
        rows = [row for row in examples if row["split"] == split]
        counts[split] = len(rows)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        replace(folder / f"{split}.jsonl", lines)
        table = pyarrow.Table.from_pylist(rows, schema=_schema(pyarrow))
        temporary = folder / f"{split}.parquet.new"
        pyarrow.parquet.write_table(table, temporary)
        os.replace(temporary, folder / f"{split}.parquet")
    replace(folder / "README.md", card)
    return counts


def _schema(pyarrow: Any) -> Any:
    text, texts = pyarrow.string(), pyarrow.list_(pyarrow.string())
    return pyarrow.schema(
        [(name, texts if name in ("skills", "clusters") else text) for name in COLUMNS]
    )


def replace(path: Path, text: str) -> None:
    """Write a text file so that a reader never sees half of it."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    os.replace(temporary, path)
