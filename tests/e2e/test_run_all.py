"""`localism run-all` from nothing to a report, on real parts and without a network."""

import json
import subprocess
import time
from pathlib import Path

import netns
import pyarrow.parquet
import pytest
from browser import Page, chromium
from pipeline import command, run_all

from localism import offline, reader
from localism.planning.work import UNITS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # the first test of each pays for a run

TABLES = [
    "run",
    "asset",
    "seed_example",
    "topic",
    "query_type",
    "skill_label",
    "skill",
    "cluster",
    "mix",
    "mix_skill",
    "turn",
    "candidate",
    "verdict",
    "checkpoint",
    "answer",
    "judgment",
    "score",
    "event",
]


def rows(folder: Path, sql: str):
    return reader.read(folder, sql).as_dicts()


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_rows(finished, table):
    assert rows(finished.folder, f"SELECT count(*) AS n FROM {table}")[0]["n"] > 0


def test_the_books_balance_and_nothing_is_pending(finished):
    books = rows(finished.folder, "FROM books")
    assert {book["stage"] for book in books} == {
        "cluster",
        "generate",
        "curate",
        "pick/answers",
        "pick/judgments",
        "evaluate/answers",
        "evaluate/judgments",
    }
    for book in books:
        assert book["planned"] == book["accepted"] + book["rejected"] + book["failed"]
        assert book["pending"] == 0


def test_no_connection_was_tried_in_a_namespace_with_loopback_alone(finished):
    reason = netns.reason_not_permitted()
    if reason:
        pytest.skip(f"network namespaces are not permitted here: {reason}")
    assert offline.refused_connections(finished.folder) == []


def test_every_label_landed_in_exactly_one_skill(finished):
    assert rows(
        finished.folder,
        "SELECT count(*) AS n FROM skill_label "
        "WHERE name IS NOT NULL AND skill_id NOT IN (SELECT skill_id FROM skill)",
    ) == [{"n": 0}]
    assert {row["source"] for row in rows(finished.folder, "FROM skill_label")} == {"sda", "sdd"}


def test_train_dev_and_test_share_no_tuple_and_no_instruction(finished):
    tuples = rows(
        finished.folder,
        """
        WITH tuples AS (SELECT split, list(skill_id ORDER BY skill_id) AS skills
                        FROM mix JOIN mix_skill USING (mix_id) GROUP BY mix_id, split)
        SELECT skills FROM tuples GROUP BY skills HAVING count(DISTINCT split) > 1""",
    )
    texts = rows(
        finished.folder,
        """
        SELECT instruction FROM candidate JOIN mix USING (mix_id) WHERE status = 'accepted'
        GROUP BY instruction HAVING count(DISTINCT split) > 1""",
    )
    assert tuples == texts == []


def test_one_checkpoint_an_epoch_and_one_of_them_picked(finished):
    found = rows(finished.folder, "SELECT * FROM checkpoint ORDER BY epoch")
    assert [row["epoch"] for row in found] == [1, 2]
    assert sum(row["picked"] for row in found) == 1
    for row in found:
        assert (finished.folder / row["path"] / "model.safetensors").exists()
        assert row["dev_loss"] > 0


def test_the_headline_is_a_score_on_test_with_its_interval(finished):
    (gain,) = rows(finished.folder, "SELECT * FROM score WHERE metric = 'preference_gain'")
    assert gain["split"] == "test"
    assert gain["low"] <= gain["value"] <= gain["high"]
    assert f"{gain['n']} unseen prompts" in finished.output


def test_every_model_call_is_in_the_ledger_with_its_tokens(finished):
    (turn,) = rows(
        finished.folder,
        "SELECT count(*) AS calls, min(prompt_tokens) AS low, "
        "count(DISTINCT model_fingerprint) AS models FROM turn",
    )
    judged = rows(finished.folder, "SELECT count(*) AS n FROM judgment JOIN turn USING (turn_id)")
    assert turn["low"] > 0
    assert turn["models"] == 4  # teacher, base, two checkpoints
    assert judged[0]["n"] == rows(finished.folder, "SELECT count(*) AS n FROM judgment")[0]["n"]


def test_what_every_stage_should_take_was_noted_and_is_compared_at_the_end(finished):
    (checked,) = rows(finished.folder, "SELECT detail FROM event WHERE kind = 'plan_checked'")
    stages = json.loads(checked["detail"])["stages"]
    assert [row["stage"] for row in stages] == list(UNITS)
    assert all(row["predicted"] > 0 and row["seconds"] > 0 for row in stages)
    (line,) = [line for line in finished.output.splitlines() if " for what took " in line]
    assert "generate" in line and "assumed" in line
    found = json.loads(subprocess.check_output(command(finished.folder, "plan", "--json")))
    by_stage = {row["stage"]: row for row in found["stages"]}
    for row in stages:
        shown = by_stage[row["stage"]]
        assert shown["predicted_hours"] == pytest.approx(row["predicted"] / 3600)
        assert shown["hours"] == pytest.approx(row["seconds"] / 3600)


def test_a_second_run_all_does_nothing_says_so_and_takes_seconds(finished):
    before = rows(finished.folder, "SELECT count(*) AS n, max(finished_at) AS last FROM turn")
    started = time.monotonic()
    done = subprocess.run(run_all(finished.folder), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert time.monotonic() - started < 15
    assert "nothing to do" in done.stderr
    assert (
        rows(finished.folder, "SELECT count(*) AS n, max(finished_at) AS last FROM turn") == before
    )


def test_a_changed_recipe_is_refused_with_the_way_out(finished):
    done = subprocess.run(
        run_all(finished.folder, "--set", "mix.train=25"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "mix.train (24 -> 25)" in done.stderr
    assert "localism fork small NEW" in done.stderr


def test_the_export_holds_exactly_the_accepted_examples(finished):
    export = finished.folder / "export"
    for split in ("train", "dev", "test"):
        path = export / "instruction" / split
        lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
        table = pyarrow.parquet.read_table(path.with_suffix(".parquet")).to_pylist()
        accepted = rows(
            finished.folder,
            "SELECT mix_id FROM candidate JOIN mix USING (mix_id) "
            f"WHERE status = 'accepted' AND split = '{split}' ORDER BY ordinal",
        )
        assert lines == table
        assert [row["mix_id"] for row in lines] == [row["mix_id"] for row in accepted]
        assert all(len(row["skills"]) == 2 and row["teacher_fingerprint"] for row in lines)
        assert {row["licence"] for row in lines} == {"apache-2.0"}
    assert "This is a rehearsal" in (export / "README.md").read_text()


def test_the_picked_model_is_exported_with_its_verdict(finished, tmp_path):
    export = command(finished.folder, "export", "--what", "all", "--to", str(tmp_path / "out"))
    done = subprocess.run([*export, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    (gain,) = rows(finished.folder, "SELECT * FROM score WHERE metric = 'preference_gain'")
    card = (tmp_path / "out" / "model" / "README.md").read_text()
    assert f"**{gain['value']:+.1f} points** of preference over its base on {gain['n']}" in card
    assert facts["licences"]["conflicts"] == [] and facts["checkpoint"] in card
    assert all(row["response_tokens_sum"] > 0 for row in facts["splits"])
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out")
    assert sums.returncode == 0
    again = subprocess.run(export, capture_output=True, text=True, timeout=120)
    assert again.returncode == 2 and "--overwrite" in again.stderr


def test_status_and_why_tell_the_story(finished):
    text = subprocess.run(command(finished.folder, "status"), capture_output=True, text=True).stdout
    assert text.count(" done ") == 9
    facts = json.loads(
        subprocess.run(
            command(finished.folder, "status", "--json"), capture_output=True, text=True
        ).stdout
    )
    assert facts["refused_connections"] == 0
    story = subprocess.run(command(finished.folder, "why", "0"), capture_output=True, text=True)
    for part in ("skill ", "--- draft", "--- critique", "--- refine", "--- verdicts"):
        assert part in story.stdout, story.stderr


def test_the_report_opens_in_chromium_without_requests_or_console_errors(finished, tmp_path):
    program = chromium()
    if program is None:
        pytest.skip("Chromium is not installed")
    report = finished.folder / "report.html"
    with Page(program, tmp_path / "profile") as browser:
        browser.open(report)
        text = browser.run("document.body.innerText")
        drawn = browser.run(
            "[...document.querySelectorAll('figure:not([hidden])')]"
            ".filter(one => one.querySelector('svg [fill]')).map(one => one.dataset.plot)"
        )
        panels = browser.run("document.querySelectorAll('[data-plot=curves] .grid svg').length")
        assert browser.requests == [report.resolve().as_uri()]
        assert browser.messages == []
    assert text.index("This is a rehearsal") < text.index("unseen prompts")
    assert drawn == ["curves", "map", "matrix", "uses", "sizes"]
    assert panels >= 5
    assert report.stat().st_size < 5e6


def test_until_ends_behind_a_stage(finished):
    words = command(finished.folder, "run-all", "--until", "mix", "--plain")
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "[3/9] mix" in done.stdout + done.stderr
    assert "[4/9]" not in done.stdout + done.stderr
    wrong = subprocess.run(
        command(finished.folder, "run-all", "--until", "midnight"), capture_output=True, text=True
    )
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ")


def test_watching_ends_when_all_is_done(finished):
    words = command(finished.folder, "status", "--watch")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "report" in done.stdout
