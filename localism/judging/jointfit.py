"""Preferences and length terms -> posterior mode of the joint model that winrate.py describes."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from localism.judging.newton import Array, NewtonStep, Objective, minimise, softplus


class Priors(NamedTuple):
    """Means and standard deviations of the model's terms, on the logit scale."""

    theta_sd: float
    """Quality of a candidate; its mean is 0."""
    gamma_sd: float
    """Easiness of an item; its mean is 0."""
    phi_mean: float
    """Length slope of the judge, expected."""
    phi_mean_sd: float
    """How far the judge's slope may lie from phi_mean."""
    phi_sd: float
    """How far a candidate's slope may lie from the judge's."""


@dataclass(frozen=True)
class JointFit:
    """M candidates on N items, solved for B weightings of the items at once (B = resamples).

    Unknowns of one problem: theta (M), phi (M), gamma (N), in this order. phibar is integrated out:
    phi ~ N(phi_mean, phi_sd^2 I + phi_mean_sd^2 11'), which has the same mode in theta, phi and
    gamma. An item drawn twice is two items that happen to agree: its likelihood and its gamma's
    prior both count double, so one gamma serves for both.
    """

    wins: Array
    """(M, N) preferences in [0, 1], 0 where unscored."""
    scored: Array
    """(M, N) 1 or 0; no row and no column is all 0."""
    terms: Array
    """(M, N) length terms, 0 where unscored."""
    priors: Priors
    """Widths of the terms."""

    @cached_property
    def phi_precision(self) -> Array:
        """(M, M), the inverse of phi's prior covariance."""
        return np.asarray(self._pull(np.eye(len(self.wins))), dtype=np.float64)

    def _pull(self, off: Array) -> Array:
        """(B, M) distances of phi from its mean -> their product with phi_precision.

        Split into the mean distance and the rest, whose precisions may be a million apart: as one
        matrix product the two would cancel to rounding errors that stop the fit from ending.
        """
        count = len(self.wins)
        mean = off.mean(axis=1, keepdims=True)
        of_mean = self.priors.phi_sd**2 + count * self.priors.phi_mean_sd**2
        return np.asarray((off - mean) / self.priors.phi_sd**2 + mean / of_mean, dtype=np.float64)

    def solve(
        self, weights: Array, start: Array | None = None, centres: Array | None = None
    ) -> Array:
        """weights: (B, N), how often each item counts; start, result: (B, 2M + N).

        centres: (B, M) means of phi's prior, as from `drawn_centres`; phi_mean when absent.
        The objective is strongly convex, so the mode is unique and does not depend on the start.
        Raises LocalismError if a fit does not converge.
        """
        count, items = self.wins.shape
        start = np.zeros((len(weights), 2 * count + items)) if start is None else start
        centred = np.full((len(weights), count), self.priors.phi_mean)
        centred = centred if centres is None else centres
        objective = Objective(
            value=lambda points, rows: self._value(points, weights[rows], centred[rows]),
            step=lambda points, rows: self._step(points, weights[rows], centred[rows]),
        )
        return minimise(objective, start, "length-controlled fit")

    def drawn_centres(self, count: int, rng: np.random.Generator) -> Array:
        """(count, M) draws from phi's prior, for fits that shall differ as the slopes might.

        To refit with the prior's mean drawn from the prior is to draw from the posterior, exactly
        so where the likelihood is Gaussian (randomize then optimize, Bardsley et al. 2014).
        """
        shared = self.priors.phi_mean_sd * rng.normal(size=(count, 1))
        own = self.priors.phi_sd * rng.normal(size=(count, len(self.wins)))
        return np.asarray(self.priors.phi_mean + shared + own, dtype=np.float64)

    def unpack(self, points: Array) -> tuple[Array, Array, Array]:
        """(B, 2M + N) -> theta (B, M), phi (B, M), gamma (B, N)."""
        count = len(self.wins)
        return points[:, :count], points[:, count : 2 * count], points[:, 2 * count :]

    def scores(self, points: Array, weights: Array) -> Array:
        """(B, M): 100 * mean over the weighted items of sigma(theta_m + gamma_i).

        Every candidate is averaged over the same items, those included where its own verdict is
        missing.
        """
        theta, _, gamma = self.unpack(points)
        at_equal_length = expit(theta[:, :, None] + gamma[:, None, :])
        total = (at_equal_length @ weights[:, :, None])[:, :, 0]
        return 100 * total / weights.sum(axis=1, keepdims=True)

    def pooled_slope(self, phi: Array) -> float:
        """phibar at the mode, given phi (M,)."""
        if self.priors.phi_mean_sd == 0:
            return self.priors.phi_mean
        prior, each = self.priors.phi_mean_sd**-2, self.priors.phi_sd**-2
        return float((prior * self.priors.phi_mean + each * phi.sum()) / (prior + each * len(phi)))

    def _logits(self, points: Array) -> Array:
        theta, phi, gamma = self.unpack(points)
        return theta[:, :, None] + phi[:, :, None] * self.terms + gamma[:, None, :]

    def _value(self, points: Array, weights: Array, centres: Array) -> Array:
        """Minus the log posterior, (B,), up to a constant."""
        theta, phi, gamma = self.unpack(points)
        logits = self._logits(points)
        misfit = (self.scored * softplus(logits) - self.wins * logits).sum(axis=1)
        misfit += 0.5 * (gamma / self.priors.gamma_sd) ** 2
        off = phi - centres
        apart = off - off.mean(axis=1, keepdims=True)  # as in _pull, for the same reason
        penalty = (theta / self.priors.theta_sd) ** 2 + apart * self._pull(apart)
        penalty += (off - apart) * self._pull(off - apart)
        return (weights * misfit).sum(axis=1) + 0.5 * penalty.sum(axis=1)

    def _step(self, points: Array, weights: Array, centres: Array) -> NewtonStep:
        """Gradient and Newton direction; gamma's diagonal block goes by its Schur complement.

        The gamma rows of the system are divided by the item weights, so that an item of weight 0
        keeps a finite step; its gradient is reported as 0, because it is not part of the problem.
        """
        theta, phi, gamma = self.unpack(points)
        share = expit(self._logits(points)) * self.scored
        residual, slope = share - self.wins, share * (1 - share)
        cross = np.concatenate([slope, slope * self.terms], axis=1)
        gamma_curvature = slope.sum(axis=1) + self.priors.gamma_sd**-2
        gamma_gradient = residual.sum(axis=1) + gamma / self.priors.gamma_sd**2
        theta_gradient = np.einsum("bmi,bi->bm", residual, weights)
        theta_gradient += theta / self.priors.theta_sd**2
        phi_gradient = np.einsum("bmi,mi,bi->bm", residual, self.terms, weights)
        phi_gradient += self._pull(phi - centres)
        head_gradient = np.concatenate([theta_gradient, phi_gradient], axis=1)

        hessian = self._head_hessian(slope, weights)
        hessian -= (cross * (weights / gamma_curvature)[:, None, :]) @ cross.transpose(0, 2, 1)
        passed_on = (cross @ (weights * gamma_gradient / gamma_curvature)[:, :, None])[:, :, 0]
        head = -np.linalg.solve(hessian, (head_gradient - passed_on)[:, :, None])[:, :, 0]
        tail = -(gamma_gradient + np.einsum("bpi,bp->bi", cross, head)) / gamma_curvature
        return NewtonStep(
            gradient=np.concatenate([head_gradient, weights * gamma_gradient], axis=1),
            direction=np.concatenate([head, tail], axis=1),
        )

    def _head_hessian(self, slope: Array, weights: Array) -> Array:
        """Second derivatives by (theta, phi), (B, 2M, 2M): three diagonals and phi's prior."""
        count = len(self.wins)
        weighted = slope * weights[:, None, :]
        hessian = np.zeros((len(slope), 2 * count, 2 * count))
        hessian[:, count:, count:] = self.phi_precision
        theta, phi = np.arange(count), np.arange(count) + count
        hessian[:, theta, theta] += weighted.sum(axis=2) + self.priors.theta_sd**-2
        mixed = np.einsum("bmi,mi->bm", weighted, self.terms)
        hessian[:, theta, phi] = mixed
        hessian[:, phi, theta] = mixed
        hessian[:, phi, phi] += np.einsum("bmi,mi->bm", weighted, self.terms**2)
        return hessian
