"""What the report says, from rows alone; how it works in a browser: component/test_report_page."""

import hashlib
import html
import json
import re
from datetime import datetime, timedelta
from importlib import resources
from typing import Any

import made_corpus
import pytest
from engines import NewContext, embedded_config

from localism import stage_time
from localism.config import Teacher, Train
from localism.context import Context
from localism.reporting import coverage, evaluations, examples, facts, notices, page, work
from localism.store import Store

START = datetime(2026, 1, 1)
VENDOR = resources.files("localism").joinpath("templates", "vendor")


def happened(store: Store, second: float, kind: str, stage: str, **detail: object) -> None:
    store.add(
        "event", event_id=f"{second}{kind}{stage}", happened_at=START + timedelta(seconds=second),
        stage=stage, kind=kind, detail=json.dumps(detail),
    )  # fmt: skip


@pytest.fixture
def made(new_context: NewContext) -> Context:
    """A finished run of made words, with two trainings."""
    context = new_context(made_corpus.config_of(embedded_config))
    made_corpus.fill(context.store, context.config, made_corpus.Size(trainings=2))
    return context


def text_of(markup: str) -> str:
    """The words of a page without scripts, styles and tags, on one line."""
    for element in ("script", "style"):
        markup = re.sub(rf"<{element}\b.*?</{element}>", " ", markup, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


# ---- what was done -------------------------------------------------------------------------


def test_a_stages_time_is_that_of_all_its_tries_without_the_hours_between(tmp_path) -> None:
    with Store(tmp_path / "corpus.duckdb") as store:
        happened(store, 0, "stage_started", "extract")
        happened(store, 40, "note", "extract")  # the last that was heard before a kill
        happened(store, 9_000, "stage_started", "extract")
        happened(store, 9_030, "stage_finished", "extract", summary="done")
        happened(store, 9_700, "note", "extract")  # of somebody else, between two ends
        happened(store, 20_000, "stage_started", "extract")  # opened again
        happened(store, 20_004, "stage_finished", "extract", summary="done again")
        happened(store, 30_000, "stage_started", "report")
        happened(store, 30_005, "stage_finished", "report", summary="first page")
        happened(store, 39_000, "stage_started", "report")  # the one that is being written
        rows = {row["stage"]: row for row in store.query(stage_time.STAGES)}
    assert (rows["extract"]["seconds"], rows["extract"]["tries"]) == (40 + 30 + 4, 3)
    assert rows["extract"]["summary"] == "done again"
    assert (rows["report"]["seconds"], rows["report"]["summary"]) == (5, "first page")


def test_a_long_step_without_a_word_is_work_and_a_machine_that_slept_is_not(tmp_path) -> None:
    with Store(tmp_path / "corpus.duckdb") as store:
        happened(store, 0, "stage_started", "cluster")
        happened(store, 5_000, "stage_finished", "cluster", summary="embedded")
        happened(store, 0, "stage_started", "generate")
        turn(store, 0, 3_000, 50)  # one long call
        turn(store, 40_000, 40_010, 50)  # a short one, after a night
        happened(store, 40_020, "stage_finished", "generate", summary="done")
        rows = {row["stage"]: row["seconds"] for row in store.query(stage_time.STAGES)}
    assert rows == {"cluster": 5_000, "generate": 3_000 + 10}


def turn(store: Store, began: float, ended: float, tokens: int) -> None:
    store.add(
        "turn", turn_id=f"{began}-{ended}", stage="generate", role="teacher", template="draft",
        prompt="p", prompt_hash="h", model_fingerprint="f", sampling="{}", sample=0, text="t",
        finish_reason="stop", prompt_tokens=1, completion_tokens=tokens, seconds=ended - began,
        finished_at=START + timedelta(seconds=ended),
    )  # fmt: skip


def test_the_rate_of_writing_leaves_out_time_without_a_call_and_calls_that_a_fork_brought(
    tmp_path,
) -> None:
    with Store(tmp_path / "corpus.duckdb") as store:
        turn(store, 0, 9, 1_000_000)
        happened(store, 10, "forked", "generate", parent="old", turns=1)
        for began, ended in ((20, 30), (22, 24), (25, 34), (134, 140)):  # 14 s, a stop, 6 s
            turn(store, began, ended, 50)
        (row,) = work.costs(store, [], store.query("FROM tokens"))
    assert row["busy"] == pytest.approx(20)
    assert row["rate"] == pytest.approx(200 / 20)
    assert row["seconds"] is None


def test_what_was_predicted_stands_beside_what_it_took(made: Context) -> None:
    rows = [{"stage": "generate", "seconds": 7200.0, "basis": "assumed"}]
    made.store.add(
        "event", event_id="p", happened_at=made_corpus.START, stage=None, kind="planned",
        detail=json.dumps({"stages": rows}),
    )  # fmt: skip
    costs = {row["stage"]: row for row in facts.collect(made)["costs"]}
    assert costs["generate"]["predicted"] == 7200 and costs["train"]["predicted"] is None
    page_text = text_of(page.render(facts.collect(made)))
    assert "Predicted before the run began, from: assumed." in page_text
    assert "2h00m" in page_text


def test_the_funnel_counts_each_lost_example_once_and_ends_at_the_accepted(made: Context) -> None:
    # Gates that ran again may have refused one that another had refused before.
    made.store.execute(
        "INSERT INTO verdict SELECT mix_id, 'again', false, 'again', NULL FROM candidate"
        " WHERE status = 'rejected'"
    )
    made.store.add("mix", mix_id="late", ordinal=999, k=2, split="train")
    steps = work.funnel(made.store, made.config)
    (counts,) = made.store.query(
        "SELECT count(*) AS planned, count(*) FILTER (status = 'accepted') AS accepted,"
        " count(*) FILTER (status = 'rejected') AS rejected FROM mix LEFT JOIN candidate"
        " USING (mix_id)"
    )
    assert steps[0]["left"] == counts["planned"]
    assert steps[-1] == {"name": "accepted", "left": counts["accepted"], "lost": 0, "why": ""}
    lost_to_gates = [step["lost"] for step in steps if step["why"].startswith("gate ")]
    assert sum(lost_to_gates) == counts["rejected"] > 0
    assert [step["lost"] for step in steps if step["name"] == "decided"] == [1]
    for before, after in zip(steps, steps[1:], strict=False):
        assert after["left"] == before["left"] - after["lost"]


# ---- skills --------------------------------------------------------------------------------


def test_every_pair_is_in_one_cell_of_the_matrix_also_where_clusters_share_a_row(
    made: Context,
) -> None:
    (total,) = made.store.query("SELECT sum(planned) AS planned, sum(accepted) AS accepted"
                                " FROM pair_coverage")  # fmt: skip
    for most in (3, 100):
        found = coverage.matrix(made.store, most)
        assert found is not None
        assert sum(cell[2] for cell in found["cells"]) == total["planned"]
        assert sum(cell[3] for cell in found["cells"]) == total["accepted"]
        assert sum(cell[4] for cell in found["cells"]) == pytest.approx(total["accepted"], abs=0.5)
    small = coverage.matrix(made.store, 3)
    assert small is not None
    assert [group["is_one"] for group in small["groups"]] == [True] * 3 + [False, False]
    assert small["groups"][-2]["name"].endswith("other clusters")
    assert sum(group["skills"] for group in small["groups"]) == made_corpus.Size().skills


def test_a_corpus_of_single_skills_has_no_matrix(new_context: NewContext) -> None:
    context = new_context()
    context.store.add("mix", mix_id="m", ordinal=0, k=1, split="train")
    assert coverage.matrix(context.store) is None


def test_holes_are_skills_never_accepted_thin_ones_and_pairs_that_were_lost(made: Context) -> None:
    known = coverage.collect(made.store)
    holes = known["holes"]
    used = {row["skill"]: row["accepted"] for row in known["skills"]}
    never = {name for name, accepted in used.items() if accepted == 0}
    assert {row["skill"] for row in holes["never"]} == never
    assert made_corpus.VERBS[0] + "_" + made_corpus.NOUNS[0] in never
    assert all(0 < row["accepted"] <= holes["median"] / 2 for row in holes["thin"])
    assert holes["lost_pair_count"] == made.store.value(
        "SELECT count(*) FROM pair_coverage WHERE accepted = 0"
    )


def test_of_very_many_skills_the_least_used_are_kept_and_others_evenly() -> None:
    rows = [{"skill": f"s{n:05d}", "accepted": n % 100} for n in range(9000)]
    kept = coverage.shown(rows)
    assert len(kept) == coverage.MOST_SKILLS
    assert sum(row["accepted"] < 16 for row in kept) >= 15 * 90
    assert {row["accepted"] for row in kept} == set(range(100))
    assert coverage.shown(rows[:3000]) == rows[:3000]


# ---- examples ------------------------------------------------------------------------------


def test_examples_lie_evenly_over_the_plan_and_carry_their_lineage(made: Context) -> None:
    rows = examples.accepted_examples(made.store, 10)
    places = [row["ordinal"] for row in rows]
    assert len(rows) == 10 and places == sorted(places)
    assert places[0] < 6 and places[-1] > 44  # of sixty
    for row in rows:
        assert len(row["skills"]) == 2 and {"skill", "cluster", "rare"} <= row["skills"][0].keys()
        assert row["turns"]["turns"] == 5
        assert row["turns"]["templates"] == "draft, rewrite, critique, refine, final"
        assert [verdict["passed"] for verdict in row["verdicts"]] == [True] * len(made_corpus.GATES)
    assert len(examples.accepted_examples(made.store, 500)) == made.store.value(
        "SELECT count(*) FROM candidate JOIN mix USING (mix_id) WHERE status = 'accepted'"
        " AND split = 'train'"
    )


# ---- numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, shown",
    [(None, "–"), (0, "0"), (0.0, "0.0"), (1234, "1,234"), (1234.56, "1,234.6"), (-0.04, "-0.0")],
)
def test_a_missing_number_is_a_dash_and_zero_is_zero(value: float | None, shown: str) -> None:
    assert page.number(value) == shown
    row = {"low": value, "high": value}
    assert page.interval(row) == ("–" if value is None else f"{shown} to {shown}")


@pytest.mark.parametrize(
    "values, axis",
    [
        ([0.2, 0.9], [0, 1]),
        ([7.3, 8.1], [0, 10]),
        ([2.0, 61.0], [0, 100]),
        ([-12.0, 40.0], [-100, 100]),
        ([1500.0, 2000.0], [0, 2030]),
        ([None], [0, 1]),
    ],
)
def test_an_axis_is_one_that_people_know_or_holds_all_values(
    values: list[float | None], axis: list[float]
) -> None:
    rows = [{"value": value, "low": None, "high": None} for value in values]
    assert evaluations.scale(rows) == pytest.approx(axis)


def test_tasks_of_lm_eval_are_a_leaderboard_and_subjects_of_mmlu_its_parts(made: Context) -> None:
    for part, metric in (("piqa", "acc"), ("mmlu", "acc"), ("mmlu_anatomy", "acc")):
        made.store.add(
            "suite_score", suite="lm-eval", model_id="base", judge="", metric=metric, part=part,
            value=0.4, low=0.3, high=0.5, n=100, unscored=0, note=None,
        )  # fmt: skip
    (block,) = [one for one in facts.collect(made)["suites"] if one["suite"] == "lm-eval"]
    assert [board["metric"] for board in block["boards"]] == ["mmlu acc", "piqa acc"]
    assert [row["part"] for part in block["parts"] for row in part["rows"]] == ["mmlu_anatomy"]
    assert block["judges"] == []


# ---- the page ------------------------------------------------------------------------------


def test_a_finished_run_is_told_without_a_script(made: Context) -> None:
    text = text_of(page.render(facts.collect(made)))
    for claim in (
        "beats the base model by 40.2 points of preference on 12 unseen prompts (95% CI +36.0",
        "A third of the skills are on their own.",
        "wildbench was run on samples that ship with localism, not on the benchmarks",
        "Judge Qwen2.5-72B: agreement 0.71 (0.66 to 0.76), n 200",
        "It cannot be told apart (90%, paired bootstrap) from epochs 1, 3.",
        "Trainings side by side",
        "Bad answers among the good (the paper's table 6)",
        "in no accepted example",
        "Llama-3.3-70B-Instruct",
        "70,553,706,496",
        "No Python process of this run tried a connection",
    ):
        assert claim in text, claim
    assert text.count("Read the scores as a ranking") + text.count("read the scores as a") == 1


def test_nothing_is_told_that_is_not_there(new_context: NewContext) -> None:
    """A report may be asked for at any time, and old corpora have empty tables."""
    context = new_context()
    config = context.config
    context.store.add(
        "run", run_id="r", name="young", created_at=START, version="0", rehearsal=True,
        recipe=config.model_dump_json(), recipe_hash="h",
    )  # fmt: skip
    text = text_of(page.render(facts.collect(context)))
    assert "No verdict: nothing on test could be scored." in text
    assert text.index("This is a rehearsal") < text.index("No verdict")
    for section in ("Benchmarks", "Trainings side by side", "Skill coverage", "Examples to read"):
        assert section not in text


def test_text_of_a_model_cannot_leave_its_place(made: Context) -> None:
    written = page.render(facts.collect(made))
    assert made_corpus.HOSTILE not in written
    assert "&lt;/script&gt;&lt;script&gt;document.title" in written
    assert written.count("<script") == written.count("</script>") == 1 + len(page.SCRIPTS)


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "\u2028\u2029", "a & b", '"\\'])
def test_data_cannot_end_its_script_and_comes_back_whole(text: str) -> None:
    written = page.as_json({"text": text})
    assert not re.search("[<>&\u2028\u2029]", written)
    assert json.loads(written) == {"text": text}


def test_a_number_that_is_none_is_no_json() -> None:
    with pytest.raises(ValueError):
        page.as_json({"value": float("nan")})


def test_the_policy_lets_only_what_is_written_in_the_page_run(made: Context) -> None:
    written = page.render(facts.collect(made))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', written)
    policy = policy.replace("&#39;", "'")
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy and "http" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", written, re.S)
    styles = re.findall(r"<style>(.*?)</style>", written, re.S)
    for text in scripts + styles:
        assert page._digest(text) in policy
    assert policy.count("sha256-") == len(scripts) + 1
    assert not re.findall(r'(?:src|href)="(?!#)', written)
    assert 'style="' not in written and "onclick" not in written


ATTEMPT = {
    "time": 1.0, "pid": 7, "child": "train: trainer", "program": "sft.py job.json",
    "event": "socket.connect", "target": ["hub.example", "443"],
    "stack": ["run.py:3 main", "tool.py:12 fetch"],
}  # fmt: skip


def write_attempts(context: Context, *attempts: Any) -> str:
    lines = "".join(json.dumps(attempt) + "\n" for attempt in attempts)
    (context.folder / "egress.jsonl").write_text(lines)
    return page.render(facts.collect(context))


def test_refused_connections_are_shown_with_time_child_target_and_stack(made: Context) -> None:
    text = text_of(write_attempts(made, ATTEMPT))
    assert "1 attempt to leave this machine, all refused." in text
    assert "hub.example port 443 train: trainer, 1970-01-01 00:00:01 socket.connect in" in text
    assert "sft.py job.json run.py:3 main tool.py:12 fetch" in text
    assert "since models.toml names them: nothing." in text


def test_alike_attempts_are_one_line_and_none_is_left_out(made: Context) -> None:
    later = [ATTEMPT | {"time": second, "pid": second} for second in (5, 3)]
    other = ATTEMPT | {"child": "", "target": ["elsewhere.example", "80"], "time": None}
    text = text_of(write_attempts(made, *later, ATTEMPT, other, other))
    assert "refused 5 attempts to leave" in text
    alike = "port 443 3 times train: trainer, 1970-01-01 00:00:01 to 1970-01-01 00:00:05"
    assert alike in text
    assert "elsewhere.example port 80 2 times localism itself, at an unknown time" in text


def test_an_attempt_is_data_whatever_it_holds(made: Context) -> None:
    """Targets and arguments come from what was refused; a log may also be cut or overwritten."""
    markup = "<script>alert(1)</script><img src=x>"
    hostile = {
        "time": "soon", "child": markup, "program": markup, "event": markup,
        "target": [markup, "'\"&"], "stack": [markup],
    }  # fmt: skip
    odd = [{"time": 1e99, "target": 7, "stack": None}, [], {"target": {"a": 1}}]
    written = write_attempts(made, hostile, *odd)
    assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)", "", written)
    assert "<img" not in written
    assert text_of(written).count(markup) == 5
    assert "refused 4 attempts to leave" in text_of(written)


def test_the_report_names_the_hosts_that_models_toml_allows(new_context: NewContext) -> None:
    urls = ("http://node2:8000/v1", "https://10.1.2.3/v1")
    config = made_corpus.config_of(embedded_config).model_copy(
        update={"teacher": Teacher(endpoints=urls), "train": Train(rendezvous="node1:29400")}
    )
    context = new_context(config)
    made_corpus.fill(context.store, config, made_corpus.Size())
    text = text_of(page.render(facts.collect(context)))
    assert "since models.toml names them: 10.1.2.3 , node1 , node2 ." in text


def test_a_warning_is_listed_once_and_the_judges_own_only_where_no_stage_gave_it(
    made: Context,
) -> None:
    known = facts.collect(made)
    assert [notice["text"] for notice in known["notices"]].count(
        "A third of the skills are on their own."
    ) == 1
    known["self_judged"] = True
    assert any("expect self-preference" in one["text"] for one in notices.collect(known))
    known["warnings"] = [{"stage": "pick", "problem": "the judge is the teacher itself"}]
    said = [one["text"] for one in notices.collect(known)]
    assert not any("expect self-preference" in one for one in said)
    assert "The judge is the teacher itself." in said


# ---- what the page carries -----------------------------------------------------------------


def test_carried_scripts_are_the_noted_ones_with_their_licences() -> None:
    licences = VENDOR.joinpath("LICENCES.txt").read_text()
    noted = json.loads(VENDOR.joinpath("vendor.json").read_text())
    carried = {name.removeprefix("vendor/") for name in page.SCRIPTS if name.startswith("vendor/")}
    assert {one["file"] for one in noted} == carried
    for one in noted:
        content = VENDOR.joinpath(one["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == one["sha256"]
        assert one["version"] in content.decode().splitlines()[0]
        assert f"{one['name']} {one['version']} ({one['licence']})" in licences


@pytest.mark.parametrize("name", [*page.SCRIPTS, page.STYLE])
def test_a_carried_script_or_style_does_not_end_its_own_element(name: str) -> None:
    assert not re.search(r"</(script|style)|<!--", page._packaged(name), re.I)
