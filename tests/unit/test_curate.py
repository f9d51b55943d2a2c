"""Stage curate on hand-made candidates in a real corpus: every gate rejects what it is for."""

import json
import random
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from engines import NewContext, embedded_config

from localism.config import Gate
from localism.context import Context
from localism.curation.candidate import Candidate, Verdict, words
from localism.curation.duplicates import Texts
from localism.curation.gates import Markers, complete, no_markers, parsed, says_skills
from localism.curation.meanings import Meanings
from localism.curation.strict import KEYS, Rejected, too_strict
from localism.errors import StageError
from localism.reporting.examples import rejected_examples
from localism.stages import curate
from localism.stages.curate_alike import kept_apart
from localism.store import Store

SKILLS = ("watering_herbs", "reading_thermometers")
INSTRUCTION = "My basil droops each noon on a window sill of 31 degrees. What do I do?"
RESPONSE = (
    "Read the thermometer at noon and again at six. Above 28 degrees move the herbs back from the"
    " glass, and water them in the morning until it drains."
)
MARKERS = Markers("### Instruction", "### Response", frozenset({"<|end|>"}))


def candidate(
    mix_id: str = "a", instruction: str | None = INSTRUCTION, response: str | None = RESPONSE,
    *, reason: str | None = None, finish_reason: str | None = "stop",
) -> Candidate:  # fmt: skip
    return Candidate(mix_id, "train", 0, SKILLS, instruction, response, reason, finish_reason)


# ---- gates that look at one candidate ------------------------------------------------------


def test_parsed_passes_an_example_and_keeps_the_parsers_reason() -> None:
    assert parsed(candidate()) == Verdict(True)
    assert parsed(candidate(instruction=None, response=None, reason="no markers")) == Verdict(
        False, "no markers"
    )


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (candidate(), None),
        (candidate(finish_reason=None), None),
        (candidate(finish_reason="length"), "cut off"),
        (candidate(response=f"{RESPONSE}\n```\nx = 1\n```"), None),
        (candidate(response=f"{RESPONSE}\n```\nx = 1"), "code fence not closed"),
        (
            candidate(
                instruction="室内のバジルの育て方は？", response="日に当てて水をやる。朝が良い。"
            ),
            None,
        ),
    ],
)
def test_complete_rejects_what_was_cut_off_or_is_a_scrap(
    one: Candidate, reason: str | None
) -> None:
    verdict = complete(one)
    assert (verdict.passed, verdict.reason) == (reason is None, reason)


@pytest.mark.parametrize(
    ("addition", "reason"),
    [
        ("", None),
        ("### First steps\nWater.", None),
        ("The response: a happy plant.", None),
        ("C# and #basil are words.", None),
        ("```\n### Response\nHuman: hi\n```", None),
        ("He said: I am no human. Assistant gardeners agree.", None),
        ("a < b and b > c, 5 </ 6", None),
        ("Herbs need watering; watering herbs is easy.", None),
        ("### Response\nWater.", "marker left in the text"),
        ("## Instruction\nWater?", "marker left in the text"),
        ("**Response:** Water.", "marker left in the text"),
        ("Instruction: Water?", "marker left in the text"),
        ("###", "bare ### left in the text"),
        ("And so on. ###", "bare ### left in the text"),
        ("Human: what else?", "chat role left in the text"),
        ("**Assistant:** nothing.", "chat role left in the text"),
        ("Bye.<|im_end|>", "control token left in the text"),
        ("Bye.<|end|>", "control token left in the text"),
        ("[INST] more [/INST]", "control token left in the text"),
        ("</think> Fine.", "control token left in the text"),
        ("```\n<|eot_id|>\n```", "control token left in the text"),
        ("This uses watering_herbs.", "skill named as in the prompt"),
    ],
)
@pytest.mark.parametrize("part", ["instruction", "response"])
def test_no_markers_rejects_what_the_machinery_left(
    part: str, addition: str, reason: str | None
) -> None:
    text = (INSTRUCTION if part == "instruction" else RESPONSE) + f"\n{addition}"
    verdict = no_markers(candidate(**{part: text}), MARKERS)
    assert (verdict.passed, verdict.reason) == (reason is None, reason)


def test_control_tokens_of_the_runs_own_tokenizers_are_refused() -> None:
    one = candidate(response=f"{RESPONSE} <turn_end>")
    assert no_markers(one, MARKERS).passed
    own = Markers(MARKERS.instruction, MARKERS.response, frozenset({"<turn_end>"}))
    assert not no_markers(one, own).passed


def test_a_run_refuses_the_control_tokens_of_its_models(context: Context) -> None:
    tokens = curate._markers(context).special_tokens
    assert {"<|end|>", "<|user|>"} <= tokens


def test_words_of_every_skill_are_looked_for_in_the_response() -> None:
    assert says_skills(candidate()) == Verdict(True, None, 1.0)
    lacks_one = candidate(response="Water the herbs in the morning, and never at noon.")
    reason = "does not show every skill: reading_thermometers"
    assert says_skills(lacks_one) == Verdict(False, reason, 0.5)


# ---- duplicates ----------------------------------------------------------------------------


def numbered(instructions: list[str]) -> list[Candidate]:
    return [candidate(str(index), text) for index, text in enumerate(instructions)]


def by_words(instructions: list[str], threshold: float = 0.85) -> dict[str, Verdict]:
    nothing = Meanings(np.zeros((0, 1)), seed=0)
    return kept_apart(numbered(instructions), Texts(instructions, threshold), nothing, {}, 1.0)


LONG = "my basil droops on the hot window sill every day at noon what should i do about it"


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (LONG, LONG.upper() + " ?!", "same instruction: 0"),
        (LONG, LONG + " now", "nearly the same instruction: 0, 0.94 of their 3-grams"),
        (LONG, LONG.replace("noon", "six"), None),
        (LONG, LONG.replace("basil", "mint").replace("noon", "six"), None),
        ("Go on", "go on!", "same instruction: 0"),
        ("Go on", "Go off", None),
        ("?!", "?!", "same instruction: 0"),
        ("?!", "!?", None),
    ],
)
def test_the_same_and_nearly_the_same_instruction_is_a_duplicate(
    first: str, second: str, reason: str | None
) -> None:
    verdicts = by_words([first, second])
    assert verdicts["0"] == Verdict(True)
    assert (verdicts["1"].passed, verdicts["1"].reason) == (reason is None, reason)


def test_a_duplicate_of_a_rejected_duplicate_is_compared_with_the_accepted() -> None:
    texts = [LONG, LONG + " now", LONG + " now please"]
    verdicts = by_words(texts)
    # The third is near the second (17 of 18) but not near enough to the first (16 of 18 passes).
    assert [verdicts[str(i)].passed for i in range(3)] == [True, False, False]
    assert verdicts["2"].reason == "nearly the same instruction: 0, 0.89 of their 3-grams"
    assert verdicts["2"].value == pytest.approx(16 / 18)


def brute_force(texts: list[str], threshold: float) -> list[int | None]:
    """For each text the kept one most like it, by comparing all pairs."""
    sets = [{tuple(w[i : i + 3]) for i in range(max(1, len(w) - 2))} for w in map(words, texts)]
    kept: list[int] = []
    found: list[int | None] = []
    for index, grams in enumerate(sets):
        like = [(-len(grams & sets[o]) / len(grams | sets[o]), o) for o in kept]
        like = [(negative, other) for negative, other in like if -negative >= threshold]
        found.append(min(like)[1] if like else None)
        if not like:
            kept.append(index)
    return found


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.85, 1.0])
def test_the_search_finds_exactly_what_comparing_all_pairs_finds(threshold: float) -> None:
    rng = random.Random(7)
    base = [[rng.choice("abcdefgh") for _ in range(rng.randint(1, 14))] for _ in range(60)]
    texts = []
    for _ in range(500):
        text = list(rng.choice(base))
        if rng.random() < 0.7:
            text[rng.randrange(len(text))] = rng.choice("abcdefgh")
        texts.append(" ".join(text))
    search, found = Texts(texts, threshold), []
    for index in range(len(texts)):
        match = search.find(index)
        found.append(match.kept if match else None)
        if match is None:
            search.keep(index)
    assert found == brute_force(texts, threshold)


def kept_by_meaning(vectors: np.ndarray, threshold: float, left_out: int = 0) -> list[int]:
    """Rows that Meanings keeps; every left_out-th row is not asked about."""
    meanings, kept = Meanings(vectors, seed=0), []
    for row in range(len(vectors)):
        if left_out and row % left_out == 0:
            continue
        near = meanings.nearest(row)
        if near is None or near.likeness < threshold:
            meanings.keep(row)
            kept.append(row)
    return kept


def directions(count: int, size: int) -> np.ndarray:
    """Unit vectors of which a third are close to an earlier one."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(count, size))
    near = rng.random(count) < 1 / 3
    vectors[near] = vectors[rng.integers(0, count // 2, near.sum())]
    vectors[near] += 0.03 * rng.normal(size=(near.sum(), size))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("left_out", [0, 7])
def test_the_search_by_vectors_keeps_what_comparing_all_pairs_keeps(left_out: int) -> None:
    vectors = directions(2_500, 12)  # more than two batches
    kept: list[int] = []
    for row in range(len(vectors)):
        if left_out and row % left_out == 0:
            continue
        if not kept or (vectors[kept] @ vectors[row]).max() < 0.98:
            kept.append(row)
    assert 100 < len(kept) < 2_000
    assert kept_by_meaning(vectors, 0.98, left_out) == kept


def test_the_search_by_vectors_finds_nearly_all_in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = directions(6_000, 24)
    exact = kept_by_meaning(vectors, 0.98)
    monkeypatch.setattr("localism.curation.meanings.EXACT_UP_TO", 1_000)
    in_cells = kept_by_meaning(vectors, 0.98)
    found = (len(vectors) - len(in_cells)) / (len(vectors) - len(exact))
    assert in_cells != exact or found == 1
    assert found > 0.99


def test_the_first_of_those_that_mean_the_same_is_kept_and_named() -> None:
    texts = [
        "one two three four",
        "five six seven eight",
        "nine ten eleven twelve",
        "one two three four",
    ]
    vectors = np.array([[1.0, 0.0], [0.96, 0.28]])
    verdicts = kept_apart(
        numbered(texts), Texts(texts, 0.85), Meanings(vectors, 0), {0: 0, 2: 1}, 0.95
    )
    assert verdicts["0"] == Verdict(True)
    assert verdicts["1"] == Verdict(True)  # no vector: it is compared by its words alone
    assert verdicts["2"].reason == "the same meaning: 0, cosine 0.960"
    assert verdicts["2"].value == pytest.approx(0.96)
    assert verdicts["3"].reason == "same instruction: 0"
    lenient = kept_apart(
        numbered(texts), Texts(texts, 0.85), Meanings(vectors, 0), {0: 0, 2: 1}, 0.97
    )
    assert lenient["2"].passed and lenient["2"].value == pytest.approx(0.96)


def test_the_search_stays_quick_for_many_texts_that_share_their_phrases() -> None:
    """Growth exponent under 1.5 from 4,000 to 16,000 template-like texts."""
    seconds = []
    for count in (4_000, 16_000):
        rng = np.random.default_rng(0)
        openings = ["could you please tell me", "i would like to know", "what is the best way to"]
        texts = [
            f"{openings[i % 3]} " + " ".join(f"w{n}" for n in rng.zipf(1.3, 40) % 5000)
            for i in range(count)
        ]
        started = time.process_time()
        search = Texts(texts, 0.85)
        for index in range(count):
            if search.find(index) is None:
                search.keep(index)
        seconds.append(time.process_time() - started)
    assert seconds[1] < seconds[0] * 4**1.5 + 0.5


# ---- the stage -----------------------------------------------------------------------------


def plan(store: Store, rows: list[tuple[str, str, int]]) -> None:
    """Mixes (mix_id, split, ordinal) that all mix the two SKILLS."""
    for skill in SKILLS:
        store.add(
            "skill", skill_id=skill, name=skill, cluster_id="c", rare=False, count=1,
            hdbscan_label=0, strength=1.0,
        )  # fmt: skip
    for mix_id, split, ordinal in rows:
        store.add("mix", mix_id=mix_id, ordinal=ordinal, k=2, query_type_id=None, split=split)
        for position, skill in enumerate(SKILLS):
            store.add("mix_skill", mix_id=mix_id, position=position, skill_id=skill)


def write(
    store: Store, mix_id: str, instruction: str | None, response: str | None = RESPONSE,
    *, status: str = "written", reason: str | None = None, finish_reason: str = "stop",
) -> None:  # fmt: skip
    turn_id = f"turn-{mix_id}"
    store.execute(
        """
        INSERT INTO turn SELECT ?, NULL, 'generate', 'teacher', 'refine', '', '', '', '{}', 0, '',
               NULL, ?, 1, 1, 0.1, now()::TIMESTAMP
        """,
        [turn_id, finish_reason],
    )
    store.add(
        "candidate", mix_id=mix_id, instruction=instruction, response=response, status=status,
        reason=reason, turn_id=turn_id,
    )  # fmt: skip


def decided(store: Store) -> dict[str, tuple[str, str | None]]:
    rows = store.query("SELECT mix_id, status, reason FROM candidate ORDER BY mix_id")
    return {row["mix_id"]: (row["status"], row["reason"]) for row in rows}


WORDS = embedded_config(curate={"skills": "words", "duplicates_by": "words"})
REJECTING = ("parsed", "complete", "markers", "skills", "duplicate")


@pytest.fixture
def context(new_context: NewContext) -> Context:
    return new_context(WORDS)


UNLIKE = [
    "Which mug keeps tea warm longest on a desk by a door?",
    "Our choir of nine sings flat from bar twelve on, and why is that?",
    "How many tiles of 30 cm does a hall of 4 by 2 metres take?",
    "Can you check this sum for the club's tax return: 14, 9, 81?",
    "The bus leaves at 6:40 and my shift ends at 6:35; what now?",
    "Please shorten this note to the neighbours about the hedge for me.",
    "My kite pulls to the left in wind over 20 knots, always.",
]


def test_each_candidate_is_decided_with_the_reason_of_the_first_failed_gate(
    context: Context,
) -> None:
    store = context.store
    names = ["t0", "d0", "good", "unparsed", "cut", "marker", "dull", "again", "failed"]
    splits = ["test", "dev"] + ["train"] * 7
    plan(store, list(zip(names, splits, range(9), strict=True)))
    write(store, "t0", UNLIKE[0])
    write(store, "d0", UNLIKE[1])
    write(store, "good", UNLIKE[2])
    write(store, "unparsed", None, None, reason="no response marker")
    write(store, "cut", UNLIKE[3], reason="cut off", finish_reason="length")
    write(store, "marker", UNLIKE[4], RESPONSE + "\n### Response\nWater.")
    write(store, "dull", UNLIKE[5], "Just do it as you always do it, and it will be fine then.")
    write(store, "again", UNLIKE[2].lower())
    write(store, "failed", None, None, status="failed", reason="HTTP 400: too long")
    summary = curate.run(context)
    assert decided(store) == {
        "t0": ("accepted", None),
        "d0": ("accepted", None),
        "good": ("accepted", None),
        "unparsed": ("rejected", "no response marker"),
        "cut": ("rejected", "cut off"),
        "marker": ("rejected", "marker left in the text"),
        "dull": ("rejected", "does not show every skill: watering_herbs, reading_thermometers"),
        "again": ("rejected", "same instruction: good"),
        "failed": ("failed", "HTTP 400: too long"),
    }
    assert summary == (
        "kept 3 of 8 (train 1, dev 1, test 1);"
        " out: 1 parsed, 1 complete, 1 markers, 1 skills, 1 duplicate"
    )
    gates = store.query(
        "SELECT mix_id, list(gate ORDER BY gate) AS gates FROM verdict GROUP BY mix_id"
    )
    met = {row["mix_id"]: row["gates"] for row in gates}
    # Of so few candidates the gate for shirkers has nothing to say.
    assert met["good"] == sorted(set(context.config.curate.gates) - {"shirker"})
    assert met["cut"] == ["complete", "parsed"]
    assert "failed" not in met
    books = store.query("SELECT * FROM books WHERE stage = 'curate'")[0]
    assert (books["planned"], books["accepted"], books["rejected"], books["pending"]) == (
        8,
        3,
        5,
        0,
    )
    rejections = store.query("SELECT gate, n FROM rejections WHERE status = 'rejected'")
    assert sorted(row["gate"] for row in rejections) == sorted(REJECTING)


def test_held_out_examples_win_over_train_whenever_they_were_written(context: Context) -> None:
    store = context.store
    plan(store, [("train", "train", 0), ("spare", "train", 1), ("dev", "dev", 2),
                 ("test", "test", 3), ("dev2", "dev", 4)])  # fmt: skip
    for mix_id in ("train", "dev", "test"):
        write(store, mix_id, UNLIKE[0])
    write(store, "spare", UNLIKE[1])
    write(store, "dev2", UNLIKE[2])
    curate.run(context)
    assert decided(store)["test"] == ("accepted", None)
    assert decided(store)["dev"] == ("rejected", "same instruction: test")
    assert decided(store)["train"] == ("rejected", "same instruction: test")


def test_a_train_example_accepted_earlier_gives_way_to_a_new_held_out_one(context: Context) -> None:
    store = context.store
    names = [("a", "train", 0), ("b", "train", 1), ("c", "dev", 2), ("d", "test", 3)]
    plan(store, names)
    for (mix_id, _, _), text in zip(names, UNLIKE, strict=False):
        write(store, mix_id, text)
    curate.run(context)
    assert {status for status, _ in decided(store).values()} == {"accepted"}
    plan(store, [("e", "test", 4)])
    write(store, "e", UNLIKE[0])
    curate.run(context)
    assert decided(store)["a"] == ("rejected", "same instruction: e")
    assert decided(store)["e"] == ("accepted", None)


def test_order_of_arrival_changes_nothing_and_a_second_call_neither(
    new_context: NewContext,
) -> None:
    outcomes = []
    for name, order in (("forth", 1), ("back", -1)):
        context = new_context(WORDS, name)
        splits = ["train", "train", "dev", "test", "train", "train", "train"]
        plan(context.store, [(str(i), split, i) for i, split in enumerate(splits)])
        for i in range(7)[::order]:
            write(context.store, str(i), UNLIKE[i % 5])
        first = curate.run(context)
        rows = context.store.query("SELECT * FROM verdict ORDER BY mix_id, gate")
        assert curate.run(context) == first
        assert context.store.query("SELECT * FROM verdict ORDER BY mix_id, gate") == rows
        outcomes.append((decided(context.store), rows))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0]["5"] == ("rejected", "same instruction: 0")


def test_a_split_without_a_single_accepted_example_stops_the_run_with_the_reasons(
    context: Context,
) -> None:
    store = context.store
    plan(store, [("a", "train", 0), ("b", "train", 1), ("c", "dev", 2), ("d", "test", 3)])
    write(store, "a", UNLIKE[0])
    write(store, "b", UNLIKE[1])
    write(store, "c", None, None, reason="no markers")
    write(store, "d", UNLIKE[3])
    for _ in range(2):  # the second call has nothing to decide and says the same
        with pytest.raises(StageError) as stopped:
            curate.run(context)
        assert stopped.value.problem == "no dev example of 1 passed the gates"
        assert stopped.value.where == "parsed: no markers (1)"
    assert decided(store)["a"] == ("accepted", None)


def test_only_the_gates_that_are_listed_run_and_in_their_order(new_context: NewContext) -> None:
    context = new_context(
        embedded_config(curate={"skills": "words", "gates": ["parsed", "skills", "complete"]})
    )
    plan(context.store, [("a", "train", 0), ("b", "train", 1), ("c", "dev", 2), ("d", "test", 3)])
    write(context.store, "a", UNLIKE[0])
    write(context.store, "b", UNLIKE[0], "Water it, and then the", finish_reason="length")
    write(context.store, "c", UNLIKE[0])
    write(context.store, "d", UNLIKE[3], f"{RESPONSE} Mail me: k.oduya84@northfield.co.uk.")
    curate.run(context)
    assert [status for status, _ in decided(context.store).values()] == [
        "accepted", "rejected", "accepted", "accepted",
    ]  # fmt: skip
    met = context.store.query("SELECT gate, passed FROM verdict WHERE mix_id = 'b' ORDER BY gate")
    assert [tuple(row.values()) for row in met] == [("parsed", True), ("skills", False)]


def test_an_instruction_of_a_benchmark_is_rejected_in_every_split(
    new_context: NewContext, tmp_path: Path
) -> None:
    (tmp_path / "bench.jsonl").write_text(json.dumps({"prompt": UNLIKE[0]}) + "\n")
    context = new_context(
        embedded_config(
            curate={
                "skills": "words",
                "duplicates_by": "words",
                "benchmarks": [str(tmp_path / "bench.jsonl")],
                "overlap_cosine": 1,
            }
        )
    )
    rows = [("a", "train", 0), ("b", "train", 1), ("c", "dev", 2), ("d", "test", 3)]
    plan(context.store, rows)
    for (mix_id, _, _), text in zip(rows, UNLIKE, strict=False):
        write(context.store, mix_id, text)
    curate.run(context)
    reason = "a benchmark's prompt: bench.jsonl line 1"
    assert decided(context.store)["a"] == ("rejected", reason)
    assert {status for status, _ in list(decided(context.store).values())[1:]} == {"accepted"}


def test_a_judged_example_that_an_earlier_gate_rejects_later_has_one_failed_verdict(
    new_context: NewContext,
) -> None:
    """The judge's old verdict of it goes: it would count as a second rejection."""
    order = ["parsed", "duplicate", "skills"]
    context = new_context(embedded_config(curate={"duplicates_by": "words", "gates": order}))
    names = [("a", "train", 0), ("b", "train", 1), ("c", "dev", 2), ("d", "test", 3)]
    plan(context.store, [*names, ("e", "test", 4)])
    for (mix_id, _, _), text in zip(names, UNLIKE, strict=False):
        write(context.store, mix_id, text)
    judged = {"a": False, "b": True, "c": True, "d": True}
    context.store.add_rows(
        "verdict",
        [
            {
                "mix_id": m,
                "gate": "skills",
                "passed": p,
                "reason": None if p else "no",
                "value": 0.5,
            }
            for m, p in judged.items()
        ],
    )
    curate.run(context)
    assert decided(context.store)["a"] == ("rejected", "no")
    write(context.store, "e", UNLIKE[0])
    context.store.add("verdict", mix_id="e", gate="skills", passed=True, reason=None, value=0.9)
    curate.run(context)
    failed = context.store.query("SELECT gate FROM verdict WHERE mix_id = 'a' AND NOT passed")
    assert [row["gate"] for row in failed] == ["duplicate"]
    assert decided(context.store)["a"] == ("rejected", "same instruction: e")


def test_a_gate_that_rejects_most_is_named_with_three_examples_and_its_key(
    new_context: NewContext,
) -> None:
    curate_table = {"skills": "words", "duplicates_by": "words", "max_response_tokens": 60}
    context = new_context(embedded_config(curate={**curate_table, "gates": ["parsed", "length"]}))
    names = [(f"m{i:02}", "train", i) for i in range(18)] + [("d", "dev", 18), ("t", "test", 19)]
    plan(context.store, names)
    for place, (mix_id, _, _) in enumerate(names):
        write(context.store, mix_id, f"{UNLIKE[0]} {place}", "Water. " * (40 if place < 11 else 5))
    summary = curate.run(context).splitlines()
    alarm = (
        "gate length rejected 11 of the 20 examples that reached it (11: response longer than 60"
        " tokens), for instance m00, m01, m02: read them with `localism why`; if they are good,"
        " change [curate].min_instruction_tokens, max_instruction_tokens, min_response_tokens or"
        " max_response_tokens"
    )
    assert summary == ["kept 9 of 20 (train 7, dev 1, test 1); out: 11 length", alarm]
    warned = context.store.query("SELECT detail FROM event WHERE kind = 'warning'")
    detail = json.loads(warned[0]["detail"])
    assert len(warned) == 1 and detail["problem"] == alarm
    assert (detail["gate"], detail["examples"]) == ("length", ["m00", "m01", "m02"])


def test_half_of_the_examples_or_few_are_no_alarm() -> None:
    rejected = [Rejected(str(i), "cut off") for i in range(15)]
    assert too_strict("complete", 19, rejected) is None
    assert too_strict("complete", 30, rejected) is None
    assert "15 of the 29" in (too_strict("complete", 29, rejected) or "")
    assert get_args(Gate) == tuple(KEYS)


def test_reasons_are_grouped_by_what_stands_before_their_figures(context: Context) -> None:
    names = [(f"m{i}", "train", i) for i in range(4)] + [("dev", "dev", 6), ("test", "test", 7)]
    plan(context.store, names)
    write(context.store, "m0", UNLIKE[0], "And so it is again. " * 30)
    write(context.store, "m1", UNLIKE[1], "And so it is once more now. " * 40 + RESPONSE)
    write(context.store, "m2", UNLIKE[2], RESPONSE + " Mail j.k.oduya84@northfield.co.uk.")
    write(context.store, "m3", UNLIKE[3])
    write(context.store, "dev", UNLIKE[5])
    write(context.store, "test", UNLIKE[6])
    curate.run(context)
    rows = context.store.query("SELECT gate, reason, n FROM rejections ORDER BY gate")
    assert [tuple(row.values()) for row in rows] == [
        ("personal_data", "personal data", 1),
        ("repetition", "the same words over and over", 2),
    ]
    values = context.store.query(
        "SELECT reason, value FROM verdict WHERE NOT passed AND gate = 'repetition' ORDER BY reason"
    )
    assert [row["reason"] for row in values] == [
        f"the same words over and over: {row['value']:.2f} of its words" for row in values
    ]


def test_the_report_is_given_three_shortened_rejected_examples_a_gate(context: Context) -> None:
    names = [(f"m{i}", "train", i) for i in range(6)] + [("dev", "dev", 6), ("test", "test", 7)]
    plan(context.store, names)
    for i in range(5):
        write(context.store, f"m{i}", UNLIKE[i], "<b>No.</b> " + "And so on. " * 90)
    write(context.store, "m5", None, None, reason="no markers")
    write(context.store, "dev", UNLIKE[5])
    write(context.store, "test", UNLIKE[6])
    with pytest.raises(StageError, match="train"):
        curate.run(context)
    rows = rejected_examples(context.store, long=400)
    assert [(row["gate"], row["n"], row["mix_id"]) for row in rows] == [
        ("repetition", 5, "m0"),
        ("repetition", 5, "m1"),
        ("repetition", 5, "m2"),
        ("parsed", 1, "m5"),
    ]
    assert rows[0]["instruction"] == UNLIKE[0]
    assert len(rows[0]["response"]) == 402 and rows[0]["response"].endswith(" …")
