"""Differences of two trainings against a slow reference, and which pairing is taken."""

import math
import random
import statistics

import numpy as np
import pytest

from localism.judging.differences import (
    Judged,
    difference,
    effect_size,
    unpaired_interval,
)


def judged(values, *, prompts="p", tuples="t", rule="r") -> list[Judged]:
    """A side whose prompts are called p0, p1, ..."""
    return [
        Judged(f"{prompts}{i}", f"{tuples}{i}" if tuples else None, rule, value)
        for i, value in enumerate(values)
    ]


def sides(n: int, *, seed: int = 1) -> tuple[list[float], list[float]]:
    """Preferences that share the difficulty of their prompts; the first is .1 better."""
    rng = random.Random(seed)
    hard = [rng.uniform(0.1, 0.8) for _ in range(n)]
    return [h + 0.1 + rng.gauss(0, 0.02) for h in hard], [h + rng.gauss(0, 0.02) for h in hard]


def slow_effect(a, b) -> float:
    return (statistics.mean(a) - statistics.mean(b)) / math.sqrt(
        (statistics.variance(a) + statistics.variance(b)) / 2
    )


def slow_interval(draw, resamples=4000) -> tuple[float, float]:
    """Percentile interval of a statistic that draws its own resample."""
    found = sorted(draw() for _ in range(resamples))
    return found[int(0.025 * resamples)], found[int(0.975 * resamples)]


@pytest.mark.parametrize("n", [5, 40])
def test_a_paired_difference_is_that_of_the_slow_reference(n):
    a, b = sides(n)
    shuffled = judged(b)
    random.Random(7).shuffle(shuffled)
    found = difference(judged(a), shuffled, seed=0)
    rng = random.Random(2)

    def draw() -> float:
        chosen = [rng.randrange(n) for _ in range(n)]
        return 100 * sum(a[i] - b[i] for i in chosen) / n

    low, high = slow_interval(draw)
    assert found.value == pytest.approx(100 * (sum(a) - sum(b)) / n)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.2), pytest.approx(high, abs=0.2))
    assert found.effect == pytest.approx(slow_effect(a, b))
    assert (found.basis, found.prompts) == ("paired by prompt", n)


def test_an_unpaired_interval_is_that_of_the_slow_reference():
    a, b = sides(40)
    b = b[:25]
    rng = random.Random(3)
    low, high = slow_interval(
        lambda: (
            100 * (statistics.fmean(rng.choices(a, k=40)) - statistics.fmean(rng.choices(b, k=25)))
        )
    )
    found = unpaired_interval(np.array(a), np.array(b), seed=0)
    assert found == (pytest.approx(low, abs=0.8), pytest.approx(high, abs=0.8))


def test_strangers_have_the_same_difference_with_a_wider_interval():
    a, b = sides(40)
    pairs = difference(judged(a), judged(b), seed=0)
    strangers = difference(judged(a), judged(b, prompts="q", tuples="u"), seed=0)
    assert strangers.basis == "unpaired" and strangers.value == pytest.approx(pairs.value)
    assert strangers.high - strangers.low > 3 * (pairs.high - pairs.low)
    assert strangers.effect == pytest.approx(pairs.effect)


def test_the_interval_of_strangers_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    held = 0
    for draw in range(200):
        a, b = rng.normal(0.55, 0.1, 30), rng.normal(0.5, 0.2, 40)
        low, high = unpaired_interval(a, b, seed=draw, resamples=300)
        held += low <= 5 <= high
    assert 180 <= held <= 199


def test_tuples_are_paired_where_prompts_are_others():
    a, b = sides(20)
    found = difference(judged(a), judged(b, prompts="q"), seed=0)
    assert (found.basis, found.prompts) == ("paired by tuple", 20)
    assert found.value == pytest.approx(10, abs=2)


@pytest.mark.parametrize(("shared", "basis"), [(4, "unpaired"), (5, "paired by prompt")])
def test_pairs_count_from_half_of_the_smaller_side(shared, basis):
    a, b = sides(10)
    other = [
        Judged(f"p{i}" if i < shared else f"q{i}", None, "r", value) for i, value in enumerate(b)
    ]
    found = difference(judged(a, tuples=""), other, seed=0)
    assert (found.basis, found.prompts) == (basis, 10 if basis == "unpaired" else shared)


def test_prompts_that_are_there_twice_pair_with_nothing():
    a, b = sides(8)
    twice = [*judged(b, tuples=""), Judged("p0", None, "r", 0.9)]
    assert difference(judged(a, tuples=""), twice, seed=0).prompts == 7


def test_what_was_judged_by_another_rule_is_not_compared():
    found = difference(judged([0.5]), judged([0.4], rule="other"), seed=0)
    assert (found.value, found.effect, found.prompts) == (None, None, 0)
    assert "another way" in found.basis
    assert "nothing was scored" in difference([], [], seed=0).basis


def test_one_prompt_has_a_difference_and_no_interval():
    found = difference(judged([0.7]), judged([0.5]), seed=0)
    assert found.value == pytest.approx(20)
    assert (found.low, found.high, found.effect) == (None, None, None)
    assert effect_size(np.full(5, 0.3), np.full(5, 0.2)) is None
