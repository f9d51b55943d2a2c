"""WildBench v2: tasks of real users with a checklist each, graded alone and against references.

WB-Score: the judge grades an answer from 1 to 10. WB-Reward: it compares the answer with that of
each reference, one order an item, and its verdict is worth 1, 0.5, 0, -0.5 or -1. Both see the
conversation so far, the last message and the checklist. Means are taken over all that was judged;
the leaderboard's own way of dividing stands beside them. Rules: wildbench_rules.py.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localism.judging.means import Scale
from localism.judging.picking import Interval
from localism.records import Sampling
from localism.serving.client import Client
from localism.suites import intervals
from localism.suites.asking import on_scale, reasons, unusable, written
from localism.suites.records import Answer, Item, Judged, Judging, Judgment, Question, SuiteScore
from localism.suites.wildbench_files import read_items
from localism.suites.wildbench_rules import (
    CHOICES,
    HIGHEST,
    LOWEST,
    MARGIN,
    OFF,
    TASK_SHARES,
    is_empty,
    is_left_out,
    leaderboard_reward,
    read_reply,
    reward_of_empty,
    shown,
    with_margin,
)
from localism.tables import number_of

NAME, HEADLINE = "wildbench", "wb_score"
SAMPLES = 1
SCORE, PAIR = "wildbench-score", "wildbench-pair"
_ABOUT = {"history", "query", "checklist", "structured"}
PROMPTS: Mapping[str, Set[str]] = {SCORE: {*_ABOUT, "answer"}, PAIR: {*_ABOUT, "first", "second"}}
GRADE = {"type": "integer", "enum": [*range(LOWEST, HIGHEST + 1)]}
CHOICE = {"type": "string", "enum": [*CHOICES]}
SCORE_ASPECT, REWARD_ASPECT = "score", "reward:"
# The ends of what is averaged.
GRADES, ADJUSTED, REWARDS = (LOWEST, HIGHEST), (-8, 10), (-100, 100)
Array = NDArray[np.float64]


def read(source: Path) -> list[Item]:
    """The dataset v2 with its references; see wildbench_files.py."""
    return read_items(source, NAME)


def turns(item: Item) -> int:
    """One: what was said before it is the item's history."""
    return 1


def message(item: Item, turn: int, render: Callable[..., str]) -> str:
    """The last message as it is."""
    return item.turns[0]


def sampling(item: Item, turn: int, usual: Sampling) -> Sampling:
    """Greedy, as the benchmark's scripts do, and as long as usual."""
    return Sampling(0.0, 1.0, usual.max_tokens)


# ---- the judge -----------------------------------------------------------------------------


def questions(item: Item, answers: Sequence[Answer], judging: Judging) -> Iterator[Question]:
    """A grade, and a comparison with each reference."""
    for answer in answers:
        if answer.text is None:
            continue
        asked = {SCORE_ASPECT: partial(_score, item, answer.text, judging)}
        for model, reference in item.detail["references"].items():
            asked[REWARD_ASPECT + model] = partial(_reward, item, answer.text, reference, judging)
        for aspect, ask in asked.items():
            yield Question(item.item_id, answer.model_id, (aspect,), ask)


async def _score(item: Item, answer: str, judging: Judging, client: Client) -> list[Judged]:
    if is_empty(answer):
        return [Judged(float(LOWEST), None, "the answer is empty; the judge was not asked")]
    prompt = _prompt(SCORE, item, judging, answer=shown(answer))
    why = reasons(judging)
    found, reply, turn_id = await written(
        client, prompt, template=SCORE,
        fields={"strengths": why, "weaknesses": why, "score": GRADE},
        read=partial(read_reply, key="score"), judging=judging,
    )  # fmt: skip
    value = on_scale(found["score"], LOWEST, HIGHEST) if found else None
    if value is None:
        return [Judged(None, None, unusable(reply), turn_id)]
    return [Judged(value, f"{value:g}", None, turn_id)]


async def _reward(
    item: Item, answer: str, reference: str, judging: Judging, client: Client
) -> list[Judged]:
    decided = reward_of_empty(answer, reference)
    if decided is not None:
        return [Judged(decided, None, "an answer is empty; the judge was not asked")]
    is_first = item.detail["is_first"]
    first, second = (answer, reference) if is_first else (reference, answer)
    prompt = _prompt(PAIR, item, judging, first=shown(first), second=shown(second))
    why = reasons(judging)
    found, reply, turn_id = await written(
        client, prompt, template=PAIR,
        fields={"analysis of A": why, "analysis of B": why, "choice": CHOICE},
        read=partial(read_reply, key="choice"), judging=judging,
    )  # fmt: skip
    choice = str(found["choice"]).strip() if found else ""
    if choice not in CHOICES:
        return [Judged(None, None, unusable(reply), turn_id)]
    return [Judged(CHOICES[choice] if is_first else -CHOICES[choice], choice, None, turn_id)]


def _prompt(template: str, item: Item, judging: Judging, **texts: str) -> str:
    history = "\n\n".join(
        f"{said['role'].upper()}: {said['content']}" for said in item.detail["history"]
    )
    return judging.render(
        template,
        history=shown(history),
        query=shown(item.turns[0]),
        checklist=item.detail["checklist"],
        structured=judging.structured,
        **texts,
    )


# ---- scores --------------------------------------------------------------------------------


def scores(
    items: Sequence[Item],
    answers: Sequence[Answer],
    judgments: Sequence[Judgment],
    judging: Judging,
) -> Iterator[SuiteScore]:
    """WB-Score and, where there are references, WB-Reward in percent points.

    n and unscored count verdicts: an item has one grade, and one comparison for each reference.
    """
    for model in dict.fromkeys(answer.model_id for answer in answers):
        texts = {one.item_id: one.text for one in answers if one.model_id == model}
        verdicts = {
            (one.item_id, one.aspect): one.value for one in judgments if one.model_id == model
        }
        yield from _score_rows(model, items, verdicts, judging)
        yield from _reward_rows(model, items, texts, verdicts, judging)
        yield _length(model, [texts.get(item.item_id) for item in items])


Verdicts = Mapping[tuple[str, str], float | None]


def _score_rows(
    model: str, items: Sequence[Item], verdicts: Verdicts, judging: Judging
) -> Iterator[SuiteScore]:
    given = _values(items, [SCORE_ASPECT], verdicts)
    asked, tasks = np.ones_like(given, dtype=bool), _tasks(items)
    yield _mean(model, "wb_score", given, asked, judging, GRADES)
    adjusted = (given - 5) * 2
    note = "(wb_score - 5) * 2; the leaderboard shows ten times that"
    yield _mean(model, "wb_score_adjusted", adjusted, asked, judging, ADJUSTED, note=note)
    yield _macro(model, "wb_score_macro", adjusted, asked, tasks, judging, ADJUSTED, note)
    for task, inside in tasks.items():
        yield _mean(model, "wb_score", given, asked & inside, judging, GRADES, task)


def _reward_rows(
    model: str,
    items: Sequence[Item],
    texts: Mapping[str, str | None],
    verdicts: Verdicts,
    judging: Judging,
) -> Iterator[SuiteScore]:
    names = list(dict.fromkeys(name for item in items for name in item.detail["references"]))
    if not names:
        return
    asked = np.array([[name in item.detail["references"] for item in items] for name in names])
    given = _values(items, [REWARD_ASPECT + name for name in names], verdicts)
    tasks = _tasks(items)
    for margin, metric in ((OFF, "wb_reward"), (MARGIN, f"wb_reward_k{MARGIN}")):
        rewards = 100 * _under_margin(given, names, items, texts, margin)
        yield _mean(model, metric, rewards, asked, judging, REWARDS)
        yield _macro(model, f"{metric}_macro", rewards, asked, tasks, judging, REWARDS, None)
        yield _on_the_leaderboard(model, metric, rewards, names, items, texts)
        for row, name in enumerate(names):
            yield _mean(
                model, metric, rewards[[row]], asked[[row]], judging, REWARDS, f"against {name}"
            )
        for task, inside in tasks.items():
            yield _mean(model, metric, rewards, asked & inside, judging, REWARDS, task)


def _values(items: Sequence[Item], aspects: Sequence[str], verdicts: Verdicts) -> Array:
    """(aspects, items); NaN is unscored."""
    found = [[verdicts.get((item.item_id, aspect)) for item in items] for aspect in aspects]
    return np.array(found, dtype=float)


def _tasks(items: Sequence[Item]) -> dict[str, NDArray[np.bool_]]:
    """(N,) for each of the five tasks: whether an item belongs to it; it may belong to several."""
    return {task: np.array([task in item.tags for item in items]) for task in TASK_SHARES}


def _under_margin(
    given: Array,
    names: Sequence[str],
    items: Sequence[Item],
    texts: Mapping[str, str | None],
    margin: int,
) -> Array:
    """Rewards under the length rule, by the lengths that the judge saw."""
    ruled = given.copy()
    for row, column in np.argwhere(~np.isnan(given)):
        item = items[column]
        reference = item.detail["references"][names[row]]
        longer_by = len(shown(texts[item.item_id] or "")) - len(shown(reference))
        ruled[row, column] = with_margin(given[row, column], longer_by, margin)
    return ruled


def _mean(
    model: str,
    metric: str,
    values: Array,
    asked: NDArray[np.bool_],
    judging: Judging,
    scale: Scale,
    part: str = "",
    note: str | None = None,
) -> SuiteScore:
    """The plain mean over references of the means over items; values, asked: (references, items).

    References that none of these items has are left out.
    """
    there = asked.any(axis=1)
    values, asked = values[there], asked[there]
    counts = asked & ~np.isnan(values)
    value, bounds = intervals.weighted_means(
        np.where(counts, values, 0.0), counts, np.full(len(values), 1 / max(len(values), 1)),
        judging, scale,
    )  # fmt: skip
    n = int(counts.sum())
    return SuiteScore(model, metric, value, *bounds, n, int(asked.sum()) - n, part, note)


def _macro(
    model: str,
    metric: str,
    values: Array,
    asked: NDArray[np.bool_],
    tasks: Mapping[str, NDArray[np.bool_]],
    judging: Judging,
    scale: Scale,
    note: str | None,
) -> SuiteScore:
    """The weighted mean over tasks; none unless every task has a verdict of every reference."""
    counts = asked & ~np.isnan(values)
    in_task = np.concatenate([counts & tasks[task] for task in TASK_SHARES])
    shares = np.repeat([*TASK_SHARES.values()], len(values)) / len(values)
    repeated = np.tile(values, (len(TASK_SHARES), 1))
    value, bounds = intervals.weighted_means(
        np.where(in_task, repeated, 0.0), in_task, shares, judging, scale
    )
    n = int(counts.sum())
    if value is None:
        note = "a task has no verdict"
    return SuiteScore(model, metric, value, *bounds, n, int(asked.sum()) - n, note=note)


def _on_the_leaderboard(
    model: str,
    metric: str,
    rewards: Array,
    names: Sequence[str],
    items: Sequence[Item],
    texts: Mapping[str, str | None],
) -> SuiteScore:
    """As the leaderboard divides: empty and cut answers count as ties."""
    by_reference, left_out = [], 0
    for name, row in zip(names, rewards, strict=True):
        scored = [
            (item, value) for item, value in zip(items, row, strict=True) if not np.isnan(value)
        ]
        kept = [
            value
            for item, value in scored
            if not is_left_out(texts[item.item_id] or "")
            and not is_left_out(item.detail["references"][name])
        ]
        left_out += len(scored) - len(kept)
        by_reference.append(leaderboard_reward(kept, len(scored)))
    known = [value for value in by_reference if value is not None]
    value = sum(known) / len(known) if len(known) == len(names) else None
    n = int((~np.isnan(rewards)).sum())
    note = f"ties by rule, as an answer is empty or cut: {number_of(left_out, 'verdict')}"
    return SuiteScore(
        model, f"{metric}_leaderboard", value, None, None, n, rewards.size - n, note=note
    )


def _length(model: str, texts: Sequence[str | None]) -> SuiteScore:
    counted = [len(text) for text in texts if text is not None and not is_left_out(text)]
    bounds = Interval(None, None)
    value = sum(counted) / len(counted) if counted else None
    return SuiteScore(
        model, "mean_length", value, *bounds, len(counted), len(texts) - len(counted),
        note="characters; answers that are empty or were cut for the judge are left out",
    )  # fmt: skip
