"""A corpus as a whole run would leave it, with made words: for tests and benchmarks/report.py.

Rows of every table that the report reads, of any size, without a model call. Texts are random words
of the lengths that real teachers write; numbers are drawn, and mean nothing.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from localism.config import Config
from localism.store import Store

START = datetime(2026, 3, 2, 9, 0, 0)
VERBS = (
    "plan write check explain compare estimate repair design review sort measure translate teach "
    "draft debug price test cite weigh phrase order schedule question calm summarise defend map "
    "budget grade observe negotiate question_and_answer"
).split()
NOUNS = (
    "budgets essays proofs recipes gardens contracts lessons engines maps speeches diets bridges "
    "stories surveys loans circuits orchards habits archives tariffs melodies journeys reports "
    "clauses vaccines playlists experiments tickets forecasts rivers looms datasets gestures rules "
    "kitchens murals sensors ledgers verses trails batteries"
).split()
WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from "
    "water time plan number people first small large measure answer question reason result before "
    "after every between without because although careful simple clear exact several often rarely"
).split()
GATES = ("parsed", "complete", "length", "markers", "repetition", "refusal", "language",
         "duplicate", "skills", "shirker")  # fmt: skip
HOSTILE = "</script><script>document.title='broken'</script><!-- <img src=http://127.0.0.1:9/x>"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    train: int = 60
    dev: int = 8
    test: int = 12
    skills: int = 40
    clusters: int = 9
    epochs: int = 3
    words: int = 40
    """Of a response; real ones have some 250."""
    turns: int = 5
    trainings: int = 1


def fill(store: Store, config: Config, size: Size, seed: int = 0) -> None:
    """Write the rows of a finished run; the first train example holds text that tries to escape."""
    draw = random.Random(seed)
    store.add(
        "run", run_id="r", name="made", created_at=START, version="0.1.0",
        recipe=json.dumps(config.recipe()), recipe_hash=config.recipe_hash(), rehearsal=False,
    )  # fmt: skip
    _events(store, size)
    _sources(store, size, draw)
    names = _skills(store, size, draw)
    _examples(store, size, names, draw)
    _trainings(store, size, draw)
    _suites(store, draw)
    store.flush()


def text(draw: random.Random, words: int) -> str:
    parts = [draw.choice(WORDS) for _ in range(words)]
    return " ".join(parts).capitalize() + "."


def _events(store: Store, size: Size) -> None:
    stages = {
        "extract": 900, "cluster": 40, "mix": 2, "generate": 21000, "curate": 5400,
        "train": 9800, "pick": 4100, "evaluate": 900,
    }  # fmt: skip
    at = START
    for stage, seconds in stages.items():
        for kind, moment in (("started", at), ("finished", at + timedelta(seconds=seconds))):
            detail = {"summary": f"what stage {stage} said"} if kind == "finished" else {}
            store.add(
                "event", event_id=f"{stage}-{kind}", happened_at=moment, stage=stage,
                kind=f"stage_{kind}", detail=json.dumps(detail),
            )  # fmt: skip
        at += timedelta(seconds=seconds)
    store.add(
        "event", event_id="warned", happened_at=at, stage="cluster", kind="warning",
        detail=json.dumps({"problem": "a third of the skills are on their own"}),
    )  # fmt: skip
    for step in range(1, 63 * size.epochs):
        store.add(
            "event", event_id=f"step-{step}", happened_at=at, stage="train", kind="train_step",
            detail=json.dumps(
                {"training": "main", "step": step, "tokens": 90_000 * step,
                 "tokens_per_second": 21_000.0 + step % 7}
            ),
        )  # fmt: skip


def _sources(store: Store, size: Size, draw: random.Random) -> None:
    for role, path, parameters in (
        ("teacher", "/models/Llama-3.3-70B-Instruct", 70_553_706_496),
        ("student", "/models/Mistral-7B-v0.3", 7_248_023_552),
        ("embedder", "embedded:minilm", 22_713_728),
    ):
        store.add(
            "asset", asset_id=role, role=role, path=path, parameters=parameters,
            fingerprint=f"{draw.getrandbits(64):016x}", bytes=2 * parameters,
        )  # fmt: skip
    for ordinal in range(8):
        store.add(
            "query_type", query_type_id=f"q{ordinal}", name=f"type_{NOUNS[ordinal]}",
            definition=None, ordinal=ordinal, turn_id=None,
        )  # fmt: skip
    for ordinal in range(max(3, size.skills // 20)):
        store.add("topic", topic_id=f"t{ordinal}", name=text(draw, 2), ordinal=ordinal)


def _skills(store: Store, size: Size, draw: random.Random) -> list[str]:
    """Skills in clusters of shrinking size, the last fifth on their own; returns their ids."""
    every = [f"{verb}_{noun}" for noun in NOUNS for verb in VERBS]
    names = every[: size.skills]
    assert len(names) == size.skills, f"only {len(every)} names can be made"
    alone = size.skills // 5
    weights = [1 / (place + 2) for place in range(size.clusters)]
    homes = list(range(size.clusters)) + draw.choices(
        range(size.clusters), weights, k=size.skills - alone - size.clusters
    )
    middles = [(draw.uniform(-20, 20), draw.uniform(-18, 18)) for _ in range(size.clusters)]
    members: dict[int, list[int]] = {}
    for number, name in enumerate(names):
        home = homes[number] if number < len(homes) else size.clusters + number
        members.setdefault(home, []).append(number)
        x, y = middles[home] if home < size.clusters else (draw.gauss(0, 12), draw.gauss(0, 11))
        store.add(
            "skill", skill_id=f"s{number}", name=name, cluster_id=f"c{home}",
            rare=home >= size.clusters, count=draw.randint(1, 30), hdbscan_label=home,
            strength=0.7, map_x=x + draw.gauss(0, 0.8), map_y=y + draw.gauss(0, 0.8),
        )  # fmt: skip
        store.add(
            "skill_label", label_id=f"l{number}", raw=name, name=name, skill_id=f"s{number}",
            source="sda",
        )  # fmt: skip
    for home, numbers in members.items():
        first = names[numbers[0]]
        store.add(
            "cluster", cluster_id=f"c{home}", name=first, medoid=first, size=len(numbers),
        )  # fmt: skip
    for metric, value, warning in (
        ("clusters", float(size.clusters), None),
        ("noise_share", 0.36, "a third of the skills are on their own"),
    ):
        store.add("cluster_quality", metric=metric, value=value, warning=warning)
    return [f"s{number}" for number in range(size.skills)]


def _examples(store: Store, size: Size, skills: list[str], draw: random.Random) -> None:
    """Mixes of two skills, their conversations, verdicts, and answers and judgments on dev, test.

    The first skill is never accepted: a hole. Some two in a hundred calls fail.
    """
    ordinals = count()
    for split, examples in (("train", size.train), ("dev", size.dev), ("test", size.test)):
        for _ in range(examples):
            ordinal = next(ordinals)
            mix = f"{split}-{ordinal:05d}"
            store.add(
                "mix", mix_id=mix, ordinal=ordinal, k=2, query_type_id=f"q{ordinal % 8}",
                split=split,
            )  # fmt: skip
            pair = draw.sample(skills, 2)
            for position, skill in enumerate(pair):
                store.add("mix_skill", mix_id=mix, position=position, skill_id=skill)
            _candidate(store, mix, ordinal, size, draw, is_hole=skills[0] in pair)


def _candidate(
    store: Store, mix: str, ordinal: int, size: Size, draw: random.Random, *, is_hole: bool
) -> None:
    for turn in range(size.turns):
        _turn(store, f"{mix}-{turn}", f"{mix}-{turn - 1}" if turn else None, ordinal, turn, draw)
    last = f"{mix}-{size.turns - 1}" if size.turns else None
    if draw.random() < 0.02:
        store.add(
            "candidate", mix_id=mix, instruction=None, response=None, status="failed",
            reason="the server did not answer", turn_id=None, completion_tokens=0,
        )  # fmt: skip
        return
    failed = "skills" if is_hole else draw.choice(GATES) if draw.random() < 0.06 else None
    reason = f"{failed}: as it was made" if failed else None
    instruction = text(draw, 12 + size.words // 8)
    store.add(
        "candidate", mix_id=mix, instruction=f"{instruction} {HOSTILE if ordinal == 0 else ''}",
        response=text(draw, int(draw.gauss(size.words, size.words / 6))), turn_id=last,
        status="rejected" if failed else "accepted", reason=reason,
        completion_tokens=size.turns * size.words,
    )  # fmt: skip
    for gate in GATES:
        store.add(
            "verdict", mix_id=mix, gate=gate, passed=gate != failed,
            reason=reason if gate == failed else None, value=round(draw.random(), 3),
        )  # fmt: skip
        if gate == failed:
            break


def _turn(
    store: Store, turn_id: str, parent: str | None, ordinal: int, turn: int, draw: random.Random
) -> None:
    name = ("draft", "rewrite", "critique", "refine", "final")[turn % 5]
    ended = START + timedelta(seconds=1000 + ordinal * 5 + turn * 4)
    store.add(
        "turn", turn_id=turn_id, parent_id=parent, stage="generate", role="teacher", template=name,
        prompt="as it was asked", prompt_hash=f"{name}-{ordinal}", model_fingerprint="f",
        sampling='{"temperature": 0.7}', sample=0, text="as it was written", finish_reason="stop",
        prompt_tokens=600, completion_tokens=draw.randint(200, 500), seconds=18.0,
        finished_at=ended,
    )  # fmt: skip


def _trainings(store: Store, size: Size, draw: random.Random) -> None:
    for place in range(size.trainings):
        name = "main" if place == 0 else f"brevity-{place}0"
        if place:
            store.add(
                "training_set", set_name=name, kind="brevity", source="accepted", settings="{}",
                planned=size.train,
            )  # fmt: skip
        store.add("training", name=name, set_name="accepted" if place == 0 else name, seed=0)
        _checkpoints(store, name, size, draw, level=62.0 - 4 * place)
    _measured(store, "base", "test", size.test, {"win_rate": 21.3, "lc_win_rate": 20.2})
    _answers(store, "base", "test", 0.2, draw)


def _checkpoints(
    store: Store, training: str, size: Size, draw: random.Random, *, level: float
) -> None:
    picked = max(1, round(0.7 * size.epochs))
    for epoch in range(1, size.epochs + 1):
        own = f"epoch-{epoch:02d}"
        model = own if training == "main" else f"{training}/{own}"
        rate = level - 12 * (1 - epoch / size.epochs) ** 2 + draw.gauss(0, 0.7)
        store.add(
            "checkpoint", checkpoint_id=model, training=training, epoch=epoch, step=63 * epoch,
            path=own, fingerprint=own, train_loss=1.2 / epoch**0.4, dev_loss=1.0 + 0.01 * epoch,
            picked=epoch == picked, tied=abs(epoch - picked) <= 2,
        )  # fmt: skip
        values = {"win_rate": rate, "lc_win_rate": rate - 3, "mean_length": 1800.0 + 9 * epoch,
                  "skill_coverage": 88.0, "word_entropy": 9.1}  # fmt: skip
        _measured(store, model, "dev", size.dev, values)
        if epoch == picked:
            _measured(store, model, "test", size.test, values)
            _answers(store, model, "test", rate / 100, draw)
            if training == "main":
                _score(store, model, "test", "preference_gain", 40.2, 36.0, 44.1, size.test)


def _measured(store: Store, model: str, split: str, n: int, values: dict[str, float]) -> None:
    for metric, value in values.items():
        wide = 0.04 * value
        _score(store, model, split, metric, value, value - wide, value + wide, n)


def _score(
    store: Store, model: str, split: str, metric: str, value: float, low: float, high: float,
    n: int,
) -> None:  # fmt: skip
    note = "read the scores as a ranking" if metric == "lc_win_rate" else None
    store.add(
        "score", model_id=model, split=split, metric=metric, value=value, low=low, high=high, n=n,
        unscored=0, note=note,
    )  # fmt: skip


def _answers(store: Store, model: str, split: str, level: float, draw: random.Random) -> None:
    """An answer to each accepted prompt of the split, judged in both orders."""
    for row in store.query(
        "SELECT mix_id FROM mix JOIN candidate USING (mix_id)"
        f" WHERE split = '{split}' AND status = 'accepted' ORDER BY ordinal"
    ):
        answer = f"{model}-{row['mix_id']}"
        store.add(
            "answer", answer_id=answer, model_id=model, mix_id=row["mix_id"], split=split,
            text=text(draw, 60), finish_reason="stop",
        )  # fmt: skip
        for first in (False, True):
            store.add(
                "judgment", judgment_id=f"{answer}-{first}", answer_id=answer, model_id=model,
                mix_id=row["mix_id"], split=split, answer_first=first, mass=1.0,
                preference=min(1.0, max(0.0, draw.gauss(level, 0.2))),
            )  # fmt: skip


# suite, metric, scale's middle, half an interval, parts
BENCHMARKS = (
    ("alpacaeval", "lc_win_rate", 41.0, 2.9, ()),
    ("mt-bench", "score", 7.6, 0.3, ("writing", "roleplay", "reasoning", "math", "coding",
                                     "extraction", "stem", "humanities")),
    ("wildbench", "wb_reward", 11.5, 6.0, ("creative_tasks", "planning", "math_and_data",
                                           "information", "coding")),
)  # fmt: skip


def _suites(store: Store, draw: random.Random) -> None:
    models = ("base", "epoch-02", "Mistral-7B-Instruct-v0.3")
    for suite, metric, middle, half, parts in BENCHMARKS:
        store.add(
            "suite", suite=suite, protocol=suite, source=f"/data/{suite}.jsonl",
            fingerprint=f"{draw.getrandbits(64):016x}", items=805, is_sample=suite == "wildbench",
            note=None,
        )  # fmt: skip
        for model in models:
            level = middle - (0.4 * abs(middle) if model == "base" else draw.uniform(0, half))
            for part, spread in _parts(parts, half):
                value = level + (draw.gauss(0, half) if part else 0)
                store.add(
                    "suite_score", suite=suite, model_id=model, judge="Qwen2.5-72B",
                    metric=metric, part=part, value=value, low=value - spread,
                    high=value + spread, n=100 if part else 805, unscored=2,
                    note="two judgments could not be read" if suite == "mt-bench" else None,
                )  # fmt: skip
    for metric, value in (("agreement", 0.71), ("position_bias", 0.04), ("length_slope", 0.3)):
        store.add(
            "judge_check", judge="Qwen2.5-72B", metric=metric, value=value, low=value - 0.05,
            high=value + 0.05, n=200, unscored=1, note=None,
        )  # fmt: skip


def _parts(parts: tuple[str, ...], half: float) -> Iterator[tuple[str, float]]:
    yield "", half
    for part in parts:
        yield part, 2.5 * half


def config_of(make: Any) -> Config:
    """The recipe of a run with models of one's own; `make` is engines.embedded_config."""
    return make(
        teacher={"path": "/models/Llama-3.3-70B-Instruct"},
        judge={"same_as": "", "path": "/models/Qwen2.5-72B-Instruct"},
        student={"path": "/models/Mistral-7B-v0.3"},
    )  # type: ignore[no-any-return]
