"""How the judge judges, on verdicts of known taste: length slope, position, kinship."""

import json
from pathlib import Path

import numpy as np
import pytest
from engines import embedded_config
from scipy.special import expit

from localism.judging.calibration import (
    KINDS,
    TRANSFER_ERROR,
    calibrated,
    changed_enough,
    kinship,
    length_slope,
    position_bias,
)
from localism.judging.scores import Score, write
from localism.judging.winrate import Battles, length_controlled, length_terms
from localism.store import Store


def rewritten(taste: float, items: int = 60, worse: float = 0.0, seed: int = 0) -> Battles:
    """Verdicts on rewrites by a judge with this slope; `worse`: logits that any rewriting costs."""
    rng = np.random.default_rng(seed)
    baseline = np.broadcast_to(np.round(rng.lognormal(7, 0.5, items)), (2, items))
    factor = np.array([1.5, 0.55])[:, None] * np.exp(rng.normal(0, 0.1, (2, items)))
    names = tuple(f"item-{i}" for i in range(items))
    blank = Battles(
        KINDS, names, np.zeros((2, items)), np.round(baseline * factor), baseline.copy()
    )
    chance = expit(taste * length_terms(blank) + rng.normal(0, 1.0, items) - worse)
    preference = np.clip(rng.beta(2 * chance + 1e-3, 2 * (1 - chance) + 1e-3), 0, 1)
    return Battles(KINDS, names, preference, blank.len_model, blank.len_baseline)


@pytest.mark.parametrize("taste", [-1.75, 0.0, 1.0])
def test_the_judges_taste_is_found_within_its_interval(taste: float) -> None:
    inside = 0
    for seed in range(12):
        found = length_slope(rewritten(taste, seed=seed), seed=0, resamples=200)
        assert found is not None and found.n == 60
        inside += found.bounds.low <= taste <= found.bounds.high
        assert found.value == pytest.approx(taste, abs=4 * found.error)
    assert inside >= 9


def test_a_judge_that_likes_length_prefers_the_longer_and_has_a_slope_below_0() -> None:
    found = length_slope(rewritten(-1.5), seed=0, resamples=100)
    assert found is not None and found.longer is not None and found.shorter is not None
    assert found.value < -1 and found.longer > 60 > 40 > found.shorter


def test_rewriting_that_costs_quality_moves_the_slope_little() -> None:
    fair, worse = (
        length_slope(rewritten(-1.5, items=400, worse=cost), seed=0, resamples=50)
        for cost in (0.0, 1.0)
    )
    assert fair is not None and worse is not None
    assert worse.longer < fair.longer - 10
    assert worse.value == pytest.approx(fair.value, abs=0.25)


def test_a_judge_that_always_prefers_length_has_a_steep_slope_of_which_little_is_known() -> None:
    battles, mixed = rewritten(-1.5), length_slope(rewritten(-1.5), seed=0, resamples=200)
    battles.preference[:] = np.array([[1.0], [0.0]])
    found = length_slope(battles, seed=0, resamples=200)
    assert found is not None and mixed is not None and found.value < -4
    assert found.error > 1.5 * mixed.error


def test_too_few_or_equal_rewrites_tell_nothing() -> None:
    assert length_slope(rewritten(-1.5, items=9), seed=0) is None
    battles = rewritten(-1.5)
    same = Battles(
        battles.models, battles.items, battles.preference, battles.len_baseline + 10,
        battles.len_baseline,
    )  # fmt: skip
    assert length_slope(same, seed=0) is None


def test_a_kind_that_was_never_scored_leaves_the_other() -> None:
    battles = rewritten(-1.5)
    battles.preference[1] = np.nan
    found = length_slope(battles, seed=0, resamples=50)
    assert found is not None and found.shorter is None and found.value < 0


@pytest.mark.parametrize(
    ("rewrite", "kind", "is_enough"),
    [
        ("x" * 115, "longer", True), ("x" * 114, "longer", False), ("x" * 50, "longer", False),
        ("x" * 85, "shorter", True), ("x" * 86, "shorter", False), ("x" * 300, "shorter", False),
    ],
)  # fmt: skip
def test_a_rewrite_counts_when_its_length_changed_by_15_percent(rewrite, kind, is_enough) -> None:
    assert changed_enough("y" * 100, rewrite, kind) == is_enough


def test_a_calibrated_slope_widens_by_what_rewriting_cannot_tell(tmp_path: Path) -> None:
    with Store(tmp_path / "corpus.duckdb") as store:
        assert calibrated(store) == {}
        nothing = Score("judge", "dev", "length_slope", None, None, None, 0, 0, "no templates")
        write(store, "dev", [nothing], training="")
        assert calibrated(store) == {}
        half = 1.959963984540054 * 0.4
        found = Score("judge", "dev", "length_slope", -1.2, -1.2 - half, -1.2 + half, 40, 0)
        write(store, "dev", [found], training="")
        taken = calibrated(store)
        assert store.value("SELECT count(*) FROM score") == 1
    assert taken["phi_calibrated"] == -1.2
    assert taken["phi_error"] == pytest.approx(np.hypot(0.4, TRANSFER_ERROR))
    priors = length_controlled(rewritten(-1.0), **taken).priors
    assert (priors.phi_mean, priors.phi_mean_sd > TRANSFER_ERROR) == (-1.2, True)


# ---- position ------------------------------------------------------------------------------


def test_a_judge_of_positions_has_an_advantage_and_flips_every_pair() -> None:
    first = np.array([0.9, 0.8, 0.7, 0.95])
    bias = position_bias(first, 1 - first, seed=0)
    assert bias.advantage.value == pytest.approx(100 * (2 * first - 1).mean())
    assert bias.advantage.low > 0 and (bias.flips, bias.advantage.n) == (4, 4)


def test_a_judge_of_answers_has_no_advantage_and_flips_none() -> None:
    verdicts = np.array([0.9, 0.2, 0.5, 0.7])
    bias = position_bias(verdicts, verdicts, seed=0)
    assert (bias.advantage.value, bias.flips) == (0.0, 0)


def test_a_pair_that_lacks_an_order_is_counted_and_not_compared() -> None:
    bias = position_bias(np.array([0.9, np.nan, 0.4]), np.array([0.2, 0.1, np.nan]), seed=0)
    assert (bias.advantage.n, bias.advantage.unscored, bias.flips) == (1, 2, 1)


# ---- kinship -------------------------------------------------------------------------------


def test_the_teacher_as_judge_is_its_own_kin_by_reference_and_by_path() -> None:
    assert "the teacher itself" in (kinship(embedded_config()) or "")
    by_path = embedded_config(judge={"same_as": "", "path": "embedded:teacher"})
    assert "the teacher itself" in (kinship(by_path) or "")
    urls = {"path": "", "endpoints": ("http://127.0.0.1:1/v1",)}
    assert kinship(embedded_config(teacher=urls, judge={"same_as": "", **urls}))


def test_one_vocabulary_is_one_family_and_another_is_not(tmp_path: Path) -> None:
    def judged_by(vocabulary: dict[str, int]) -> str | None:
        (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
        return kinship(embedded_config(judge={"same_as": "", "path": str(tmp_path)}))

    teacher = Path(__file__).parents[2] / "localism" / "embedded" / "teacher" / "tokenizer.json"
    assert "one vocabulary" in (judged_by(json.loads(teacher.read_text())["model"]["vocab"]) or "")
    assert judged_by({"a": 0}) is None
    (tmp_path / "tokenizer.json").unlink()
    assert kinship(embedded_config(judge={"same_as": "", "path": str(tmp_path)})) is None
