"""Each of the paper's two ways to find skills carries a whole run by itself."""

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from pipeline import LIMIT_SECONDS, run_all

from localism import reader

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # the first test of each pays for a run

QUICK = ("--set", "train.epochs=1", "--set", "extract.seed_examples=40")
TABLES = {"sda": {"topic", "query_type"}, "sdd": {"seed_example"}}
DRAWN_FROM = {"sda": "skills", "sdd": "clusters"}


class Run(NamedTuple):
    """A run whose skills were found in one way."""

    method: str
    folder: Path

    def ask(self, sql: str) -> list[list[object]]:
        return reader.read(self.folder, sql).rows


@pytest.fixture(scope="module", params=["sda", "sdd"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("methods") / "runs" / request.param
    done = subprocess.run(
        run_all(folder, "--extract", request.param, *QUICK),
        capture_output=True, text=True, timeout=LIMIT_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return Run(request.param, folder)


def test_one_method_alone_reaches_the_report(whole):
    assert (whole.folder / "report.html").exists()


def test_only_the_tables_of_that_method_have_rows(whole):
    every = ("topic", "query_type", "seed_example")
    filled = {table for table in every if whole.ask(f"FROM {table} LIMIT 1")}
    assert filled == TABLES[whole.method]


def test_every_label_comes_from_that_method(whole):
    assert whole.ask("SELECT DISTINCT source FROM skill_label") == [[whole.method]]


def test_mixes_are_drawn_from_skills_of_the_model_and_from_clusters_of_seeds(whole):
    ((summary,),) = whole.ask(
        "SELECT detail->>'summary' FROM event WHERE kind = 'stage_finished' AND stage = 'mix'"
    )
    assert f"{DRAWN_FROM[whole.method]}:" in str(summary)


def test_every_seed_example_is_in_a_cluster(whole):
    assert whole.ask("FROM seed_example WHERE cluster_id IS NULL") == []
