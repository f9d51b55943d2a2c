"""Suites in the corpus: items, answers and judgments read and written, scores replaced."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from localism.records import Sampling, stable_id
from localism.serving.client import Client, RequestFailed
from localism.store import Row, Store
from localism.suites.prompts import Render
from localism.suites.records import Answer, Item, Judged, Judging, Judgment, Question, SuiteScore
from localism.suites.staging import Staged


def note(store: Store, staged: Staged) -> None:
    """Put down which version of a suite this run is evaluated on, and its items."""
    store.execute("DELETE FROM suite WHERE suite = ?", [staged.name])
    store.add(
        "suite",
        suite=staged.name,
        protocol=staged.protocol.NAME,
        source=staged.source,
        fingerprint=staged.fingerprint,
        items=len(staged.items),
        is_sample=staged.is_sample,
        note=staged.note,
    )
    store.add_rows("suite_item", [_item_row(n, item) for n, item in enumerate(staged.items)])
    store.flush()


def _item_row(ordinal: int, item: Item) -> Row:
    return {
        "item_id": item.item_id,
        "suite": item.suite,
        "ordinal": ordinal,
        "own_id": item.own_id,
        "turns": list(item.turns),
        "reference": item.reference,
        "category": item.category,
        "tags": list(item.tags),
        "detail": json.dumps(dict(item.detail), ensure_ascii=False),
    }


# ---- answers -------------------------------------------------------------------------------


def evaluated(store: Store, staged: Staged) -> dict[str, list[str]]:
    """By judge: whoever answered every item of the suite and was judged by it, the base first."""
    items = [item.item_id for item in staged.items]
    rows = store.query(
        "WITH whole AS (SELECT model_id FROM suite_answer WHERE suite = ?"
        " AND list_contains(?, item_id) GROUP BY model_id HAVING count(DISTINCT item_id) = ?)"
        " SELECT judge, model_id FROM suite_judgment JOIN whole USING (model_id)"
        " WHERE suite = ? AND list_contains(?, item_id) GROUP BY judge, model_id"
        " ORDER BY judge, model_id <> 'base', model_id",
        [staged.name, items, len(items), staged.name, items],
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["judge"], []).append(row["model_id"])
    return found


def answers_of(store: Store, staged: Staged, model_ids: Sequence[str]) -> list[Answer]:
    """What these models answered to the suite's items, in the items' order."""
    rows = store.query(
        "SELECT model_id, item_id, turn, sample, text, finish_reason FROM suite_answer"
        " WHERE suite = ? AND list_contains(?, model_id) ORDER BY sample, turn",
        [staged.name, list(model_ids)],
    )
    place = {item.item_id: index for index, item in enumerate(staged.items)}
    found = [Answer(**row) for row in rows if row["item_id"] in place]
    return sorted(
        found, key=lambda answer: (model_ids.index(answer.model_id), place[answer.item_id])
    )


def unanswered(store: Store, staged: Staged, model_id: str) -> list[tuple[Item, int]]:
    """The (item, sample) conversations that are not finished: a last or a failed turn ends one."""
    rows = store.query(
        "SELECT item_id, sample, max(turn) AS turns, bool_or(text IS NULL) AS has_failed"
        " FROM suite_answer WHERE suite = ? AND model_id = ? GROUP BY item_id, sample",
        [staged.name, model_id],
    )
    turns = {item.item_id: staged.protocol.turns(item) for item in staged.items}
    done = {
        (row["item_id"], row["sample"])
        for row in rows
        if row["has_failed"] or row["turns"] >= turns.get(row["item_id"], 0)
    }
    every = [(item, n) for item in staged.items for n in range(staged.protocol.SAMPLES)]
    return [(item, n) for item, n in every if (item.item_id, n) not in done]


async def answer_all(
    client: Client,
    store: Store,
    staged: Staged,
    model_id: str,
    asked: Iterable[tuple[Item, int]],
    usual: Sampling,
    render: Render,
    on_done: Callable[[], None],
) -> None:
    """Hold each conversation; one answer row a turn, a failed call ends it with its reason."""

    async def work(one: tuple[Item, int]) -> None:
        item, sample = one
        conversation = client.conversation(sample)
        conversation.begin(item.detail.get("history", ()))
        for turn in range(1, staged.protocol.turns(item) + 1):
            row = {"text": None, "finish_reason": "failed", "reason": None, "turn_id": None}
            try:
                reply = await conversation.say(
                    staged.protocol.message(item, turn, render),
                    template="instruction",
                    sampling=staged.protocol.sampling(item, turn, usual),
                )
                row |= {"text": reply.text, "finish_reason": reply.finish_reason}
                row["turn_id"] = reply.turn_id
            except RequestFailed as failed:
                row["reason"] = str(failed)
            store.add(
                "suite_answer",
                suite_answer_id=stable_id(item.item_id, model_id, turn, sample),
                suite=staged.name,
                item_id=item.item_id,
                model_id=model_id,
                turn=turn,
                sample=sample,
                **row,
            )
            if row["text"] is None:
                break
        on_done()

    await client.for_each(asked, work)


# ---- judgments -----------------------------------------------------------------------------


def judgments_of(
    store: Store, staged: Staged, model_ids: Sequence[str], judge: str
) -> list[Judgment]:
    """What a judge said of these models' answers to the suite's items."""
    rows = store.query(
        "SELECT item_id, model_id, aspect, sample, value, label FROM suite_judgment"
        " WHERE suite = ? AND judge = ? AND list_contains(?, model_id)"
        " ORDER BY item_id, model_id, aspect, sample",
        [staged.name, judge, list(model_ids)],
    )
    known = {item.item_id for item in staged.items}
    return [Judgment(**row) for row in rows if row["item_id"] in known]


def unjudged(
    store: Store, staged: Staged, model_ids: Sequence[str], judge: str, judging: Judging
) -> list[Question]:
    """The questions to the judge that have no judgment yet, item by item, models last."""
    answers = answers_of(store, staged, model_ids)
    by_item: dict[str, dict[str, list[Answer]]] = {}
    for answer in answers:
        by_item.setdefault(answer.item_id, {}).setdefault(answer.model_id, []).append(answer)
    done = {
        (one.item_id, one.model_id, one.aspect, one.sample)
        for one in judgments_of(store, staged, model_ids, judge)
    }
    return [
        question
        for item in staged.items
        for of_model in by_item.get(item.item_id, {}).values()
        for question in staged.protocol.questions(item, of_model, judging)
        if not {
            (question.item_id, question.model_id, aspect, question.sample)
            for aspect in question.aspects
        } <= done
    ]  # fmt: skip


async def judge_all(
    client: Client,
    store: Store,
    staged: Staged,
    judge: str,
    questions: Iterable[Question],
    on_done: Callable[[], None],
) -> None:
    """Ask each question; one judgment row an aspect, unscored ones with their reason."""

    async def work(question: Question) -> None:
        try:
            verdicts = await question.ask(client)
        except RequestFailed as failed:
            verdicts = [Judged(None, None, str(failed))] * len(question.aspects)
        for aspect, judged in zip(question.aspects, verdicts, strict=True):
            key = (question.item_id, question.model_id, judge, aspect, question.sample)
            store.add(
                "suite_judgment",
                suite_judgment_id=stable_id(*key),
                suite=staged.name,
                item_id=question.item_id,
                model_id=question.model_id,
                judge=judge,
                aspect=aspect,
                sample=question.sample,
                **asdict(judged),
            )
        on_done()

    await client.for_each(questions, work)


# ---- scores --------------------------------------------------------------------------------


def drop_scores(store: Store, suite: str) -> None:
    """Forget every score of a suite: they are made of rows that stay, over the items of a call."""
    store.execute("DELETE FROM suite_score WHERE suite = ?", [suite])


def replace_scores(store: Store, suite: str, judge: str, scores: Sequence[SuiteScore]) -> None:
    """Write scores of a suite by a judge, in place of those that the models named had."""
    models = sorted({score.model_id for score in scores})
    with store.transaction():
        store.execute(
            "DELETE FROM suite_score WHERE suite = ? AND judge = ? AND list_contains(?, model_id)",
            [suite, judge, models],
        )
        rows = [{"suite": suite, "judge": judge, **asdict(score)} for score in scores]
        store.add_rows("suite_score", rows)
