"""AlpacaEval 2's own length-controlled win rate (v1), with difficulties supplied from outside.

    localism winrate preferences.csv --json --compat --difficulty difficulty.csv \\
        --gamed gamed.json --gamed-lengths gamed_lengths.csv

For AlpacaEval's 805 instructions judged by GPT-4-1106 against gpt4_1106_preview only: difficulties
and gamed rows belong to that judge and baseline. For anything else use `winrate.length_controlled`.

    logit E[y_i] = theta + phi * t_i + psi * d_i      one fit a model, nothing shared between models
    LC = 100 * mean_i sigma(theta + psi * d_i)        arXiv:2404.04475, alpaca_eval glm_winrate.py

Upstream adds the baseline's own verbose and concise answers as rows of weight 0.1 without theta
("gamed" rows). Their judgments are not published but enter a logistic likelihood through two sums
only; with the sums and the lengths the block is exact, and without them a Gaussian prior on (phi,
psi) stands in for it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from localism.judging.newton import Array, NewtonStep, Objective, minimise, softplus
from localism.judging.picking import RESAMPLES, Resampled, draw_weights
from localism.judging.winrate import Battles, length_terms

# Upstream's theta is free. This width moves a score by less than 0.001 points, and keeps the fit
# finite for a model that wins or loses every item.
THETA_SD = 100.0

# The Gaussian in (phi, psi) that best reproduces the published scores of 50 models in place of the
# gamed rows: standard deviations 0.30 and 0.15, mean error 0.09 points, largest 0.6.
SLOPE_MEAN = np.array([-1.7554, 0.6710])
SLOPE_PRECISION = np.array([[11.949, 7.009], [7.009, 47.871]])


class Derivatives(NamedTuple):
    """Of a penalty on the slopes (phi, psi), at B points."""

    gradient: Array
    """(B, 2)."""
    hessian: Array
    """(B, 2, 2)."""


@dataclass(frozen=True)
class QuadraticPrior:
    """Minus the log density of the Gaussian that stands in for the gamed rows."""

    def value(self, slopes: Array) -> Array:
        """slopes: (B, 2) -> (B,)."""
        off = slopes - SLOPE_MEAN
        return 0.5 * (off * (off @ SLOPE_PRECISION)).sum(axis=1)

    def derivatives(self, slopes: Array) -> Derivatives:
        """slopes: (B, 2)."""
        gradient = (slopes - SLOPE_MEAN) @ SLOPE_PRECISION
        return Derivatives(gradient, np.broadcast_to(SLOPE_PRECISION, (len(slopes), 2, 2)))


@dataclass(frozen=True)
class GamedBlock:
    """Upstream's G gamed rows: weight * sum of log(1 + e^eta) - y * eta, eta = phi t + psi d."""

    terms: Array
    """(G,) length terms t of the verbose and the concise baseline."""
    difficulty: Array
    """(G,) difficulties d."""
    terms_by_preference: float
    """Sum of t * y over the G rows: all that the fit needs of their judgments, with the next."""
    difficulty_by_preference: float
    """Sum of d * y."""
    weight: float
    """Of one gamed row; an own row weighs 1."""

    def value(self, slopes: Array) -> Array:
        """slopes: (B, 2) -> (B,)."""
        misfit = softplus(slopes @ self._features).sum(axis=1) - slopes @ self._sums
        return self.weight * misfit

    def derivatives(self, slopes: Array) -> Derivatives:
        """slopes: (B, 2)."""
        features = self._features
        share = expit(slopes @ features)
        gradient = share @ features.T - self._sums
        hessian = (features * (share * (1 - share))[:, None, :]) @ features.T
        return Derivatives(self.weight * gradient, self.weight * hessian)

    @property
    def _features(self) -> Array:
        return np.stack([self.terms, self.difficulty])

    @property
    def _sums(self) -> Array:
        return np.array([self.terms_by_preference, self.difficulty_by_preference])


@dataclass(frozen=True)
class CompatFit:
    """One model's v1 fit for B weightings of its n items; unknowns theta, phi, psi."""

    wins: Array
    """(n,) preferences in [0, 1]."""
    features: Array
    """(3, n): ones, length terms, difficulties."""
    penalty: GamedBlock | QuadraticPrior
    """What keeps the two slopes near those of the judge."""

    def solve(self, weights: Array, start: Array) -> Array:
        """weights: (B, n); start, result: (B, 3). Raises LocalismError if it does not converge."""
        objective = Objective(
            value=lambda points, rows: self._value(points, weights[rows]),
            step=lambda points, rows: self._step(points, weights[rows]),
        )
        return minimise(objective, start, "AlpacaEval-compatible fit")

    def scores(self, points: Array, weights: Array) -> Array:
        """(B,): 100 * mean over the weighted items of sigma(theta + psi * d_i)."""
        at_equal_length = expit(points[:, [0, 2]] @ self.features[[0, 2]])
        return 100 * (weights * at_equal_length).sum(axis=1) / weights.sum(axis=1)

    def _value(self, points: Array, weights: Array) -> Array:
        logits = points @ self.features
        misfit = (weights * (softplus(logits) - self.wins * logits)).sum(axis=1)
        return misfit + 0.5 * (points[:, 0] / THETA_SD) ** 2 + self.penalty.value(points[:, 1:])

    def _step(self, points: Array, weights: Array) -> NewtonStep:
        share = expit(points @ self.features)
        gradient = (weights * (share - self.wins)) @ self.features.T
        slope = weights * share * (1 - share)
        hessian = (self.features * slope[:, None, :]) @ self.features.T
        penalty = self.penalty.derivatives(points[:, 1:])
        gradient[:, 0] += points[:, 0] / THETA_SD**2
        gradient[:, 1:] += penalty.gradient
        hessian[:, 0, 0] += THETA_SD**-2
        hessian[:, 1:, 1:] += penalty.hessian
        return NewtonStep(gradient, -np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0])


@dataclass(frozen=True)
class CompatScores:
    """AlpacaEval-compatible scores of M models and their bootstrap replicates."""

    values: tuple[float | None, ...]
    """(M) percent points; None for a model without a scored item."""
    slopes: Array
    """(M, 3) theta, phi, psi; NaN where values is None."""
    resampled: Resampled
    """Replicates of the raw and of the length-controlled win rate."""


def compat_length_controlled(
    battles: Battles,
    difficulty: Array,
    gamed: GamedBlock | None = None,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> CompatScores:
    """AlpacaEval 2's length-controlled win rate of each model, with paired bootstrap replicates.

    difficulty: (N,) of the battles' items, on AlpacaEval's scale (no NaN where an item is scored).
    gamed: the exact block; None takes the Gaussian stand-in. Upstream looks difficulties up by row
    number, which shifts them behind a missing row; here they belong to their item. Its published
    standard error leaves out the slopes' error and is half too small, so the replicates take its
    place.
    Raises LocalismError if a fit does not converge.
    """
    shape = (resamples if len(battles.items) > 1 else 0, len(battles.models))
    resampled = Resampled(np.full(shape, np.nan), np.full(shape, np.nan))
    weights = draw_weights(len(battles.items), shape[0], seed)
    penalty = QuadraticPrior() if gamed is None else gamed
    values: list[float | None] = [None] * len(battles.models)
    points = np.full((len(battles.models), 3), np.nan)
    for m in np.flatnonzero(battles.scored.any(axis=1)):
        scored = battles.scored[m]
        wins = battles.preference[m, scored]
        terms = length_terms(battles)[m, scored]
        features = np.stack([np.ones(len(wins)), terms, difficulty[scored]])
        fit = CompatFit(wins, features, penalty)
        whole = np.ones((1, len(wins)))
        points[m] = fit.solve(whole, np.array([[0.0, *SLOPE_MEAN]]))[0]
        values[m] = float(fit.scores(points[[m]], whole)[0])
        drawn = weights[:, scored]
        usable = np.flatnonzero(drawn.any(axis=1))  # a draw may hold none of the model's items
        drawn = drawn[usable]
        resampled.win_rate[usable, m] = 100 * (drawn @ wins) / drawn.sum(axis=1)
        solved = fit.solve(drawn, points[[m]].repeat(len(drawn), axis=0))
        resampled.length_controlled[usable, m] = fit.scores(solved, drawn)
    return CompatScores(tuple(values), points, resampled)
