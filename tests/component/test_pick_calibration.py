"""The judge is measured on references that a real teacher rewrote, in one engine for both."""

import asyncio
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engines import ServedTeacher, embedded_config

from localism.context import Context
from localism.judging.calibration import calibrated
from localism.judging.heldout import HeldOutItem
from localism.progress import Progress
from localism.prompting.packs import packaged
from localism.serving.server import serve
from localism.stages.pick_calibration import Calibration
from localism.store import Store

pytestmark = pytest.mark.component

TOPICS = ("plan weekly meals", "check brakes", "prepare sauces", "share invitations")
REFERENCE = "Make a short list first. Then check the cost of each part, and take one step a day."


def items() -> list[HeldOutItem]:
    """Sixteen prompts that the embedded teacher can answer at its usual length."""
    questions = [
        f"How can I {topic} {when}?" for topic in TOPICS for when in ("", "now", "well", "at home")
    ]
    return [
        HeldOutItem(f"mix-{number:02d}", question, f"{REFERENCE} {number}", ())
        for number, question in enumerate(questions)
    ]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compact pack with templates that make the tiny teacher write more and less.

    It was not trained to rewrite: the longer text is its own usual answer, the shorter its brief
    one. So the slope that comes out says nothing about it; that it is measured is what is tested.
    """
    folder = tmp_path_factory.mktemp("packs") / "calibrating"
    shutil.copytree(packaged("prompts") / "compact", folder)
    unused = "{% if not response %}{% endif %}"
    (folder / "longer.txt").write_text(f"{{{{ instruction }}}}{unused}")
    brief = (folder / "brevity.txt").read_text()
    (folder / "shorter.txt").write_text(brief + unused)
    return folder


def calibrate(context: Context) -> Calibration:
    """What stage pick does, but for the answers of checkpoints."""
    calibration = Calibration(context, items())

    async def collect() -> None:
        await calibration.rewrite()
        async with serve(context, "judge", "pick") as client:
            await calibration.judge(client)

    asyncio.run(collect())
    calibration.settle()
    return calibration


def judged_rows(context: Context) -> list[dict[str, Any]]:
    return context.store.query("SELECT * FROM score WHERE model_id = 'judge' ORDER BY metric")


def test_rewrites_are_judged_in_both_orders_and_a_second_call_asks_nothing(
    teacher: ServedTeacher, pack: Path, tmp_path: Path
) -> None:
    config = embedded_config(
        **teacher.endpoints, prompts={"pack": str(pack)}, pick={"calibration": 14, "bootstrap": 200}
    )
    with Store(tmp_path / "corpus.duckdb") as store:
        context = Context(config, store, tmp_path, Progress(io.StringIO(), plain=True))
        calibrate(context)
        first, turns = judged_rows(context), store.query("FROM turn ORDER BY turn_id")
        calibrate(context)
        assert judged_rows(context) == first
        assert store.query("FROM turn ORDER BY turn_id") == turns
        taken = calibrated(store)
        warned = store.query("SELECT detail FROM event WHERE kind = 'warning'")
    of_kind = {kind: [t for t in turns if t["template"] == kind] for kind in ("longer", "shorter")}
    assert len(of_kind["longer"]) == len(of_kind["shorter"]) == 14
    written = {kind: sum(len(t["text"]) for t in rows) for kind, rows in of_kind.items()}
    assert written["longer"] > 2 * written["shorter"]
    judged = [turn for turn in turns if turn["template"] == "judge"]
    (slope,) = [row for row in first if row["metric"] == "length_slope"]
    assert slope["n"] >= 10 and slope["n"] + slope["unscored"] == 14
    assert len(judged) % 2 == 0 and slope["n"] * 2 <= len(judged) <= 14 * 4
    assert slope["low"] <= slope["value"] <= slope["high"]
    assert "longer ones are preferred in" in slope["note"]
    assert taken["phi_calibrated"] == slope["value"] and taken["phi_error"] > 0.5
    assert len(warned) == 1 and "the judge is the teacher itself" in warned[0]["detail"]
    # no checkpoint was judged here, so there is no pair to compare the orders of
    assert [(row["metric"], row["value"]) for row in first[1:]] == [
        ("position_advantage", None), ("position_flips", None),
    ]  # fmt: skip


def test_another_judge_than_the_teacher_is_asked_and_the_teacher_rewrites(
    teacher: ServedTeacher, pack: Path, tmp_path: Path
) -> None:
    """Likelihoods, which have no order: one judgment a rewrite."""
    table = teacher.endpoints["teacher"]
    judge = {
        "same_as": "",
        "kind": "likelihood",
        **{k: table[k] for k in ("endpoints", "api_key_file")},
    }
    config = embedded_config(
        **teacher.endpoints, judge=judge, prompts={"pack": str(pack)},
        pick={"calibration": 12, "bootstrap": 100},
    )  # fmt: skip
    with Store(tmp_path / "corpus.duckdb") as store:
        context = Context(config, store, tmp_path, Progress(io.StringIO(), plain=True))
        calibrate(context)
        (slope,) = judged_rows(context)  # and no position
        roles = store.query("SELECT DISTINCT role, template FROM turn ORDER BY ALL")
        prompts = store.query("SELECT prompt FROM turn WHERE template = 'likelihood'")
    assert slope["metric"] == "length_slope" and slope["value"] is not None
    assert [(row["role"], row["template"]) for row in roles] == [
        ("judge", "likelihood"), ("teacher", "longer"), ("teacher", "shorter"),
    ]  # fmt: skip
    assert len(prompts) >= 2 * slope["n"]
    assert json.dumps(prompts)  # plain text, every one


def test_a_pack_without_the_templates_is_no_calibration_and_says_so(tmp_path: Path) -> None:
    with Store(tmp_path / "corpus.duckdb") as store:
        context = Context(embedded_config(), store, tmp_path, Progress(io.StringIO(), plain=True))
        calibration = calibrate(context)
        assert calibration.impossible == (
            "prompt pack compact has no template longer and shorter: no rewritten references"
        )
        slope = judged_rows(context)[0]
        assert (slope["value"], slope["n"], slope["unscored"]) == (None, 0, 0)
        assert slope["note"] == calibration.impossible
        assert calibrated(store) == {} and store.value("SELECT count(*) FROM turn") == 0
        off = replace(context, config=embedded_config(pick={"calibration": 0}))
        assert Calibration(off, items()).impossible == "[pick].calibration is 0"
