"""Stages pick and evaluate on real engines: checkpoints swapped through one, a real judge."""

import io
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from engines import ServedTeacher, embedded_config

from localism.context import Context
from localism.paths import embedded
from localism.progress import Progress
from localism.run import check_books
from localism.stages import evaluate, pick
from localism.store import Store, now

pytestmark = pytest.mark.component

EPOCHS = (1, 2, 3)
TOO_LONG = "word " * 5000
QUESTIONS = (
    "How do I plan a budget for a small garden?",
    "Which tools do I need to repair a bicycle?",
    "How can I stay patient while I learn to cook?",
    "What is a good way to store bread for a week?",
    TOO_LONG,  # the student cannot read it: the answer fails
    "How do I write a friendly letter to a neighbour?",
)
REFERENCE = "Make a short list, check the cost of each part, and take one step after another."
BOOKS = ("pick/answers", "pick/judgments", "evaluate/answers", "evaluate/judgments")


@dataclass
class Snapshot:
    """What a call left in the corpus."""

    summary: str | None
    answers: list[dict[str, Any]]
    judgments: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    engines: int


class Interrupting(Progress):
    """Presses Ctrl-C when so many of a unit are done."""

    def __init__(self, unit: str, done: int) -> None:
        super().__init__(io.StringIO(), plain=True)
        self._when = (unit, done)

    def update(
        self, done: int, total: int | None = None, *, unit: str = "", detail: str = ""
    ) -> None:
        if (unit, done) == self._when:
            os.kill(os.getpid(), signal.SIGINT)


def make_checkpoint(folder: Path, seed: int) -> None:
    """The embedded student with noise on its weights, as float32, which is what TRL writes."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(embedded("embedded:student"), folder)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: tensor.float() * (1 + 0.3 * seed * torch.randn(tensor.shape, generator=generator))
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))


def fill(context: Context) -> None:
    """A corpus as stage train leaves it: three checkpoints, six dev and six test prompts."""
    store = context.store
    store.add(
        "run", run_id="r", name="test", created_at=now(), version="0",
        recipe=context.config.model_dump_json(), recipe_hash="h", rehearsal=True,
    )  # fmt: skip
    for epoch in EPOCHS:
        path = f"checkpoints/epoch-{epoch:02d}"
        make_checkpoint(context.folder / path, epoch)
        store.add(
            "checkpoint", checkpoint_id=f"epoch-{epoch:02d}", epoch=epoch, step=epoch, path=path,
            fingerprint=str(epoch), train_loss=None, dev_loss=None, picked=False, tied=False,
        )  # fmt: skip
    store.add(
        "skill", skill_id="s", name="planning", cluster_id="c", rare=True, count=1,
        hdbscan_label=-1, strength=0.0,
    )  # fmt: skip
    for split in ("dev", "test"):
        for ordinal, question in enumerate(QUESTIONS):
            mix_id = f"{split}-{ordinal}"
            store.add("mix", mix_id=mix_id, ordinal=ordinal, k=1, query_type_id=None, split=split)
            store.add("mix_skill", mix_id=mix_id, position=0, skill_id="s")
            store.add(
                "candidate", mix_id=mix_id, instruction=question, status="accepted", reason=None,
                # The first reference is more than the judge can read: both its orders are unscored.
                response=TOO_LONG if ordinal == 0 else REFERENCE, turn_id=None,
            )  # fmt: skip


def call(stage: Any, context: Context, interrupt: Progress | None = None) -> Snapshot:
    """Run a stage, interrupted or to its end."""
    summary = None
    if interrupt is None:
        summary = stage.run(context)
    else:
        with pytest.raises(KeyboardInterrupt):
            stage.run(replace(context, progress=interrupt))
    query = context.store.query
    return Snapshot(
        summary,
        query("FROM answer ORDER BY answer_id"),
        query("FROM judgment ORDER BY judgment_id"),
        query("FROM score ORDER BY ALL"),
        context.store.value("SELECT count(*) FROM event WHERE kind = 'engine_started'"),
    )


@dataclass
class History:
    """Every call of one run, in order."""

    context: Context
    stopped_in_answers: Snapshot
    stopped_in_judgments: Snapshot
    picked: Snapshot
    picked_again: Snapshot
    evaluated: Snapshot
    evaluated_again: Snapshot


@pytest.fixture(scope="module")
def history(teacher: ServedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Pick, interrupted twice and finished; evaluate; and both once more. Three student engines."""
    folder = tmp_path_factory.mktemp("pick") / "run"
    folder.mkdir()
    config = embedded_config(
        **teacher.endpoints,
        student={"max_tokens": 32, "temperature": 0.7, "max_num_seqs": 4},
        pick={"bootstrap": 200, "beside": "no"},
    )
    with Store(folder / "corpus.duckdb") as store:
        context = Context(config, store, folder, Progress(io.StringIO(), plain=True))
        fill(context)
        yield History(
            context,
            call(pick, context, Interrupting("answers", 8)),
            call(pick, context, Interrupting("judgments", 10)),
            call(pick, context),
            call(pick, context),
            call(evaluate, context),
            call(evaluate, context),
        )


def test_every_checkpoint_answers_every_prompt_with_weights_of_its_own(history: History) -> None:
    rows = history.context.store.query(
        """
        SELECT a.model_id, count(*) AS asked, count(a.text) AS answered,
               count(DISTINCT model_fingerprint) AS fingerprints, min(model_fingerprint) AS weights,
               string_agg(a.text, '|' ORDER BY mix_id) AS texts
        FROM answer a LEFT JOIN turn t USING (turn_id) WHERE split = 'dev' GROUP BY ALL
        """
    )
    assert sorted(row["model_id"] for row in rows) == [f"epoch-{epoch:02d}" for epoch in EPOCHS]
    for row in rows:
        assert (row["asked"], row["answered"], row["fingerprints"]) == (6, 5, 1)
    assert len({row["weights"] for row in rows}) == len({row["texts"] for row in rows}) == 3


def test_a_prompt_that_the_student_cannot_read_is_a_failed_answer_with_its_reason(
    history: History,
) -> None:
    failed = [row for row in history.evaluated.answers if row["text"] is None]
    assert {row["mix_id"] for row in failed} == {"dev-4", "test-4"}
    assert len(failed) == 3 + 2
    assert all(row["finish_reason"] == "failed" and "400" in row["reason"] for row in failed)


def test_every_answer_is_judged_in_both_orders_and_what_does_not_fit_is_unscored(
    history: History,
) -> None:
    judged = {(row["answer_id"], row["answer_first"]) for row in history.picked.judgments}
    answered = [row["answer_id"] for row in history.picked.answers if row["text"] is not None]
    assert judged == {(answer_id, first) for answer_id in answered for first in (True, False)}
    for row in history.picked.judgments:
        if row["mix_id"] == "dev-0":
            assert row["preference"] is None and "400" in row["reason"]
        elif row["preference"] is None:
            assert "neither label" in row["reason"]
        else:
            assert 0 <= row["preference"] <= 1 and 1e-3 <= row["mass"] <= 1.0001


def test_an_interrupted_pick_keeps_what_it_has_and_adds_only_the_rest(history: History) -> None:
    first, second, last = (
        history.stopped_in_answers, history.stopped_in_judgments, history.picked,
    )  # fmt: skip
    assert 8 <= len(first.answers) < 18 and first.judgments == []
    assert len(second.answers) == len(last.answers) == 18
    assert 10 <= len(second.judgments) < len(last.judgments) == 30
    for earlier, later in ((first, second), (second, last)):
        assert [row for row in later.answers if row in earlier.answers] == earlier.answers
        assert [row for row in later.judgments if row in earlier.judgments] == earlier.judgments
    assert (first.scores, second.scores) == ([], [])
    assert last.engines == second.engines == 2


def test_a_second_call_adds_nothing_and_starts_no_engine(history: History) -> None:
    assert history.picked_again == history.picked
    assert history.evaluated_again == history.evaluated
    assert history.evaluated.engines == history.picked.engines + 1


def test_a_judge_beside_the_student_finds_the_same_before_all_have_answered(
    history: History, tmp_path: Path
) -> None:
    config = history.context.config
    beside = config.model_copy(
        update={"pick": config.pick.model_copy(update={"beside": "auto", "calibration": 0})}
    )
    with Store(tmp_path / "corpus.duckdb") as store:
        context = Context(beside, store, tmp_path, Progress(io.StringIO(), plain=True))
        fill(context)
        found = call(pick, context)
        early = store.value(
            "SELECT count(*) FROM turn WHERE role = 'judge' AND finished_at <"
            " (SELECT max(finished_at) FROM turn WHERE role = 'student')"
        )
    assert early > 0
    for ours, theirs in (
        (found.answers, history.picked.answers),
        (found.judgments, history.picked.judgments),
    ):
        assert [essence(row) for row in ours] == [essence(row) for row in theirs]


def essence(row: dict[str, Any]) -> dict[str, Any]:
    """A row with numbers as floats of four digits; its turn is of another ledger."""
    return {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in row.items()
        if key != "turn_id"
    }


def test_the_books_balance(history: History) -> None:
    check_books(history.context.store, BOOKS)
    rows = history.context.store.query("SELECT * FROM books")
    books = {row["stage"]: row for row in rows if row["stage"] in BOOKS}
    assert (books["pick/answers"]["planned"], books["pick/answers"]["failed"]) == (18, 3)
    assert books["pick/judgments"]["rejected"] >= 6
    assert books["evaluate/answers"]["planned"] == 12


def test_pick_chooses_one_checkpoint_and_counts_what_it_could_not_score(history: History) -> None:
    store = history.context.store
    assert (history.picked.summary or "").startswith("epoch ")
    assert store.value("SELECT count(*) FROM checkpoint WHERE picked") == 1
    assert store.value("SELECT count(*) FROM checkpoint WHERE picked AND tied") == 0
    curve = store.query("SELECT * FROM checkpoint_curve")
    best = max(curve, key=lambda row: row["lc_win_rate"])
    assert best["picked"]
    for row in history.picked.scores:
        if row["metric"] == "lc_win_rate":
            assert row["n"] + row["unscored"] == 6 and row["unscored"] >= 2
            assert row["low"] <= row["value"] <= row["high"]


def test_evaluate_compares_the_picked_checkpoint_with_the_base_on_test(history: History) -> None:
    store = history.context.store
    picked = store.value("SELECT checkpoint_id FROM checkpoint WHERE picked")
    models = store.query("SELECT DISTINCT model_id FROM answer WHERE split = 'test' ORDER BY ALL")
    assert [row["model_id"] for row in models] == ["base", picked]
    gain = store.query("SELECT * FROM score WHERE metric = 'preference_gain'")
    assert [(row["model_id"], row["split"]) for row in gain] == [(picked, "test")]
    means = store.query(
        """
        SELECT a.mix_id, avg(j.preference) FILTER (a.model_id <> 'base')
                         - avg(j.preference) FILTER (a.model_id = 'base') AS difference
        FROM answer a JOIN judgment j USING (answer_id)
        WHERE a.split = 'test' AND a.mix_id NOT IN ('test-0', 'test-4') GROUP BY a.mix_id
        """
    )
    expected = 100 * sum(row["difference"] for row in means) / len(means)
    assert gain[0]["value"] == pytest.approx(expected)
    assert (gain[0]["n"], gain[0]["unscored"]) == (4, 2)
    assert (history.evaluated.summary or "").startswith(f"{picked} ")
