"""Each of the paper's two ways to find skills carries a whole run by itself."""

import subprocess

import pytest
from pipeline import LIMIT_SECONDS, run_all

from localism import reader

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

QUICK = ("--set", "train.epochs=1", "--set", "extract.seed_examples=40")


@pytest.mark.parametrize(
    ("method", "tables", "unit"),
    [("sda", {"topic", "query_type"}, "skills"), ("sdd", {"seed_example"}, "clusters")],
)
def test_run_all_with_one_method_of_extraction(tmp_path, method, tables, unit):
    folder = tmp_path / "runs" / method
    done = subprocess.run(
        run_all(folder, "--extract", method, *QUICK),
        capture_output=True, text=True, timeout=LIMIT_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (folder / "report.html").exists()
    filled = {
        table
        for table in ("topic", "query_type", "seed_example")
        if reader.read(folder, f"SELECT count(*) FROM {table}").rows[0][0]
    }
    assert filled == tables
    (source,) = reader.read(folder, "SELECT DISTINCT source FROM skill_label").rows
    assert source == [method]
    summary = reader.read(
        folder,
        "SELECT detail->>'summary' FROM event WHERE kind = 'stage_finished' AND stage = 'mix'",
    ).rows[0][0]
    assert f"{unit}:" in summary
    placed = reader.read(folder, "SELECT count(*) FROM seed_example WHERE cluster_id IS NULL")
    assert placed.rows == [[0]]
