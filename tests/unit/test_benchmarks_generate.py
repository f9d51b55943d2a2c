"""The load of benchmarks/generate.py, which has to be the same for every side."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from generate import make_load, result_of, rotated  # noqa: E402  (benchmarks/ is no package)
from generate_load import FEWEST_TOKENS, MAX_MODEL_LEN, MOST_TOKENS, Load  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from localism.paths import embedded  # noqa: E402

FIVE = Load("five", True, 40, 32)


def test_every_side_gets_the_same_lengths_and_temperatures() -> None:
    sides = [list(FIVE.held_by(side, 1)) for side in "abc"]

    asked = [[[request[2:] for request in turns] for turns in side] for side in sides]
    assert asked[0] == asked[1] == asked[2]
    assert sum(r.max_tokens for turns in sides[0] for r in turns) == FIVE.tokens(1)


def test_no_two_conversations_of_any_side_or_pass_begin_alike() -> None:
    first = [turns[0].prompt for side in "ab" for n in (1, 2) for turns in FIVE.held_by(side, n)]

    assert len(set(first)) == len(first) == 4 * 40
    assert len({len(prompt) for prompt in first}) == 1


def test_five_turns_vary_in_length_and_differ_from_pass_to_pass() -> None:
    drawn = [length for lengths in FIVE.lengths(1) for length in lengths]

    assert len(drawn) == 5 * 40
    assert FEWEST_TOKENS <= min(drawn) and max(drawn) <= MOST_TOKENS
    assert max(drawn) > 4 * sorted(drawn)[len(drawn) // 2]
    assert FIVE.lengths(1) == FIVE.lengths(1) != FIVE.lengths(2)


def test_the_longest_conversation_fits_into_the_context() -> None:
    tokenizer = Tokenizer.from_file(str(embedded("embedded:teacher") / "tokenizer.json"))
    around_a_message = 8  # role and end marks of the chat template
    for one_pass in range(20):
        for turns in make_load("tiny", "wide", None).held_by("a", one_pass):
            prompts = sum(len(tokenizer.encode(r.prompt).ids) + around_a_message for r in turns)
            replies = sum(r.max_tokens + around_a_message for r in turns)
            assert prompts + replies <= MAX_MODEL_LEN


def test_each_round_begins_with_the_next_side() -> None:
    assert [rotated("abc", n) for n in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"],
    ]  # fmt: skip


def test_ratios_are_taken_within_a_round() -> None:
    def passes(*rates: float) -> list[dict[str, float]]:
        return [{"tokens_per_second": rate, "cpu_seconds": 1.0} for rate in rates]

    ratios = result_of({"localism": passes(10, 100, 30), "raw": passes(5, 50, 60)})["localism_over"]

    assert ratios["raw"] == {"median": 2.0, "lowest": 0.5, "highest": 2.0, "cpu": 1.0}
