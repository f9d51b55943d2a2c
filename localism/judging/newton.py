"""Damped Newton for many small convex problems at once; the solver under the two win rate models.

Undamped Newton diverges on real judge data (a model that loses nearly everything starts far from
its optimum), so every step is shortened until the objective falls as its slope promises.

With that, convergence is a theorem and not a hope: each objective is smooth, and its Gaussian terms
make it strongly convex, so it has one minimum and bounded level sets; there Newton directions
descend, and with backtracking (Armijo) they reach the minimum from any start, quadratically at the
end (Nocedal and Wright, Numerical Optimization, theorems 3.2 and 3.5). What rounding does to the
theorem is watched: a fit that ends with a gradient above the tolerance is an error. Tested against
a dense trust-region fit on hostile data (tests/unit/test_winrate.py).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from localism.errors import LocalismError

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

GRADIENT_TOLERANCE = 1e-8
"""A problem is solved when no component of its gradient is larger; in units of judgments."""

MAX_STEPS = 100
MAX_HALVINGS = 40
SUFFICIENT_DECREASE = 1e-4
# The last step may change the objective by less than its rounding error; that is not a failed step.
ROUNDING_SLACK = 1e-12


def softplus(logits: Array) -> Array:
    """log(1 + exp(x)) without overflow; several times faster than np.logaddexp."""
    return np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))


class NewtonStep(NamedTuple):
    """Gradient and Newton direction of B problems at their current points."""

    gradient: Array
    """(B, P), of the objective that is minimised."""
    direction: Array
    """(B, P), minus the inverse Hessian times the gradient."""


class Objective(NamedTuple):
    """B convex problems in P unknowns; `rows` says which of the B are asked about."""

    value: Callable[[Array, Rows], Array]
    """(points (b, P), rows (b,)) -> values (b,)."""
    step: Callable[[Array, Rows], NewtonStep]
    """(points (b, P), rows (b,)) -> gradients and directions (b, P)."""


def minimise(objective: Objective, start: Array, what: str) -> Array:
    """Minimise B convex problems together, each with its own step length.

    start: (B, P); what: the name of the fit, for the error. Returns the minima, (B, P).
    Raises LocalismError if a problem is not solved to GRADIENT_TOLERANCE in MAX_STEPS steps:
    a half-converged score is worse than none.
    """
    points = start.astype(float, copy=True)
    rows = np.arange(len(points))
    if not len(rows):
        return points
    values = objective.value(points, rows)
    for _ in range(MAX_STEPS):
        try:
            gradient, direction = objective.step(points[rows], rows)
        except np.linalg.LinAlgError:  # ran off to where the objective is flat to rounding
            break
        unsolved = ~(np.abs(gradient).max(axis=1) <= GRADIENT_TOLERANCE)  # so NaN is unsolved
        if not unsolved.any():
            return points
        rows = rows[unsolved]
        slopes = np.einsum("bp,bp->b", gradient[unsolved], direction[unsolved])
        points[rows], values[rows] = _line_search(
            objective, rows, points[rows], values[rows], direction[unsolved], slopes
        )
    raise LocalismError(
        f"the {what} did not converge in {MAX_STEPS} steps: {len(rows)} of {len(points)} unsolved",
        where=f"{what}, gradient above {GRADIENT_TOLERANCE:g}",
        fix="look for extreme lengths or corrupt values in what was read; "
        "if all is sound, report this as a bug with the judgments attached",
    )


def _line_search(
    objective: Objective, rows: Rows, points: Array, values: Array, direction: Array, slopes: Array
) -> tuple[Array, Array]:
    """Halve each problem's step until it decreases enough; returns new points and values.

    A step that never decreases leaves its problem where it was, and `minimise` reports it.
    """
    new_points, new_values = points.copy(), values.copy()
    pending = np.arange(len(rows))
    length = 1.0
    for _ in range(MAX_HALVINGS):
        trial = points[pending] + length * direction[pending]
        trial_values = objective.value(trial, rows[pending])
        promised = SUFFICIENT_DECREASE * length * slopes[pending]
        slack = ROUNDING_SLACK * (1.0 + np.abs(values[pending]))
        accepted = trial_values <= values[pending] + promised + slack
        done = pending[accepted]
        new_points[done], new_values[done] = trial[accepted], trial_values[accepted]
        pending = pending[~accepted]
        if not len(pending):
            break
        length /= 2
    return new_points, new_values
