"""Ablations and damage on a copy of the whole run, by the commands that a user types."""

import json
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest
import sql_page
from pipeline import LIMIT_SECONDS, command

from localism import reader

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # the first test pays for a whole run


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copied") / "runs" / "copy"
    shutil.copytree(finished.folder, folder)
    return folder


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *arguments), capture_output=True, text=True, timeout=LIMIT_SECONDS
    )


def test_a_variant_is_trained_picked_and_measured_beside_the_runs_own(copied):
    own = reader.read(copied, "FROM score WHERE split = 'test' ORDER BY ALL").rows
    for arguments in (
        ("variant", "--kind", "brevity", "--share", "0.5"),
        ("train", "--on", "brevity-50", "--seed", "3"),
        ("pick", "--on", "brevity-50", "--seed", "3"),
        ("evaluate", "--on", "brevity-50", "--seed", "3"),
    ):
        done = call(copied, *arguments, *([] if arguments[0] == "variant" else ["--plain"]))
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    name = "brevity-50.seed3"
    found = reader.read(copied, f"SELECT path, picked FROM checkpoint WHERE training = '{name}'")
    assert sum(picked for _, picked in found.rows) == 1
    assert all(path.startswith(f"trainings/{name}/checkpoints/epoch-") for path, _ in found.rows)
    assert all((copied / path / "model.safetensors").exists() for path, _ in found.rows)
    scores = reader.read(
        copied,
        "SELECT metric, n FROM score JOIN checkpoint ON checkpoint_id = model_id"
        f" WHERE training = '{name}' AND split = 'test'",
    )
    assert {"win_rate", "lc_win_rate", "preference_gain"} <= {metric for metric, _ in scores.rows}
    # The run's own results, and what its report shows, are what they were.
    still = "FROM score WHERE split = 'test' AND NOT contains(model_id, '/') ORDER BY ALL"
    assert reader.read(copied, still).rows == own
    books = reader.read(
        copied, "FROM books WHERE pending > 0 OR planned <> accepted + rejected + failed"
    )
    assert books.rows == []


def test_trainings_of_runs_are_compared_prompt_by_prompt_and_fill_the_papers_tables(
    copied, finished
):
    name = "brevity-50.seed3"
    done = call(copied, "compare", "main", name, str(finished.folder), "--json")
    own, brief, other = json.loads(done.stdout)
    assert (own["difference"], own["k"], own["set"]) == (None, 2.0, "accepted")
    assert brief["basis"] == other["basis"] == "paired by prompt"
    assert brief["prompts"] == own["prompts"] == other["prompts"]
    assert other["difference"] == other["difference_low"] == other["difference_high"] == 0.0
    assert brief["difference_low"] <= brief["difference"] <= brief["difference_high"]
    (row,) = reader.read(copied, f"FROM ablations WHERE training = '{name}'").as_dicts()
    assert round(row["difference"], 1) == brief["difference"] and row["compared_with"] == "main"
    table = json.loads(call(copied, "compare", "--table", "6", "--json").stdout)["table 6"]
    assert [(one["kind"], one["share"]) for one in table] == [("accepted", None), ("brevity", 0.5)]
    lengths = reader.read(
        copied,
        "SELECT set_name, response_tokens, response_characters FROM dataset_stats"
        " WHERE split = 'train' ORDER BY set_name",
    ).rows
    assert [row[0] for row in lengths] == ["accepted", "brevity-50"]
    assert lengths[1][1] < lengths[0][1] and lengths[1][2] < lengths[0][2]  # a half is brief
    for query in sql_page.queries():
        if "ablation" in query.sql and query.title != "ablation_splits":
            assert reader.read(copied, query.sql).rows or "splits" in query.sql


def test_a_set_that_does_not_exist_is_named_with_those_that_do(copied):
    refused = call(copied, "train", "--on", "brevty-50")
    assert refused.returncode == 2
    assert "error: there is no training set 'brevty-50'" in refused.stderr
    assert "accepted, brevity-50" in refused.stderr


def test_run_all_ends_with_an_error_when_rows_are_missing(copied):
    with duckdb.connect(str(copied / "corpus.duckdb")) as corpus:
        corpus.execute("DELETE FROM candidate WHERE mix_id = (SELECT min(mix_id) FROM candidate)")
    refused = call(copied, "run-all", "--plain")
    assert refused.returncode == 5
    assert "error: the books of generate do not balance" in refused.stderr
    assert "1 pending" in refused.stderr
