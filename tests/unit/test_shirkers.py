"""The gate for shirkers: calibrated on known poor answers, measured on others."""

from random import Random

import numpy as np
import pytest

from localism.curation.shirkers import (
    FEATURES,
    Answer,
    Sample,
    calibrate,
    expected_rating,
    features,
)

ADVICE = (
    "Start on {day}: weigh {n} grams of flour, then compare the price of each {thing} you own. "
)
THINGS = ("pan", "bike", "lamp", "book", "chair", "plant")


def real(rng: Random, judge: float) -> Answer:
    sentences = [
        ADVICE.format(day=rng.choice("ABCDEFG"), n=rng.randrange(900), thing=rng.choice(THINGS))
        for _ in range(rng.randrange(5, 12))
    ]
    return Answer(
        "How do I weigh flour and compare the price of what I own?", "".join(sentences), judge
    )


def samples(seed: int, *, separation: float, count: int = 120) -> list[Sample]:
    """Real answers and two kinds of poor ones; only the judge tells the junk, as well as it can."""
    rng = Random(seed)
    found = []
    for group in range(count):
        good = real(rng, rng.gauss(0.0, 1.0))
        brief = Answer(good.instruction, "It depends on you.", rng.gauss(0.0, 1.0))
        junk = real(rng, rng.gauss(-separation, 1.0))
        for kind, answer in (("real", good), ("brevity", brief), ("junk", junk)):
            found.append(Sample(f"{group:03}", kind, answer))
    return found


def test_each_feature_is_one_finite_number_for_any_text() -> None:
    for response in ("", "   \n", "好的，先称面粉。", "x" * 10_000, "1 2 3\n\n- a\n"):
        values = features(Answer("", response, 0.5))
        assert len(values) == len(FEATURES) and np.isfinite(values).all()


def test_brief_answers_are_caught_and_real_ones_stay() -> None:
    gate = calibrate(samples(0, separation=4), false_alarms=0.05)
    assert gate.recall["brevity"] == 1.0 and gate.recall["junk"] >= 0.85
    assert gate.held_out == 60
    assert not gate.verdict(Answer("How do I bake?", "Just bake.", 0.0)).passed
    assert gate.verdict(real(Random(5), 1.0)).passed


@pytest.mark.parametrize("wanted", [0.02, 0.05, 0.2])
def test_the_share_of_real_answers_that_are_lost_is_the_one_asked_for(wanted: float) -> None:
    lost = [calibrate(samples(seed, separation=1), wanted).false_alarms for seed in range(12)]
    assert np.mean(lost) <= wanted + 0.03


def test_a_judge_that_knows_nothing_gives_a_gate_that_catches_little_junk_and_says_so() -> None:
    gate = calibrate(samples(1, separation=0), false_alarms=0.05)
    assert gate.recall["junk"] < 0.3 and gate.false_alarms < 0.2


def test_recall_is_measured_on_instructions_that_took_no_part_in_the_fit() -> None:
    known = samples(2, separation=4)
    held = sorted({sample.group for sample in known})[1::2]
    swapped = {"real": "junk", "junk": "real", "brevity": "brevity"}
    turned = [
        sample._replace(kind=swapped[sample.kind]) if sample.group in held else sample
        for sample in known
    ]
    # Only the held-out half was turned round: the gate is the same, and its figures are not.
    right, wrong = calibrate(known, 0.05), calibrate(turned, 0.05)
    assert right.threshold == wrong.threshold
    assert wrong.false_alarms == right.recall["junk"]
    assert wrong.recall["junk"] == right.false_alarms


def test_the_same_samples_give_the_same_gate_in_any_order() -> None:
    known = samples(3, separation=2)
    shuffled = Random(1).sample(known, len(known))
    one, other = calibrate(known, 0.05), calibrate(shuffled, 0.05)
    assert one.recall == other.recall and one.threshold == pytest.approx(other.threshold)


def test_an_expected_rating_uses_every_probability_and_refuses_when_they_are_few() -> None:
    value, mass = expected_rating({"1": np.log(0.25), "3": np.log(0.25), "5": np.log(0.4)})
    assert mass == pytest.approx(0.9)
    assert value == pytest.approx((0.25 + 0.75 + 2.0) / 0.9)
    assert expected_rating({"1": np.log(0.1), "5": np.log(0.2)})[0] is None
