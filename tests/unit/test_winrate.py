"""The estimator and the pick, on made data of known truth and against slow references."""

import csv
import itertools
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, root
from scipy.special import expit
from scipy.stats import spearmanr

from localism.errors import LocalismError
from localism.judging import newton
from localism.judging.jointfit import Priors
from localism.judging.picking import bootstrap, compare, interval, paired_difference, pick
from localism.judging.winrate import (
    BattleRow,
    Battles,
    battles_from_rows,
    joint_fit,
    length_controlled,
    length_terms,
    win_rate,
)

# 60 nodes integrate a normal density exactly for our purposes: the true win rate over all items
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(60)


def simulate(theta, phi, items, seed, gamma_sd=1.5, longer_by=0.0):
    """Battles drawn from the model itself; longer_by: (M,) mean log length over the baseline's."""
    rng = np.random.default_rng(seed)
    theta, phi = np.asarray(theta, float), np.asarray(phi, float)
    gamma = rng.normal(0, gamma_sd, items)
    len_baseline = np.broadcast_to(np.round(rng.lognormal(7, 0.5, items)), (len(theta), items))
    shift = np.broadcast_to(longer_by, len(theta))[:, None]
    len_model = np.round(len_baseline * np.exp(rng.normal(shift, 0.5, len_baseline.shape)))
    names = tuple(f"epoch-{m}" for m in range(len(theta)))
    blank = Battles(
        names,
        tuple(f"item-{i}" for i in range(items)),
        np.zeros_like(len_model),
        len_model,
        len_baseline.copy(),
    )
    chance = expit(theta[:, None] + phi[:, None] * length_terms(blank) + gamma)
    # a judge's probabilities: mostly near 0 or 1, right on average
    preference = rng.beta(chance + 1e-6, 1 - chance + 1e-6)
    return replace(blank, preference=np.clip(preference, 0, 1)), gamma


def true_score(theta, gamma_sd=1.5):
    """100 * E over all items of sigma(theta + gamma)."""
    even = expit(np.asarray(theta)[:, None] + gamma_sd * NODES)
    return 100 * even @ NODE_WEIGHTS / NODE_WEIGHTS.sum()


def without(battles, cells):
    """The same battles with some (m, i) unscored and their lengths unknown."""
    arrays = [a.copy() for a in (battles.preference, battles.len_model, battles.len_baseline)]
    for array in arrays:
        array[cells] = np.nan
    return Battles(battles.models, battles.items, *arrays)


# --- win rate -------------------------------------------------------------------------------


def test_win_rate_is_the_mean_with_the_standard_error_of_a_mean():
    scored = win_rate(np.array([1.0, 0.5, 0.0, 0.9]))
    assert scored.value == pytest.approx(60.0)
    assert scored.standard_error == pytest.approx(22.7303028283)
    assert (scored.n, scored.unscored) == (4, 0)


def test_unscored_items_are_counted_and_not_averaged():
    scored = win_rate(np.array([1.0, np.nan, 0.5, np.nan]))
    assert (scored.value, scored.n, scored.unscored) == (75.0, 2, 2)


def test_nothing_scored_gives_no_win_rate_and_not_zero():
    scored = win_rate(np.full(3, np.nan))
    assert (scored.value, scored.standard_error, scored.n, scored.unscored) == (None, None, 0, 3)


def test_one_scored_item_has_no_standard_error():
    assert win_rate(np.array([0.7])).standard_error is None


def test_rows_become_arrays_and_absent_pairs_are_unscored():
    battles = battles_from_rows(
        [
            BattleRow("a", "x", 0.9, 10, 12),
            BattleRow("b", "y", 0.2, 30, 12),
            BattleRow("a", "y", None, None, 12),
        ]
    )
    assert (battles.models, battles.items) == (("a", "b"), ("x", "y"))
    np.testing.assert_array_equal(battles.preference, [[0.9, np.nan], [np.nan, 0.2]])
    np.testing.assert_array_equal(battles.len_model, [[10, np.nan], [np.nan, 30]])


@pytest.mark.parametrize(
    "rows",
    [
        [BattleRow("a", "x", 0.9, 10, 12), BattleRow("a", "x", 0.9, 10, 12)],
        [BattleRow("a", "x", 1.5, 10, 12)],
        [BattleRow("a", "x", 0.5, None, 12)],
    ],
)
def test_a_repeated_pair_a_wrong_scale_and_a_missing_length_are_refused(rows):
    with pytest.raises(ValueError):
        battles_from_rows(rows)


# --- length-controlled win rate -------------------------------------------------------------


def test_the_fit_recovers_the_truth_that_made_the_data():
    theta = np.linspace(-2, 1, 12)
    phi = np.random.default_rng(1).normal(-1.5, 0.3, 12)
    battles, gamma = simulate(theta, phi, 4000, seed=2, longer_by=np.tile([0.5, -0.5], 6))
    fit = length_controlled(battles)
    assert fit.phi_mean == pytest.approx(-1.5, abs=0.25)
    assert np.abs(fit.phi - phi).max() < 0.35
    assert np.corrcoef(fit.theta, theta)[0, 1] > 0.995
    assert np.corrcoef(fit.gamma, gamma)[0, 1] > 0.8
    # the level too, although the prior allows items to differ more than these do
    assert np.abs(np.array(fit.values) - true_score(theta)).max() < 3.0
    raw = np.array([win_rate(row).value for row in battles.preference])
    assert np.abs(raw - true_score(theta)).max() > 9.0


class SlowPosterior:
    """The model as it is written down: phibar and u apart, one dense Hessian, no elimination.

    Unknowns x: phibar, theta (M), u (M), gamma (N); phi = phibar + u. Shares no code with jointfit.
    """

    def __init__(self, battles, priors):
        self.terms, self.scored = length_terms(battles), battles.scored
        self.models, self.items = battles.preference.shape
        self.y = np.where(self.scored, battles.preference, 0.5)
        self.mean = np.zeros(1 + 2 * self.models + self.items)
        self.mean[0] = priors.phi_mean
        is_fixed = priors.phi_mean_sd == 0  # then phibar is no unknown: its mean is an offset
        widths = [[1.0 if is_fixed else priors.phi_mean_sd], [priors.theta_sd] * self.models]
        widths += [[priors.phi_sd] * self.models, [priors.gamma_sd] * self.items]
        self.precision = np.concatenate(widths) ** -2.0
        rows = []
        for m, i in zip(*np.nonzero(self.scored), strict=True):
            row = np.zeros(len(self.mean))
            row[[0, 1 + m, 1 + self.models + m, 1 + 2 * self.models + i]] = (
                self.terms[m, i], 1.0, self.terms[m, i], 1.0,
            )  # fmt: skip
            rows.append(row)
        self.design, self.wins = np.array(rows), self.y[self.scored]
        self.offset = np.zeros(len(rows))
        if is_fixed:
            self.offset, self.design[:, 0] = priors.phi_mean * self.design[:, 0], 0.0

    def value(self, x):
        eta = self.offset + self.design @ x
        misfit = (np.logaddexp(0, eta) - self.wins * eta).sum()
        return misfit + 0.5 * (self.precision * (x - self.mean) ** 2).sum()

    def gradient(self, x):
        residual = expit(self.offset + self.design @ x) - self.wins
        return self.design.T @ residual + self.precision * (x - self.mean)

    def hessian(self, x):
        share = expit(self.offset + self.design @ x)
        curvature = (self.design * (share * (1 - share))[:, None]).T @ self.design
        return curvature + np.diag(self.precision)

    def solve(self):
        """A library's trust region, then its root finder on the gradient: to 1e-10.

        Function values stop telling points apart at 1e-8; the posterior is strongly convex, so that
        where its gradient is nothing is its only mode.
        """
        near = minimize(
            self.value, self.mean, method="trust-exact", jac=self.gradient, hess=self.hessian
        )
        found = root(self.gradient, near.x, jac=self.hessian, tol=1e-14)
        assert np.abs(self.gradient(found.x)).max() < 1e-10, found.message
        return found.x


def hostile_battles(kind):
    """Judgments that break estimators."""
    battles, _ = simulate([-1.5, 0.2, -0.4, 0.6], [-1.2, -1.8, -1.0, -1.5], 24, seed=3)
    shape = battles.preference.shape
    checkered = np.indices(shape).sum(axis=0) % 2 == 1
    return {
        "ordinary": lambda: battles,
        "all wins": lambda: replace(battles, preference=np.ones(shape)),
        "all losses": lambda: replace(battles, preference=np.zeros(shape)),
        "all ties": lambda: replace(battles, preference=np.full(shape, 0.5)),
        "one wins all, one loses all": lambda: replace(
            battles, preference=np.vstack([np.ones(24), np.zeros(24), battles.preference[2:]])
        ),
        # who is longer wins, always: the slope alone explains everything
        "separated by length": lambda: replace(
            battles, preference=(battles.len_model > battles.len_baseline).astype(float)
        ),
        "huge lengths": lambda: replace(
            battles, len_model=battles.len_model * np.array([[1e-3], [1.0], [1e3], [1e6]])
        ),
        "one outlier of length": lambda: replace(
            battles, len_model=np.where(np.arange(24) == 5, 1e9, battles.len_model)
        ),
        "equal lengths": lambda: replace(battles, len_model=battles.len_baseline.copy()),
        "half is missing": lambda: without(battles, checkered),
        # two halves that share no item: only the priors connect them
        "no item in common": lambda: without(
            battles, (np.arange(4) < 2)[:, None] == (np.arange(24) < 12)
        ),
        "one verdict a model": lambda: without(
            battles, np.arange(24) != np.array([0, 7, 7, 23])[:, None]
        ),
        "one item": lambda: take(battles, np.arange(4), np.array([0])),
        "one model": lambda: take(battles, np.array([1]), np.arange(24)),
        "one model, one item": lambda: take(battles, np.array([1]), np.array([4])),
    }[kind]()


def take(battles, models, items):
    """Some of the models on some of the items."""
    cut = np.ix_(models, items)
    return Battles(
        tuple(battles.models[m] for m in models),
        tuple(battles.items[i] for i in items),
        battles.preference[cut],
        battles.len_model[cut],
        battles.len_baseline[cut],
    )


HOSTILE = (
    "ordinary", "all wins", "all losses", "all ties", "one wins all, one loses all",
    "separated by length", "huge lengths", "one outlier of length", "equal lengths",
    "half is missing", "no item in common", "one verdict a model", "one item", "one model",
    "one model, one item",
)  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("phi_calibrated", [None, -1.75, 3.0])
def test_newtons_optimum_is_the_one_that_a_dense_trust_region_finds(kind, phi_calibrated):
    battles = hostile_battles(kind)
    fit = length_controlled(battles, phi_calibrated=phi_calibrated)
    known = np.isfinite(fit.gamma)  # an item that nobody was scored on has no gamma
    slow = SlowPosterior(take(battles, np.arange(len(battles.models)), known.nonzero()[0]),
                         fit.priors)  # fmt: skip
    count = slow.models
    phibar, theta, u, gamma = np.split(slow.solve(), np.cumsum([1, count, count]))
    np.testing.assert_allclose(fit.theta, theta, atol=2e-6)
    np.testing.assert_allclose(fit.phi, phibar + u, atol=2e-6)
    np.testing.assert_allclose(fit.gamma[known], gamma, atol=2e-6)
    assert fit.phi_mean == pytest.approx(phibar[0], abs=2e-6)
    np.testing.assert_allclose(
        fit.values, 100 * expit(theta[:, None] + gamma).mean(axis=1), atol=1e-4
    )


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_optimum_does_not_depend_on_where_the_search_starts(kind):
    battles = hostile_battles(kind)
    joint = joint_fit(battles, length_controlled(battles).priors)
    rng = np.random.default_rng(0)
    size = 2 * joint.wins.shape[0] + joint.wins.shape[1]
    starts = np.vstack([np.zeros(size), rng.normal(0, [[1.0], [10.0], [100.0]], (3, size))])
    found = joint.solve(np.ones((4, joint.wins.shape[1])), starts)
    np.testing.assert_allclose(found, found[[0]].repeat(4, axis=0), atol=1e-6)


def test_a_slope_that_was_measured_badly_binds_less():
    battles, _ = simulate([-1.0, 0.0, 0.5], [-1.5] * 3, 200, seed=30)
    free = length_controlled(battles).phi_mean
    bound, loose = (
        length_controlled(battles, phi_calibrated=2.0, phi_error=error).phi_mean
        for error in (0.0, 5.0)
    )
    assert abs(loose - free) < abs(bound - free) / 4


def test_a_weighting_equals_items_written_down_that_often():
    battles, _ = simulate([-1.0, 0.0, 0.5], [-1.5] * 3, 30, seed=4)
    drawn = np.random.default_rng(0).integers(0, 30, 30)
    fit = length_controlled(battles)
    joint = joint_fit(battles, fit.priors)
    weights = np.bincount(drawn, minlength=30)[None].astype(float)
    weighted = joint.scores(joint.solve(weights), weights)[0]
    copies = replace(joint, **{k: getattr(joint, k)[:, drawn] for k in ("wins", "scored", "terms")})
    once = np.ones((1, 30))
    np.testing.assert_allclose(weighted, copies.scores(copies.solve(once), once)[0], atol=1e-7)


def test_scores_do_not_depend_on_the_order_of_models_and_items():
    battles, _ = simulate(np.linspace(-1, 0.5, 5), [-1.5] * 5, 40, seed=5)
    battles = without(battles, ([1, 3], [7, 9]))
    rng = np.random.default_rng(0)
    order, items = rng.permutation(5), rng.permutation(40)
    cut = np.ix_(order, items)
    shuffled = Battles(
        tuple(battles.models[m] for m in order),
        tuple(battles.items[i] for i in items),
        battles.preference[cut],
        battles.len_model[cut],
        battles.len_baseline[cut],
    )
    straight, turned = length_controlled(battles), length_controlled(shuffled)
    np.testing.assert_allclose(turned.values, np.array(straight.values)[order], atol=1e-6)


def test_swapping_candidate_and_baseline_mirrors_the_scores():
    battles, _ = simulate([-1.0, 0.0, 0.5], [-1.5] * 3, 50, seed=6)
    mirrored = replace(
        battles,
        preference=1 - battles.preference,
        len_model=battles.len_baseline,
        len_baseline=battles.len_model,
    )
    np.testing.assert_allclose(
        np.array(length_controlled(mirrored).values),
        100 - np.array(length_controlled(battles).values),
        atol=1e-6,
    )


def test_making_every_answer_longer_by_the_same_changes_nothing():
    battles, _ = simulate([-1.0, 0.0, 0.5], [-1.5] * 3, 50, seed=7)
    longer = replace(
        battles, len_model=battles.len_model + 500, len_baseline=battles.len_baseline + 500
    )
    assert length_controlled(longer).values == pytest.approx(length_controlled(battles).values)


def test_a_judge_that_likes_length_is_corrected_against_the_longer_candidate():
    battles, _ = simulate([0.0] * 6, [-1.5] * 6, 300, seed=8, longer_by=[0.7, -0.7] * 3)
    raw = np.array([win_rate(row).value for row in battles.preference])
    controlled = np.array(length_controlled(battles).values)
    assert raw[::2].mean() - raw[1::2].mean() > 20
    assert abs(controlled[::2].mean() - controlled[1::2].mean()) < 6


def test_a_missing_verdict_is_not_a_loss():
    battles, _ = simulate([0.5, 0.5, 0.5, 0.5], [-1.5] * 4, 200, seed=9)
    holes = without(battles, (0, slice(0, 80)))
    before, after = length_controlled(battles).values, length_controlled(holes).values
    assert after[0] == pytest.approx(before[0], abs=6)
    assert after[1:] == pytest.approx(before[1:], abs=3)


def test_a_candidate_without_verdicts_has_no_score_and_moves_no_other():
    battles, _ = simulate([0.5, -0.5, 0.0], [-1.5] * 3, 40, seed=10)
    comparison = compare(without(battles, (1, slice(None))), seed=0, resamples=50)
    absent = comparison.scores[1]
    assert (absent.win_rate.value, absent.lc_win_rate, absent.lc_interval.low) == (None, None, None)
    assert absent.win_rate.unscored == 40
    others = Battles(
        ("epoch-0", "epoch-2"),
        battles.items,
        battles.preference[[0, 2]],
        battles.len_model[[0, 2]],
        battles.len_baseline[[0, 2]],
    )
    alone = length_controlled(others).values
    assert [comparison.scores[m].lc_win_rate for m in (0, 2)] == pytest.approx(list(alone))
    assert 1 not in comparison.pick.tied


def test_nothing_scored_picks_nobody():
    battles, _ = simulate([0.5, -0.5], [-1.5] * 2, 10, seed=11)
    comparison = compare(without(battles, (slice(None), slice(None))), seed=0, resamples=20)
    assert [score.lc_win_rate for score in comparison.scores] == [None, None]
    assert (comparison.pick.best, comparison.pick.tied) == (None, ())
    assert "no candidate" in comparison.pick.reason
    assert compare(battles_from_rows([]), seed=0).pick.best is None


def test_lengths_that_never_vary_leave_the_score_uncorrected_and_say_so():
    battles, _ = simulate([0.5, -0.5, 0.0], [-1.5] * 3, 60, seed=12)
    len_model = battles.len_model.copy()
    len_model[1] = battles.len_baseline[1] - 1  # one character shorter, always
    battles = replace(battles, len_model=len_model)
    assert not length_terms(battles)[1].any()
    fit = length_controlled(battles)
    assert any("never varies: epoch-1" in note for note in fit.notes)
    assert abs(fit.values[1] - win_rate(battles.preference[1]).value) < 3


def test_one_candidate_gets_the_judges_slope_and_is_flagged_approximate():
    battles, _ = simulate([-0.5], [-1.0], 3000, seed=13, gamma_sd=1e-3, longer_by=0.6)
    fit = length_controlled(battles)
    assert fit.approximate and "held near -1" in fit.notes[0]
    assert fit.values[0] == pytest.approx(100 * expit(-0.5), abs=2)
    assert win_rate(battles.preference[0]).value > fit.values[0] + 8
    assert length_controlled(battles, phi_calibrated=0.0).values[0] == pytest.approx(
        win_rate(battles.preference[0]).value, abs=3
    )


def test_few_items_and_two_candidates_are_flagged_approximate():
    few, _ = simulate([0.5, -0.5, 0.0], [-1.5] * 3, 6, seed=14)
    assert length_controlled(few).approximate
    pair, _ = simulate([0.5, -0.5], [-1.5] * 2, 100, seed=14)
    assert length_controlled(pair).approximate
    enough, _ = simulate([0.5, -0.5, 0.0], [-1.5] * 3, 100, seed=14)
    assert not length_controlled(enough).approximate


def test_one_item_has_scores_and_no_intervals():
    battles, _ = simulate([0.5, -0.5, 0.0], [-1.5] * 3, 1, seed=15)
    comparison = compare(battles, seed=0, resamples=20)
    assert all(score.lc_win_rate is not None for score in comparison.scores)
    assert all(score.lc_interval == (None, None) for score in comparison.scores)
    assert comparison.pick.tied == (0, 1, 2)


@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_candidates_that_win_or_lose_everything_still_converge(verdict):
    battles, _ = simulate([0.0] * 4, [-1.5] * 4, 100, seed=16)
    battles = replace(battles, preference=np.full((4, 100), verdict))
    values = np.array(length_controlled(battles).values)
    assert (np.abs(values - 100 * verdict) < 1).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_table_of_judgments_has_a_fit_within_bounds(data):
    models, items = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 8))
    cells = st.one_of(st.none(), st.sampled_from([0.0, 1.0]), st.floats(0, 1))
    lengths = st.integers(0, 100_000)
    rows = [
        BattleRow(f"m{m}", f"i{i}", data.draw(cells), data.draw(lengths), data.draw(lengths))
        for m, i in itertools.product(range(models), range(items))
    ]
    comparison = compare(battles_from_rows(rows), seed=0, resamples=10)
    for score in comparison.scores:
        assert (score.lc_win_rate is None) == (score.win_rate.n == 0)
        assert score.lc_win_rate is None or 0 <= score.lc_win_rate <= 100


def test_full_newton_steps_diverge_where_the_damped_ones_converge():
    """log cosh has flat tails: from 2, each full step overshoots further than the one before."""
    objective = newton.Objective(
        value=lambda x, rows: np.logaddexp(x, -x).sum(axis=1),
        step=lambda x, rows: newton.NewtonStep(np.tanh(x), -np.tanh(x) * np.cosh(x) ** 2),
    )
    x = 2.0
    for _ in range(2):
        x -= np.tanh(x) * np.cosh(x) ** 2
    assert abs(x) > 1e6
    assert newton.minimise(objective, np.array([[2.0]]), "toy")[0, 0] == pytest.approx(0, abs=1e-8)


def test_a_fit_that_does_not_converge_is_an_error_and_not_a_number():
    downhill = newton.Objective(
        value=lambda x, rows: -x.sum(axis=1),
        step=lambda x, rows: newton.NewtonStep(-np.ones_like(x), np.ones_like(x)),
    )
    with pytest.raises(LocalismError, match="toy fit did not converge"):
        newton.minimise(downhill, np.zeros((2, 1)), "toy fit")


def test_the_solution_has_no_gradient_left():
    battles, _ = simulate(np.linspace(-3, 0, 8), [-2.0] * 8, 60, seed=17)
    fit = length_controlled(battles)
    terms = length_terms(battles)
    residual = expit(fit.theta[:, None] + fit.phi[:, None] * terms + fit.gamma)
    residual -= battles.preference
    priors = fit.priors
    by_theta = residual.sum(axis=1) + fit.theta / priors.theta_sd**2
    by_phi = (residual * terms).sum(axis=1) + (fit.phi - fit.phi_mean) / priors.phi_sd**2
    by_gamma = residual.sum(axis=0) + fit.gamma / priors.gamma_sd**2
    assert np.abs(np.concatenate([by_theta, by_phi, by_gamma])).max() < 1e-8


# --- intervals, tie set, pick ---------------------------------------------------------------


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    battles, _ = simulate([0.5, -0.5, 0.0], [-1.5] * 3, 50, seed=18)
    first = compare(battles, seed=1, resamples=100)
    assert compare(battles, seed=1, resamples=100) == first
    assert compare(battles, seed=2, resamples=100).scores != first.scores


def test_resampled_scores_equal_fits_from_scratch():
    battles, _ = simulate([0.5, -0.5, 0.0], [-1.5] * 3, 40, seed=19)
    fit = length_controlled(battles)
    resampled = bootstrap(battles, fit, seed=5, resamples=300)
    weights = np.random.default_rng(5).multinomial(40, np.full(40, 1 / 40), size=300).astype(float)
    joint = joint_fit(battles, fit.priors)
    centres = joint.drawn_centres(300, np.random.default_rng([5, 1]))
    for b in (0, 299):
        cold = joint.scores(joint.solve(weights[[b]], centres=centres[[b]]), weights[[b]])[0]
        np.testing.assert_allclose(resampled.length_controlled[b], cold, atol=1e-6)
        np.testing.assert_allclose(
            resampled.win_rate[b], 100 * battles.preference @ weights[b] / 40, atol=1e-9
        )


def test_slopes_that_nothing_tells_vary_between_resamples_as_their_prior_says():
    """Lengths that differ by the same everywhere tell nothing of a slope; its draws are all."""
    battles, _ = simulate([0.5, -0.5, 0.0], [-1.5] * 3, 60, seed=31)
    joint = joint_fit(
        replace(battles, len_model=battles.len_baseline.copy()), Priors(5, 2, -1, 2, 0.3)
    )
    assert not joint.terms.any()
    centres = joint.drawn_centres(4000, np.random.default_rng(0))
    found = joint.unpack(joint.solve(np.ones((4000, 60)), centres=centres))[1]
    np.testing.assert_allclose(found, centres, atol=1e-8)
    expected = 0.3**2 * np.eye(3) + 2.0**2
    np.testing.assert_allclose(np.cov(centres.T), expected, atol=0.3)


def test_a_draw_without_a_candidates_only_verdict_leaves_it_out():
    battles, _ = simulate([0.5, -0.5, 0.0], [-1.5] * 3, 20, seed=20)
    battles = without(battles, (2, slice(1, None)))
    resampled = bootstrap(battles, length_controlled(battles), seed=0, resamples=200)
    absent = np.isnan(resampled.win_rate[:, 2])
    assert 0.2 < absent.mean() < 0.55  # (1 - 1/20)^20 = .36
    np.testing.assert_array_equal(absent, np.isnan(resampled.length_controlled[:, 2]))
    assert interval(resampled.length_controlled[:, 2]).low is not None


def test_intervals_cover_the_truth_about_as_often_as_they_claim():
    theta = np.linspace(-1.2, 0.3, 6)
    truth = true_score(theta)
    covered, repeats = 0, 60
    for seed in range(repeats):
        battles, _ = simulate(theta, [-1.5] * 6, 100, seed=1000 + seed)
        for score, value in zip(
            compare(battles, seed=seed, resamples=200).scores, truth, strict=True
        ):
            covered += score.lc_interval.low <= value <= score.lc_interval.high
    assert 0.85 < covered / (6 * repeats) < 0.99


def test_the_tie_set_contains_the_true_best_and_shrinks_with_items():
    theta = np.append(np.linspace(-1.0, -0.2, 9), 0.0)
    kept, sizes = 0, {50: [], 300: []}
    for seed, items in itertools.product(range(20), sizes):
        battles, _ = simulate(theta, [-1.5] * 10, items, seed=2000 + seed)
        chosen = compare(battles, seed=seed, resamples=150).pick
        assert chosen.best in chosen.tied
        kept += 9 in chosen.tied
        sizes[items].append(len(chosen.tied))
    assert kept >= 37  # of 40
    assert np.mean(sizes[300]) < np.mean(sizes[50]) - 1


def test_length_alone_does_not_make_a_winner():
    theta = [-1.0, -0.6, -0.2, 0.2]
    battles, _ = simulate(theta, [-2.0] * 4, 400, seed=21, longer_by=[1.5, 0.0, -0.3, -0.6])
    chosen = compare(battles, seed=0, resamples=200).pick
    assert chosen.best == 3
    assert "raw win rate would pick epoch-0" in chosen.reason


def test_a_clear_winner_stands_alone_and_equal_candidates_do_not():
    clear, _ = simulate([-2.0, -2.0, 1.0], [-1.5] * 3, 150, seed=22)
    chosen = compare(clear, seed=0, resamples=200).pick
    assert (chosen.best, chosen.tied) == (2, (2,))
    assert "every other candidate is behind" in chosen.reason
    twins = replace(
        clear,
        preference=clear.preference[[2, 2, 0]],
        len_model=clear.len_model[[2, 2, 0]],
    )
    chosen = compare(twins, seed=0, resamples=200).pick
    assert chosen.tied == (0, 1) and "cannot be told from" in chosen.reason
    resampled = bootstrap(twins, length_controlled(twins), seed=0, resamples=50)
    assert pick(twins, (50.0, 50.0, 50.0), resampled).best == 0  # of equals the earliest


def test_paired_difference_is_narrower_than_two_separate_intervals():
    battles, _ = simulate([0.5, 0.0], [-1.5] * 2, 300, seed=23, gamma_sd=3.0)
    a, b = battles.preference
    difference = paired_difference(a, b, seed=0)
    assert difference.value == pytest.approx(100 * (a - b).mean())
    assert difference.low < difference.value < difference.high
    separate = np.hypot(win_rate(a).standard_error, win_rate(b).standard_error) * 2 * 1.96
    assert difference.high - difference.low < 0.9 * separate
    swapped = paired_difference(b, a, seed=0)
    assert (swapped.low, swapped.high) == pytest.approx((-difference.high, -difference.low))


def test_paired_difference_uses_the_items_that_both_have():
    a = np.array([1.0, 0.5, np.nan, 1.0])
    b = np.array([0.0, np.nan, 0.5, 0.5])
    difference = paired_difference(a, b, seed=0, resamples=100)
    assert (difference.value, difference.n, difference.unscored) == (75.0, 2, 2)
    nothing = paired_difference(a, np.full(4, np.nan), seed=0)
    assert (nothing.value, nothing.low, nothing.n, nothing.unscored) == (None, None, 0, 4)
    with pytest.raises(ValueError):
        paired_difference(a, b[:3], seed=0)


def test_paired_difference_covers_the_truth():
    rng = np.random.default_rng(24)
    hits = 0
    for seed in range(200):
        gamma = rng.normal(0, 1, 60)
        a, b = (rng.random((2, 60)) < expit(np.array([[0.5], [-0.5]]) + gamma)).astype(float)
        true = 100 * ((expit(NODES + 0.5) - expit(NODES - 0.5)) @ NODE_WEIGHTS) / NODE_WEIGHTS.sum()
        found = paired_difference(a, b, seed=seed, resamples=400)
        hits += found.low <= true <= found.high
    assert 0.89 <= hits / 200 <= 0.99


def test_fifteen_checkpoints_are_compared_in_seconds():
    battles, _ = simulate(np.linspace(-1, 0, 15), [-1.5] * 15, 100, seed=25)
    started = time.process_time()
    compare(battles, seed=0, resamples=1000)
    assert time.process_time() - started < 20


# --- public leaderboard data ----------------------------------------------------------------


@pytest.fixture(scope="module")
def leaderboard():
    """(battles, official rows by model) of 12 public AlpacaEval 2 models."""
    repository = Path(__file__).resolve().parents[2]
    shared = Path(os.environ.get("LOCALISM_SHARED", repository.parent / "shared"))
    folder = shared / "data" / "alpacaeval"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set LOCALISM_SHARED to the folder that holds data/alpacaeval")
    from localism.judging.alpacaeval_files import read_preferences_csv

    with open(folder / "expected.csv", encoding="utf-8") as file:
        official = {row["model"]: row for row in csv.DictReader(file)}
    return read_preferences_csv(folder / "preferences.csv"), official


def test_leaderboard_win_rates_are_reproduced(leaderboard):
    battles, official = leaderboard
    assert len(battles.models) == 12
    for model, preference in zip(battles.models, battles.preference, strict=True):
        ours = win_rate(preference)
        assert ours.value == pytest.approx(float(official[model]["win_rate"]), abs=1e-9)
        expected_error = float(official[model]["standard_error"])
        assert ours.standard_error == pytest.approx(expected_error, abs=1e-9)
        assert ours.n == int(official[model]["n_total"])


def test_joint_scores_of_the_leaderboard_are_as_close_as_measured(leaderboard):
    battles, official = leaderboard
    kept = [m for m, model in enumerate(battles.models) if model != "gpt4_gamed"]
    pool = Battles(
        tuple(battles.models[m] for m in kept),
        battles.items,
        battles.preference[kept],
        battles.len_model[kept],
        battles.len_baseline[kept],
    )
    truth = np.array([float(official[m]["length_controlled_winrate"]) for m in pool.models])
    ours = np.array(length_controlled(pool, phi_calibrated=-1.75).values)
    assert np.abs(ours - truth).mean() == pytest.approx(3.0, abs=0.1)
    assert np.abs(ours - truth).max() == pytest.approx(5.5, abs=0.1)
    assert spearmanr(ours, truth).statistic > 0.965
    raw = np.array([win_rate(row).value for row in pool.preference])
    assert np.abs(raw - truth).mean() > 6


def test_priors_can_be_set_to_compare_estimators():
    battles, _ = simulate([0.5, -0.5, 0.0], [-1.5] * 3, 50, seed=26)
    stiff = length_controlled(battles, priors=Priors(5.0, 2.5, -1.0, 1e-3, 1e-3))
    np.testing.assert_allclose(stiff.phi, -1.0, atol=1e-3)
