"""Stage generate, and the judge's gate of curate, on a real engine with the embedded teacher."""

import io
import json
import os
import re
import shutil
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from engines import NewContext, ServedTeacher, embedded_config

from localism import forking, recipe
from localism.config import Config
from localism.context import Context
from localism.embedded.world import QUERY_TYPES, TOPICS
from localism.errors import StageError
from localism.parsing.example import Example, split_example
from localism.progress import Progress
from localism.prompting.packs import load_pack
from localism.stages import curate, generate
from localism.store import Store

pytestmark = pytest.mark.component

TURNS = ("draft", "critique", "refine")


class Interrupting(Progress):
    """Presses Ctrl-C when so many mixes are done."""

    def __init__(self, done: int) -> None:
        super().__init__(io.StringIO(), plain=True)
        self._done = done

    def update(
        self, done: int, total: int | None = None, *, unit: str = "", detail: str = ""
    ) -> None:
        if done == self._done:
            os.kill(os.getpid(), signal.SIGINT)


def config_of(teacher: ServedTeacher, pack: Path | str = "compact", **more: Any) -> Config:
    return embedded_config(**teacher.endpoints, prompts={"pack": str(pack)}, **more)


def plan(store: Store, count: int, *, dev: int = 2, test: int = 2) -> None:
    """So many mixes of two skills of the miniature; the last two ask for the same thing."""
    names = [skill for topic in TOPICS.values() for skill in topic.skills]
    names = sorted(set(names))
    for name in names:
        store.add(
            "skill", skill_id=name, name=name, cluster_id="c", rare=False, count=1,
            hdbscan_label=0, strength=1.0,
        )  # fmt: skip
    for ordinal, (name, definition) in enumerate(sorted(QUERY_TYPES.items())):
        store.add(
            "query_type", query_type_id=name, name=name, definition=definition, ordinal=ordinal,
            turn_id=None,
        )  # fmt: skip
    kinds = sorted(QUERY_TYPES)
    for ordinal in range(count):
        same_as = min(ordinal, count - 2)
        mix_id = f"mix-{ordinal:03}"
        split = "test" if ordinal < test else "dev" if ordinal < test + dev else "train"
        kind = kinds[same_as % len(kinds)]
        store.add("mix", mix_id=mix_id, ordinal=ordinal, k=2, query_type_id=kind, split=split)
        for position in (0, 1):
            skill = names[(2 * same_as + position) * 7 % len(names)]
            store.add("mix_skill", mix_id=mix_id, position=position, skill_id=skill)


def candidates(context: Context) -> list[dict[str, Any]]:
    return context.store.query("SELECT * FROM candidate ORDER BY mix_id")


def test_every_mix_becomes_a_candidate_with_three_turns_behind_it(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    context = new_context(config_of(teacher))
    plan(context.store, 20)
    summary = generate.run(context)
    rows = candidates(context)
    assert [row["mix_id"] for row in rows] == [f"mix-{n:03}" for n in range(20)]
    assert {row["status"] for row in rows} == {"written"}
    examples = [row for row in rows if row["instruction"]]
    assert summary.startswith(f"{len(examples)} of 20 mixes gave an example")
    assert len(examples) >= 15
    for row in examples:
        assert row["response"] and "###" not in row["instruction"] + row["response"]
        assert row["reason"] in (None, "cut off")
    assert all(row["reason"] for row in rows if not row["instruction"])
    # Each candidate hangs on the last of three turns, in the pack's order, each on the one before.
    chains = context.store.query("""
        SELECT r.template AS refine, q.template AS critique, d.template AS draft, d.parent_id
        FROM candidate c JOIN turn r USING (turn_id) JOIN turn q ON q.turn_id = r.parent_id
        JOIN turn d ON d.turn_id = q.parent_id
    """)
    assert len(chains) == 20
    assert {(c["draft"], c["critique"], c["refine"], c["parent_id"]) for c in chains} == {
        (*TURNS, None)
    }
    # The last two mixes have one prompt, and are two samples of it.
    samples = context.store.query("""
        SELECT prompt, list(sample ORDER BY sample) AS samples FROM turn
        WHERE template = 'draft' GROUP BY prompt HAVING count(*) > 1
    """)
    assert [row["samples"] for row in samples] == [[0, 1]]
    assert context.store.value("SELECT count(*) FROM turn") == 60
    books = context.store.query("SELECT * FROM books WHERE stage = 'generate'")[0]
    assert (books["planned"], books["accepted"], books["pending"]) == (20, 20, 0)


def test_a_second_call_asks_nothing_and_changes_nothing(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    context = new_context(config_of(teacher))
    plan(context.store, 6)
    first = generate.run(context)
    rows = candidates(context)
    assert generate.run(context) == first
    assert candidates(context) == rows
    assert context.store.value("SELECT count(*) FROM turn") == 18


def test_interrupted_and_resumed_equals_uninterrupted(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    # Two at a time, so that some are finished, some half-way and some not begun at the signal.
    config = config_of(teacher, generate={"requests_in_flight": 2})
    whole, broken = new_context(config, "whole"), new_context(config, "broken")
    for context in (whole, broken):
        plan(context.store, 16)
    generate.run(whole)
    interrupted = Context(config, broken.store, broken.folder, Interrupting(7))
    with pytest.raises(KeyboardInterrupt):
        generate.run(interrupted)
    before = candidates(broken)
    assert 7 <= len(before) < 16
    turns = broken.store.query("SELECT * FROM turn")
    generate.run(broken)
    assert candidates(broken) == candidates(whole)
    after = {row["turn_id"]: row for row in broken.store.query("SELECT * FROM turn")}
    assert len(after) == 48
    assert all(after[row["turn_id"]] == row for row in turns)


def with_rewrites(folder: Path, limit: int) -> Path:
    """The compact pack with little room for a draft, and a second attempt where it was cut off."""
    shutil.copytree(load_pack("compact").folder, folder)
    manifest = folder / "pack.toml"
    text = manifest.read_text().replace("max_tokens = 256", f"max_tokens = {limit}", 1)
    again = """[[turns]]
name = "again"
template = "refine"
when = "cut off"
temperature = 0.3
max_tokens = 256

[[turns]]
name = "critique"
"""
    manifest.write_text(text.replace('[[turns]]\nname = "critique"\n', again))
    return folder


def test_a_rewrite_runs_after_the_drafts_that_were_cut_off_and_after_no_others(
    teacher: ServedTeacher, new_context: NewContext, tmp_path: Path
) -> None:
    plain = new_context(config_of(teacher), "plain")
    plan(plain.store, 12)
    generate.run(plain)
    limit = plain.store.value(
        "SELECT median(completion_tokens)::INT FROM turn WHERE template = 'draft'"
    )
    config = config_of(
        teacher, with_rewrites(tmp_path / "own", limit), generate={"requests_in_flight": 4}
    )
    context, broken = new_context(config, "whole"), new_context(config, "broken")
    plan(context.store, 12)
    generate.run(context)
    drafts = context.store.query("""
        SELECT d.finish_reason, d.text, n.template AS next, n.prompt FROM turn d
        JOIN turn n ON n.parent_id = d.turn_id WHERE d.template = 'draft'
    """)
    assert len(drafts) == 12
    cut = [row for row in drafts if row["finish_reason"] == "length"]
    assert 1 <= len(cut) <= 11
    assert {row["next"] for row in cut} == {"again"}
    assert {row["prompt"] for row in cut} == {load_pack("compact").render("refine")}
    markers = ("### Instruction", "### Response")
    for row in drafts:
        if row["finish_reason"] == "stop":
            is_whole = isinstance(split_example(row["text"], *markers), Example)
            assert row["next"] == ("critique" if is_whole else "again")
    # The books know nothing of conditions, and every candidate hangs on a refined version.
    books = context.store.query("SELECT * FROM books WHERE stage = 'generate'")[0]
    assert (books["planned"], books["accepted"], books["pending"]) == (12, 12, 0)
    last = context.store.query("SELECT DISTINCT template FROM candidate JOIN turn USING (turn_id)")
    assert last == [{"template": "refine"}]
    # Stopped half-way and continued, the same rows; a further call asks for nothing.
    plan(broken.store, 12)
    with pytest.raises(KeyboardInterrupt):
        generate.run(Context(config, broken.store, broken.folder, Interrupting(4)))
    generate.run(broken)
    assert candidates(broken) == candidates(context)
    before = requests_answered(teacher)
    generate.run(broken)
    assert requests_answered(teacher) == before


def test_a_structured_turn_is_json_and_one_that_breaks_off_is_written_again(
    teacher: ServedTeacher, new_context: NewContext, tmp_path: Path
) -> None:
    pack = Path(shutil.copytree(load_pack("compact").folder, tmp_path / "own"))
    changed = (pack / "pack.toml").read_text()
    changed = changed.replace('name = "refine"', 'name = "refine"\nstructured = true')
    again = """[[turns]]
name = "again"
template = "refine"
when = "cut off"
temperature = 0.3
max_tokens = 256

[judge]"""
    (pack / "pack.toml").write_text(changed.replace("[judge]", again))
    context = new_context(config_of(teacher, pack))
    plan(context.store, 12)
    generate.run(context)
    turns = context.store.query("SELECT * FROM turn")
    as_json = [row for row in turns if "json_schema" in row["sampling"]]
    assert {row["template"] for row in as_json} == {"refine"} and len(as_json) == 12
    followed = {row["parent_id"] for row in turns if row["template"] == "again"}
    for row in as_json:
        # The miniature writes no closing quote of its own accord, so that most come to the limit.
        assert re.match(r'\{\s*"(instruction|response)"\s*:\s*"', row["text"])
        if row["finish_reason"] == "stop":
            assert json.loads(row["text"]).keys() == {"instruction", "response"}
        else:
            assert row["turn_id"] in followed
    last = context.store.query(
        "SELECT c.*, t.text FROM candidate c JOIN turn t USING (turn_id) WHERE t.template = 'again'"
    )
    assert len(last) == len(followed) >= 1
    assert any(row["instruction"] for row in last)
    assert all(row["instruction"] in row["text"] for row in last if row["instruction"])


def test_the_compact_packs_calls_are_the_ones_that_older_corpora_have(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    context = new_context(config_of(teacher))
    plan(context.store, 1, dev=0, test=0)
    generate.run(context)
    asked = context.store.query("SELECT template, sampling, prompt FROM turn ORDER BY finished_at")
    assert [(row["template"], row["sampling"]) for row in asked] == [
        ("draft", '{"max_tokens": 256, "seed": 0, "temperature": 0.7, "top_p": 0.95}'),
        ("critique", '{"max_tokens": 64, "temperature": 0.0, "top_p": 1.0}'),
        ("refine", '{"max_tokens": 256, "seed": 0, "temperature": 0.3, "top_p": 0.95}'),
    ]
    assert asked[2]["prompt"] == (
        "Rewrite the draft so that nothing is missing. Keep what is good."
    )


def test_a_teacher_that_gives_no_examples_stops_the_stage_and_keeps_what_is_written(
    teacher: ServedTeacher, new_context: NewContext, tmp_path: Path
) -> None:
    pack = Path(shutil.copytree(load_pack("compact").folder, tmp_path / "mute"))
    (pack / "refine.txt").write_text((pack / "critique.txt").read_text())
    context = new_context(config_of(teacher, pack))
    plan(context.store, 80)
    with pytest.raises(StageError) as stopped:
        generate.run(context)
    assert "of the first" in stopped.value.problem and "gave no example" in stopped.value.problem
    assert stopped.value.where.count("  | ") >= 3
    assert "no markers" in stopped.value.where
    written = candidates(context)
    assert 26 <= len(written) <= 50
    assert {row["status"] for row in written} == {"written"}
    # The rest is still to do, and the next call goes on with it alone.
    with pytest.raises(StageError):
        generate.run(context)
    again = {row["mix_id"]: row for row in candidates(context)}
    assert len(again) > len(written)
    assert all(again[row["mix_id"]] == row for row in written)


def requests_answered(teacher: ServedTeacher) -> int:
    """How many generations the engine itself has counted."""
    with urllib.request.urlopen(f"{teacher.url.removesuffix('/v1')}/metrics") as page:
        text = page.read().decode()
    counts = re.findall(r"^vllm:request_success_total\{.*\} ([\d.e+]+)$", text, re.M)
    assert counts
    return int(sum(map(float, counts)))


def worked(folder: Path, config: Config, count: int) -> tuple[str, list[dict[str, Any]]]:
    """Plan and generate in a run folder: what the stage said, and the ledger by id."""
    with Store(folder / "corpus.duckdb") as store:
        plan(store, count)
        try:
            said = generate.run(Context(config, store, folder, Interrupting(-1)))
        except StageError as stopped:
            said = stopped.problem
        return said, store.query("SELECT * FROM turn ORDER BY turn_id")


def test_after_the_alarm_a_fork_with_a_mended_pack_pays_only_for_the_turns_that_changed(
    teacher: ServedTeacher, tmp_path: Path
) -> None:
    pack = Path(shutil.copytree(load_pack("compact").folder, tmp_path / "mute"))
    refine = (pack / "refine.txt").read_text()
    (pack / "refine.txt").write_text((pack / "critique.txt").read_text())
    served = teacher.endpoints["teacher"]
    (tmp_path / "models.toml").write_text(f"""
        [teacher]
        endpoints = {json.dumps(served["endpoints"])}
        api_key_file = {json.dumps(served["api_key_file"])}
        max_num_seqs = {served["max_num_seqs"]}
        [judge]
        kind = "likelihood"
        same_as = "teacher"
        [student]
        path = "embedded:student"
        max_tokens = 256
        [prompts]
        pack = {json.dumps(str(pack))}
    """)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    asked = recipe.settle_recipe(first, tmp_path / "models.toml", ())
    recipe.write_recipe(first, *asked)
    said, paid = worked(first, asked.config, 60)
    assert "gave no example" in said

    mended = Path(shutil.copytree(pack, tmp_path / "mended"))
    (mended / "refine.txt").write_text(refine)
    forked, _ = forking.fork(
        str(first), str(second), None, [f"prompts.pack={json.dumps(str(mended))}"]
    )
    assert forked == len(paid)
    before = requests_answered(teacher)
    said, turns = worked(second, recipe.settle_recipe(second, None, ()).config, 60)
    assert said.endswith("of 60 mixes gave an example") or "did not parse" in said
    kept = {row["turn_id"]: row for row in turns}
    assert all(kept[row["turn_id"]] == row for row in paid)
    by_template = {
        name: sum(row["template"] == name for row in turns) for name in ("draft", "critique")
    }
    assert by_template == {"draft": 60, "critique": 60}  # each paid once, before the fork or after
    asked = requests_answered(teacher) - before
    assert asked == len(turns) - len(paid)
    drafts, critiques = (sum(row["template"] == name for row in paid) for name in by_template)
    assert drafts >= critiques >= 26
    assert asked == 3 * 60 - drafts - critiques


def test_a_refused_request_is_a_failed_row_and_is_tried_again_by_the_next_call(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    context = new_context(config_of(teacher))
    plan(context.store, 6)
    too_long = "word_" * 5000
    context.store.execute(
        "UPDATE skill SET name = ? WHERE skill_id = "
        "(SELECT skill_id FROM mix_skill WHERE mix_id = 'mix-001' "
        "AND position = 0)",
        [too_long],
    )
    assert generate.run(context).endswith(", 1 failed")
    rows = {row["mix_id"]: row for row in candidates(context)}
    failed = rows.pop("mix-001")
    assert failed["status"] == "failed" and failed["reason"].startswith("HTTP 400")
    assert {row["status"] for row in rows.values()} == {"written"}
    context.store.execute("UPDATE skill SET name = 'brew_tea' WHERE name = ?", [too_long])
    assert "failed" not in generate.run(context)
    again = {row["mix_id"]: row for row in candidates(context)}
    assert again.pop("mix-001")["status"] == "written"
    assert again == rows


def test_the_judge_decides_about_skills_once_and_its_verdicts_outlive_a_kill(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    config = config_of(teacher, curate={"skills": "judge"})
    context = new_context(config)
    plan(context.store, 12)
    generate.run(context)
    interrupted = Context(config, context.store, context.folder, Interrupting(3))
    with pytest.raises(KeyboardInterrupt):
        curate.run(interrupted)
    kept = context.store.query("SELECT * FROM verdict WHERE gate = 'skills' ORDER BY mix_id")
    assert kept and {row["status"] for row in candidates(context)} == {"written"}
    try:
        curate.run(context)
    except StageError as empty:  # the miniature judge may refuse all of a split of two
        assert "passed the gates" in empty.problem
    verdicts = {
        row["mix_id"]: row
        for row in context.store.query("SELECT * FROM verdict WHERE gate = 'skills'")
    }
    assert all(verdicts[row["mix_id"]] == row for row in kept)
    for row in verdicts.values():
        assert 0 <= row["value"] <= 1 and row["passed"] == (row["value"] >= 0.5)
        assert row["passed"] or row["reason"].startswith("does not show ")
    statuses = {row["mix_id"]: row["status"] for row in candidates(context)}
    assert set(statuses.values()) <= {"accepted", "rejected"}
    assert all(
        statuses[mix_id] == "rejected" for mix_id, row in verdicts.items() if not row["passed"]
    )
    asked = context.store.value("SELECT count(*) FROM turn WHERE template = 'shows_skill'")
    assert asked == 2 * len(verdicts)
