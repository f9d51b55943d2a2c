"""docs/sql.md: its queries and the results that stand under them, and all results written anew.

    python tests/sql_page.py RUN [--note "what else was done to it"]

RUN is a finished run of the built-in models with some trainings beside its own. Every query of the
part Questions, and every other one that has a result on the page, gets its result from that run.
"""

import argparse
import re
from pathlib import Path
from typing import Any, NamedTuple

from localism import reader, tables

PAGE = Path(__file__).parents[1] / "docs" / "sql.md"
MOST_ROWS, CELL_WIDTH = 10, 50
_BLOCK = re.compile(r"```sql\n(?P<sql>.*?)```\n(?:\n```text\n(?P<result>.*?)```\n)?", re.S)
_RUN = re.compile(r"<!-- run -->\n(?:[^\n]+\n)*")


class Query(NamedTuple):
    """A query of the page."""

    title: str
    """The heading that it stands under."""
    sql: str
    """As it is written."""
    columns: list[str] | None
    """Of the result that is shown; None where none is."""
    rows: int
    """How many are shown, or named as left out."""


def queries(page: str | None = None) -> list[Query]:
    """All queries, in the page's order."""
    text = PAGE.read_text() if page is None else page
    found = []
    for block in _BLOCK.finditer(text):
        title = re.findall(r"^#+ (.+)$", text[: block.start()], re.M)[-1]
        result = block["result"]
        columns = re.split(r" {2,}", result.splitlines()[0].strip()) if result else None
        rows = int(result.splitlines()[-1].split()[0].replace(",", "")) if result else 0
        found.append(Query(title, block["sql"], columns, rows))
    return found


def renewed(page: str, folder: Path, note: str = "") -> str:
    """The page with its results from this run, and the line that says which run it is."""
    questions = page.index("\n# Questions\n"), page.index("\n# Views and tables\n")

    def block(match: re.Match[str]) -> str:
        is_question = questions[0] < match.start() < questions[1]
        if match["result"] is None and not is_question:
            return match[0]
        return f"```sql\n{match['sql']}```\n\n```text\n{shown(folder, match['sql'])}```\n"

    return _RUN.sub(lambda _: f"<!-- run -->\n{described(folder, note)}\n", _BLOCK.sub(block, page))


def shown(folder: Path, sql: str) -> str:
    """A result as the page shows it: long texts cut, long tables too, and how many rows in all."""
    table = reader.read(folder, sql)
    rows = [[_short(value) for value in row] for row in table.rows[:MOST_ROWS]]
    text = tables.aligned(table.columns, rows)
    text += "...\n" if len(table.rows) > MOST_ROWS else ""
    return f"{text}{tables.number_of(len(table.rows), 'row')}\n"


def _short(value: Any) -> Any:
    value = ", ".join(map(str, value)) if isinstance(value, list) else value
    return tables.shortened(value, CELL_WIDTH) if isinstance(value, str) else value


def described(folder: Path, note: str) -> str:
    """Which run the results are of."""
    (run,) = reader.read(
        folder,
        "SELECT name, rehearsal, strftime(created_at, '%Y-%m-%d') AS day,"
        " recipe->>'$.seed' AS seed, (SELECT count(*) FROM skill) AS skills,"
        " (SELECT count(*) FROM mix) AS mixes FROM run",
    ).as_dicts()
    rehearsal = ": a rehearsal on the built-in models, no claim about real ones"
    return (
        f"The results on this page are of one run ({run['name']}, seed {run['seed']},"
        f" {run['skills']:,} skills, {run['mixes']:,} mixes, {run['day']})"
        f"{f', {note}' if note else ''}{rehearsal if run['rehearsal'] else ''}."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--note", default="")
    asked = parser.parse_args()
    PAGE.write_text(renewed(PAGE.read_text(), asked.run, asked.note))
