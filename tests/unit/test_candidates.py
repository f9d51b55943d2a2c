"""Stage generate without a model: conversations -> candidates, the order of work, the alarm."""

import pytest

from localism.errors import StageError
from localism.parsing.example import Example
from localism.prompting.packs import Pack, Turn, load_pack
from localism.records import Mix, Reply
from localism.stages.generate import (
    EarlyAlarm,
    Said,
    heard,
    in_order,
    is_cut_off,
    prompt_values,
    read_candidate,
    sample_numbers,
)

PACK = load_pack("compact")


def mix(ordinal: int, skills: tuple[str, ...] = ("a_b", "c_d"), kind: str | None = "how_to") -> Mix:
    return Mix(f"mix-{ordinal}", ordinal, "train", skills, kind, f"{kind} defined")


def said(*texts: str, finish_reason: str = "stop", pack: Pack = PACK) -> list[Said]:
    """A conversation through the turns that always run."""
    conversation: list[Said] = []
    turns = [turn for turn in pack.turns if not turn.only_if_cut_off]
    for turn, text in zip(turns, texts, strict=True):
        reply = Reply(f"turn-{turn.name}", text, finish_reason, 1, 1, False)
        conversation.append(heard(turn, reply, conversation, pack))
    return conversation


DRAFT = "### Instruction\nDraft?\n### Response\nDraft."
CRITIQUE = "### Instruction\nis vague\n### Response\nis dull"
REFINED = "### Instruction\nRefined?\n### Response\nRefined."


def row(instruction: str | None, response: str | None, reason: str | None) -> dict[str, object]:
    return {
        "mix_id": "mix-0",
        "instruction": instruction,
        "response": response,
        "status": "written",
        "reason": reason,
        "turn_id": "turn-refine",
        "completion_tokens": 3,
    }


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        (said(DRAFT, CRITIQUE, REFINED), row("Refined?", "Refined.", None)),
        (said(DRAFT, CRITIQUE, "### Response\nAlone."), row("Draft?", "Alone.", None)),
        (said("I", CRITIQUE, "### Response\nAlone."), row(None, None, "no instruction marker")),
        (said(DRAFT, CRITIQUE, "Thanks."), row(None, None, "no markers")),
        (
            said(DRAFT, CRITIQUE, REFINED, finish_reason="length"),
            row("Refined?", "Refined.", "cut off"),
        ),
        (
            said(DRAFT, CRITIQUE, "### Instruction\nHalf", finish_reason="length"),
            row(None, None, "no response marker"),
        ),
    ],
)
def test_the_last_reply_is_the_candidate(
    conversation: list[Said], expected: dict[str, object]
) -> None:
    assert read_candidate(mix(0), conversation) == expected


AS_JSON = '{"instruction": "Asked?", "response": "Answered."}'


def test_an_example_as_json_is_read_and_one_that_breaks_off_is_not() -> None:
    whole = read_candidate(mix(0), said(DRAFT, CRITIQUE, AS_JSON))
    assert (whole["instruction"], whole["response"]) == ("Asked?", "Answered.")
    broken = read_candidate(mix(0), said(DRAFT, CRITIQUE, AS_JSON[:-5], finish_reason="length"))
    assert (broken["instruction"], broken["reason"]) == (None, "JSON not readable")


def reply(text: str, finish_reason: str = "stop") -> Reply:
    return Reply("t", text, finish_reason, 1, 1, False)


def turn(name: str) -> Turn:
    (found,) = (turn for turn in PACK.turns if turn.name == name)
    return found


@pytest.mark.parametrize(
    ("text", "finish_reason", "expected"),
    [
        (DRAFT, "stop", False),
        (DRAFT, "length", True),
        (DRAFT + "\n```python\nx = 1", "stop", True),
        (DRAFT + "\n```python\nx = 1\n```", "stop", False),
        ("### Instruction\nHalf", "stop", True),
        ("### Instruction\nWhole?\n### Response", "stop", True),
        ("<think>On and on", "stop", True),
        (AS_JSON[:-5], "stop", True),
        (AS_JSON, "stop", False),
        ("I refuse.", "stop", False),
        ("I refuse.", "length", True),
        ("", "stop", False),
    ],
)
def test_a_reply_is_cut_off_at_the_limit_or_when_its_example_was_begun_and_not_ended(
    text: str, finish_reason: str, expected: bool
) -> None:
    assert is_cut_off(heard(turn("draft"), reply(text, finish_reason), [], PACK)) is expected


@pytest.mark.parametrize(("finish_reason", "expected"), [("stop", False), ("length", True)])
def test_a_critique_holds_no_example_and_is_cut_off_at_the_limit_alone(
    finish_reason: str, expected: bool
) -> None:
    one = heard(turn("critique"), reply("### Instruction\nis half", finish_reason), [], PACK)
    assert one.example is None and is_cut_off(one) is expected


def test_a_rewritten_response_keeps_the_instruction_of_the_draft_that_was_cut_off() -> None:
    cut = heard(
        turn("draft"), reply("### Instruction\nAsked?\n### Response\nHal", "length"), [], PACK
    )
    whole = heard(turn("refine"), reply("### Response\nWhole."), [cut], PACK)
    assert whole.example == Example("Asked?", "Whole.")


def test_mixes_with_the_same_prompt_are_samples_of_it_and_others_are_first_samples() -> None:
    mixes = [mix(0), mix(1, ("e_f", "g_h")), mix(2), mix(3, kind="letter"), mix(4)]
    expected = {"mix-0": 0, "mix-1": 0, "mix-2": 1, "mix-3": 0, "mix-4": 2}
    assert sample_numbers(mixes) == sample_numbers(mixes[::-1]) == expected


def test_a_later_mix_leaves_the_sample_numbers_of_earlier_ones() -> None:
    mixes = [mix(ordinal) for ordinal in range(4)]
    assert sample_numbers(mixes[:2]).items() <= sample_numbers(mixes).items()


def test_work_follows_the_plan_and_puts_one_query_type_together_within_a_window() -> None:
    mixes = [mix(ordinal, kind="ab"[ordinal % 2]) for ordinal in range(8)]
    assert [m.ordinal for m in in_order(mixes[::-1], 4)] == [0, 2, 1, 3, 4, 6, 5, 7]


def test_a_mix_without_query_type_renders_a_draft_without_one() -> None:
    assert prompt_values(mix(0, kind=None))["query_type"] is None
    assert "how_to" in PACK.render("draft", **prompt_values(mix(0)))


def note(alarm: EarlyAlarm, text: str, *, status: str = "written", finish: str = "stop") -> None:
    conversation = said(DRAFT, CRITIQUE, text, finish_reason=finish)
    candidate = read_candidate(mix(0), conversation)
    alarm.note({**candidate, "status": status}, conversation)


def test_the_alarm_shows_three_replies_and_a_way_out() -> None:
    alarm = EarlyAlarm(PACK)
    for index in range(24):
        note(alarm, REFINED)
        note(alarm, f"I refuse, number {index}. " + "Because. " * 100)
    note(alarm, "I refuse.")
    with pytest.raises(StageError) as stopped:
        note(alarm, "### Instruction\nHalf")
    assert stopped.value.problem == "26 of the first 50 conversations gave no example"
    assert "no markers (25); no response marker (1)" in stopped.value.where
    assert stopped.value.where.count("I refuse, number") == 3
    assert len(stopped.value.where) < 2000
    assert "localism fork" in stopped.value.fix


def test_the_alarm_says_when_the_token_limit_is_to_blame() -> None:
    alarm = EarlyAlarm(PACK)
    with pytest.raises(StageError, match="26 of the first 26") as stopped:
        for _ in range(50):
            note(alarm, "### Instruction\nHalf", finish="length")
    assert "max_tokens" in stopped.value.fix


def test_half_is_not_more_than_half_and_later_ones_do_not_count() -> None:
    alarm = EarlyAlarm(PACK)
    for _ in range(25):
        note(alarm, REFINED)
        note(alarm, "I refuse.")
    for _ in range(100):
        note(alarm, "I refuse.")
