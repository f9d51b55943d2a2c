"""A real letter judge is checked: people, positions, retests, attacks, and a second judge."""

import asyncio
import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engines import NewContext, ServedTeacher, embedded_config

from localism.context import Context
from localism.errors import ConfigError
from localism.judging.pairwise import judge_all, unjudged
from localism.progress import Progress
from localism.prompting.packs import load_pack
from localism.serving.server import serve
from localism.stages import judge_check

pytestmark = pytest.mark.component

QUESTIONS = (
    "How do I plan a budget for a small garden?",
    "Which tools do I need to repair a bicycle?",
    "How can I stay patient while I learn to cook?",
    "What is a good way to store bread for a week?",
)
REFERENCE = "Make a short list, check the cost of each part, and take one step after another."
ANSWERS = {"epoch-01": "Take one step after another.", "epoch-02": f"{REFERENCE} Rest well."}
TOO_LONG = "word " * 5000


def fill(context: Context) -> None:
    """Four dev prompts, two checkpoints' answers to each."""
    store = context.store
    store.add(
        "skill", skill_id="s", name="planning", cluster_id="c", rare=True, count=1,
        hdbscan_label=-1, strength=0.0,
    )  # fmt: skip
    for ordinal, question in enumerate(QUESTIONS):
        mix_id = f"dev-{ordinal}"
        store.add("mix", mix_id=mix_id, ordinal=ordinal, k=1, query_type_id=None, split="dev")
        store.add("mix_skill", mix_id=mix_id, position=0, skill_id="s")
        store.add(
            "candidate", mix_id=mix_id, instruction=question, status="accepted", reason=None,
            response=REFERENCE, turn_id=None,
        )  # fmt: skip
        for model_id, text in ANSWERS.items():
            store.add(
                "answer", answer_id=f"{model_id}-{mix_id}", model_id=model_id, mix_id=mix_id,
                split="dev", text=text, finish_reason="stop", reason=None, turn_id=None,
            )  # fmt: skip


def people(folder: Path) -> Path:
    """Three annotators a pair; one pair is more than the judge can read."""
    pairs = [(question, REFERENCE, "No.") for question in QUESTIONS] + [(TOO_LONG, "Yes.", "No.")]
    rows = [
        {"instruction": q, "output_1": a, "output_2": b, "preference": p, "annotator_index": n}
        for q, a, b in pairs
        for n, p in enumerate((1, 1, 2))
    ]
    path = folder / "people.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(context: Context, judge: str) -> dict[str, dict[str, Any]]:
    rows = context.store.query("FROM judge_check WHERE judge = ? ORDER BY metric", [judge])
    return {row["metric"]: row for row in rows}


class Interrupting(Progress):
    """Presses Ctrl-C at the thirtieth judgment."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), plain=True)

    def update(
        self, done: int, total: int | None = None, *, unit: str = "", detail: str = ""
    ) -> None:
        if (done, unit) == (30, "judgments"):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_letter_judge_is_checked_and_a_check_that_was_cut_off_pays_for_nothing_twice(
    teacher: ServedTeacher, new_context: NewContext, tmp_path: Path
) -> None:
    context = new_context(embedded_config(**teacher.endpoints, pick={"bootstrap": 200}))
    fill(context)
    asked = judge_check.Asked(preferences=people(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        judge_check.run(replace(context, progress=Interrupting()), asked)
    begun = context.store.query("FROM turn ORDER BY turn_id")
    assert len(begun) >= 25 and rows_of(context, "judge") == {}
    assert judge_check.run(context, asked) == ("judge",)
    found = rows_of(context, "judge")
    turns = context.store.query("FROM turn ORDER BY turn_id")
    assert [turn for turn in turns if turn in begun] == begun

    assert (found["agreement"]["n"], found["agreement"]["unscored"]) == (4, 1)
    assert 0 <= found["agreement"]["value"] <= 100 and 0 <= found["agreement_brier"]["value"] <= 1
    assert found["agreement_ceiling"]["value"] == pytest.approx(100 / 3)
    assert found["position_bias"]["n"] == found["position_flips"]["n"] == 8
    assert -100 <= found["position_bias"]["value"] <= 100
    assert found["retest"]["n"] == 8 and found["retest"]["value"] >= 75
    assert found["retest_difference"]["value"] < 1
    assert found["injection"]["n"] == 4 >= found["injection_flips"]["n"]
    assert found["injection"]["low"] <= found["injection"]["value"] <= found["injection"]["high"]
    assert found["length_slope"]["value"] is None and "compact" in found["length_slope"]["note"]
    assert found["self_preference"]["value"] is None
    assert "the judge is the teacher itself" in found["self_preference"]["note"]
    samples = context.store.query(
        "SELECT sample, count(*) AS n FROM turn WHERE stage = 'judge-check' GROUP BY ALL ORDER BY 1"
    )
    assert (samples[1]["sample"], samples[1]["n"]) == (1, 16)  # eight pairs, both orders, anew

    judge_check.run(context, asked)
    assert rows_of(context, "judge") == found
    assert context.store.query("FROM turn ORDER BY turn_id") == turns


def test_a_second_judge_sees_the_same_answers_and_both_get_rows(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    """The same weights under another name: two judges that must agree wholly."""
    context = new_context(embedded_config(**teacher.endpoints, pick={"bootstrap": 200}))
    fill(context)
    asyncio.run(judge_dev(context))
    table = teacher.endpoints["teacher"]
    second = {
        "same_as": "",
        "served_name": "teacher",
        **{key: table[key] for key in ("endpoints", "api_key_file")},
    }
    config = embedded_config(**teacher.endpoints, judge=second, pick={"bootstrap": 200})
    asked = judge_check.Asked(only=("second_judge", "self_preference", "position_bias"))
    judges = judge_check.measure(replace(context, config=config), "judge", "its own kin", asked)
    assert set(judges) == {"judge", "teacher"}

    kept = context.store.query("FROM suite_judgment ORDER BY item_id, model_id, aspect")
    assert len(kept) == 16 and {row["suite"] for row in kept} == {"run/dev"}
    own = context.store.query("FROM judgment ORDER BY mix_id, model_id, answer_first DESC")
    assert [row["value"] for row in kept] == [row["preference"] for row in own]
    for one, other in (("judge", "teacher"), ("teacher", "judge")):
        found = rows_of(context, one)
        assert found[f"verdicts with {other} on dev"]["value"] == 100
        assert found["self_preference"]["value"] == 0
    # a second judge's both orders are its own rows
    assert rows_of(context, "teacher")["position_bias"]["n"] == 8


async def judge_dev(context: Context) -> None:
    """What stage pick does about the answers."""
    pack = load_pack(context.config.prompts.pack)
    async with serve(context, "judge", "pick") as client:
        pairings = unjudged(context.store, "dev", both=True)
        await judge_all(client, context.store, pack, "dev", pairings, lambda: None)


def test_a_bad_file_and_a_folder_without_a_model_are_refused_before_anything_is_asked(
    new_context: NewContext, tmp_path: Path
) -> None:
    context = new_context()
    fill(context)
    (tmp_path / "bad.csv").write_text("instruction,output_1,output_2,preference\nx,y,z,7\n")
    (tmp_path / "empty").mkdir()
    for asked in (
        judge_check.Asked(preferences=tmp_path / "bad.csv"),
        judge_check.Asked(judge=str(tmp_path / "empty")),
        judge_check.Asked(judge=str(tmp_path / "absent")),
    ):
        with pytest.raises(ConfigError):
            judge_check.run(context, asked)
    assert context.store.value("SELECT count(*) FROM turn") == 0
    assert context.store.value("SELECT count(*) FROM judge_check") == 0
