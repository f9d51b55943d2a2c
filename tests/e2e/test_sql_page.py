"""Every query of docs/sql.md on a finished run, and its ablations where trainings were compared."""

import subprocess

import pytest
import sql_page
from pipeline import command

from localism import reader

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # the first test pays for a whole run

# What the small run has none of: its three dozen examples are all accepted or all fresh, no other
# training was measured, no benchmark was run.
MAY_BE_EMPTY = (
    "never survive", "several ways", "Which gate removes", "each junk row", "clusters of skills",
    "clusters are all but empty", "which examples were drawn", "skill_rejections",
    "cluster_coverage",
)  # fmt: skip
BENCHMARKS = ("evaluations", "suite", "judge_check", "benchmark", "categories", "judge be trusted")


def test_every_query_of_the_page_runs_with_its_columns_and_has_rows_where_the_page_has(finished):
    empty = []
    for query in sql_page.queries():
        table = reader.read(finished.folder, query.sql)
        if query.columns is not None:
            assert table.columns == query.columns, query.title
        if query.rows and not table.rows:
            empty.append(query.title)
    allowed = (*MAY_BE_EMPTY, *BENCHMARKS)
    assert [title for title in empty if not any(part in title for part in allowed)] == []


def test_the_examples_of_a_finished_run_are_counted_in_tokens_of_the_student(finished):
    rows = reader.read(finished.folder, "FROM dataset_stats").as_dicts()
    assert {row["split"] for row in rows} == {"train", "dev", "test"}
    for row in rows:
        assert 1 < row["instruction_tokens"] < row["instruction_characters"]
        assert row["instruction_tokens"] < row["response_tokens"] < row["response_characters"]


def test_a_copy_for_the_ui_holds_what_the_run_holds(finished, tmp_path):
    from localism.duckdb_ui import copy_corpus

    (tmp_path / "copy").mkdir()
    copy_corpus(finished.folder, tmp_path / "copy" / reader.CORPUS)
    count = "SELECT table_name, estimated_size FROM duckdb_tables() WHERE NOT internal ORDER BY ALL"
    own, copied = (
        reader.read(folder, count).rows for folder in (finished.folder, tmp_path / "copy")
    )
    assert own == copied
    for view in ("books", "lineage", "checkpoint_curve", "example_cost", "tokens"):
        sql = f"FROM {view} ORDER BY ALL"
        assert reader.read(tmp_path / "copy", sql) == reader.read(finished.folder, sql)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_a_user_looks_at_fits_the_terminal(finished, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for arguments in (
        ("sql", "SELECT * FROM turn LIMIT 2"),
        ("sql", "SELECT * FROM candidate LIMIT 9"),
        ("sql", "FROM checkpoint_curve"),
        ("skills",),
        ("compare",),
        ("status",),
    ):
        done = subprocess.run(command(finished.folder, *arguments), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        if arguments[0] == "status":
            lines = lines[lines.index("books") :]  # a stage's own summary is a sentence
        assert max(map(len, lines)) <= width, max(lines, key=len)
