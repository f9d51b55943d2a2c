"""Preferences -> win rates and length-controlled win rates: how often candidates beat a baseline.

    localism winrate judgments.csv --json        (files: alpacaeval_files.py; pick: picking.py)

The length-controlled estimator is one hierarchical logistic model of all candidates on the items,

    logit E[y_mi] = theta_m + phi_m * t_mi + gamma_i
    t_mi = tanh((len_baseline_mi - len_model_mi) / sd_m)     a judge that likes length has phi < 0
    theta_m ~ N(0, 5^2)   gamma_i ~ N(0, 2.5^2)   phi_m ~ N(phibar, .3^2)   phibar ~ N(-1, 2^2)

fitted at its posterior mode; LC_m = 100 * mean_i sigma(theta_m + gamma_i), the win rate at equal
length. It replaces AlpacaEval's per-model fit (arXiv:2404.04475), which needs a difficulty for each
of its own 805 instructions: for other items the candidates themselves tell how hard each item is,
and pooling the length slope is what makes 100 items enough. The prior widths are those checked on
48 leaderboard models (mean error .45 points); small pools are less exact in level and about as good
in rank.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from localism.judging.jointfit import JointFit, Priors
from localism.judging.newton import Array
from localism.tables import number_of

THETA_SD = 5.0
GAMMA_SD = 2.5
PHI_SD = 0.3
VAGUE_PHI = (-1.0, 2.0)
CALIBRATED_PHI_SD = 0.3
# One candidate cannot separate its length from its quality, nor an item's difficulty from either:
# the slope is held near the judge's value and the item terms at zero. -1.0 is the best value
# for GPT-4-1106 as judge.
LONE_PHI = -1.0
LONE_PHI_SD = 0.05
LONE_GAMMA_SD = 1e-3

FEW_ITEMS = 30
FEW_MODELS = 3


class BattleRow(NamedTuple):
    """One judged answer."""

    model: str
    item: str
    preference: float | None
    """P(candidate beats baseline) in [0, 1]; None or NaN where the judge gave no usable verdict."""
    len_model: float | None
    """Characters of the candidate's answer; may be None where preference is."""
    len_baseline: float | None
    """Characters of the baseline's answer; may be None where preference is."""


@dataclass(frozen=True)
class Battles:
    """M candidates against one baseline on N items."""

    models: tuple[str, ...]
    """Candidate names, the M rows of the arrays."""
    items: tuple[str, ...]
    """Item names, the N columns of the arrays."""
    preference: Array
    """(M, N) in [0, 1], P(candidate beats baseline); NaN = unscored."""
    len_model: Array
    """(M, N) characters of the candidates' answers; ignored where unscored."""
    len_baseline: Array
    """(M, N) characters of the baseline's answers; ignored where unscored."""

    def __post_init__(self) -> None:
        shape = (len(self.models), len(self.items))
        for name in ("preference", "len_model", "len_baseline"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(set(self.models)) < shape[0] or len(set(self.items)) < shape[1]:
            raise ValueError("a model or an item is named twice")
        scored = self.preference[self.scored]
        if scored.size and not (scored.min() >= 0 and scored.max() <= 1):
            raise ValueError(f"preference outside [0, 1]: {scored.min()} to {scored.max()}")
        if not np.isfinite((self.len_model + self.len_baseline)[self.scored]).all():
            raise ValueError("a scored answer has no length")

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(M, N), True where there is a preference."""
        return ~np.isnan(self.preference)


@dataclass(frozen=True)
class WinRate:
    """A win rate over the scored items; None where there are too few to tell."""

    value: float | None
    """Percent points, 0 to 100; None if nothing was scored."""
    standard_error: float | None
    """Percent points; None below two scored items."""
    n: int
    """Scored items."""
    unscored: int
    """Items without a usable preference: counted, not averaged."""


@dataclass(frozen=True)
class LengthControlled:
    """The fitted length-controlled model; arrays follow the Battles' order."""

    values: tuple[float | None, ...]
    """(M) percent points, 0 to 100; None for a candidate without a scored item."""
    theta: Array
    """(M,) quality on the logit scale; NaN where values is None."""
    phi: Array
    """(M,) length slopes; NaN where values is None."""
    phi_mean: float | None
    """The pooled length slope; None if nothing was scored."""
    gamma: Array
    """(N,) how easy each item is to win; NaN for an item that nobody was scored on."""
    priors: Priors
    """What the fit assumed."""
    approximate: bool
    """True where the data cannot carry the whole model: see notes."""
    notes: tuple[str, ...]
    """Sentences that belong beside the numbers."""


def battles_from_rows(rows: Iterable[BattleRow]) -> Battles:
    """Arrange judged answers in arrays, in order of first appearance; absent pairs are unscored.

    Raises ValueError if a (model, item) pair occurs twice or a value is out of range.
    """
    cells: dict[tuple[str, str], BattleRow] = {}
    for row in rows:
        if (row.model, row.item) in cells:
            raise ValueError(f"two rows for model {row.model!r} on item {row.item!r}")
        cells[row.model, row.item] = row
    models = {model: m for m, model in enumerate(dict.fromkeys(key[0] for key in cells))}
    items = {item: i for i, item in enumerate(dict.fromkeys(key[1] for key in cells))}
    columns = np.full((3, len(models), len(items)), np.nan)
    for (model, item), row in cells.items():
        # numpy reads None as NaN, which is what both mean here
        columns[:, models[model], items[item]] = row[2:]
    return Battles(tuple(models), tuple(items), *columns)


def win_rate(preference: Array) -> WinRate:
    """AlpacaEval 2's win rate: 100 * mean(y), with SE 100 * sd(y, ddof=1) / sqrt(n).

    preference: (N,), P(candidate beats baseline) in [0, 1], NaN = unscored.
    """
    scored = preference[~np.isnan(preference)]
    n = len(scored)
    return WinRate(
        value=float(100 * scored.mean()) if n else None,
        standard_error=float(100 * scored.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        n=n,
        unscored=len(preference) - n,
    )


def tanh_of_lengths(difference: Array) -> Array:
    """Length differences (n,) in units of their own spread, squashed to (-1, 1).

    Zeros where the difference never varies: one length cannot be told from quality, and the
    formula's limit (tanh of infinity) would turn a single character into a full correction.
    """
    # asked of the range, not of the spread, which rounding can leave a little above zero
    if len(difference) < 2 or np.ptp(difference) == 0:
        return np.zeros_like(difference)
    return np.tanh(difference / difference.std(ddof=1))


def length_terms(battles: Battles) -> Array:
    """(M, N): each candidate's `tanh_of_lengths` over its scored items; 0 if unscored."""
    terms = np.zeros_like(battles.preference)
    difference = battles.len_baseline - battles.len_model
    for m, scored in enumerate(battles.scored):
        terms[m, scored] = tanh_of_lengths(difference[m, scored])
    return terms


def priors_for(model_count: int, phi_calibrated: float | None, phi_error: float = 0.0) -> Priors:
    """The widths of the model above; for a lone candidate, all but its quality held fixed.

    phi_error: standard error of phi_calibrated; a slope that was measured badly binds less.
    """
    if model_count == 1:
        phi = LONE_PHI if phi_calibrated is None else phi_calibrated
        return Priors(THETA_SD, LONE_GAMMA_SD, phi, 0.0, LONE_PHI_SD)
    if phi_calibrated is None:
        return Priors(THETA_SD, GAMMA_SD, *VAGUE_PHI, PHI_SD)
    width = math.hypot(CALIBRATED_PHI_SD, phi_error)
    return Priors(THETA_SD, GAMMA_SD, phi_calibrated, width, PHI_SD)


def length_controlled(
    battles: Battles,
    *,
    phi_calibrated: float | None = None,
    phi_error: float = 0.0,
    priors: Priors | None = None,
) -> LengthControlled:
    """Length-controlled win rates of all candidates, from one fit of all of them together.

    phi_calibrated: this judge's own length slope (negative for one that likes length), where
    measured (calibration.py), with its standard error. Without item terms a slope comes out
    flatter (GPT-4-1106: -1.0 without, -1.75 with them), so a lone candidate wants one that was
    measured without.
    priors: other widths than `priors_for` gives, to compare estimators.
    A score belongs to its pool: adding a candidate moves the others' scores a little.
    Raises LocalismError if the fit does not converge.
    """
    scored = battles.scored
    models, items = np.flatnonzero(scored.any(axis=1)), np.flatnonzero(scored.any(axis=0))
    priors = priors or priors_for(len(models), phi_calibrated, phi_error)
    theta, phi = np.full(len(battles.models), np.nan), np.full(len(battles.models), np.nan)
    gamma = np.full(len(battles.items), np.nan)
    values: list[float | None] = [None] * len(battles.models)
    if not len(models):
        notes = ("nothing was scored",)
        return LengthControlled(tuple(values), theta, phi, None, gamma, priors, True, notes)
    fit = joint_fit(battles, priors)
    weights = np.ones((1, len(items)))
    solution = fit.solve(weights)
    theta[models], phi[models], gamma[items] = (part[0] for part in fit.unpack(solution))
    for m, value in zip(models, fit.scores(solution, weights)[0], strict=True):
        values[m] = float(value)
    return LengthControlled(
        tuple(values),
        theta,
        phi,
        fit.pooled_slope(phi[models]),
        gamma,
        priors,
        *_notes(battles, phi_calibrated),
    )


def joint_fit(battles: Battles, priors: Priors) -> JointFit:
    """The model of these battles, ready to solve: only candidates and items that have a score."""
    kept = np.ix_(battles.scored.any(axis=1), battles.scored.any(axis=0))
    scored = battles.scored[kept]
    return JointFit(
        wins=np.where(scored, battles.preference[kept], 0.0),
        scored=scored.astype(float),
        terms=length_terms(battles)[kept],
        priors=priors,
    )


def _notes(battles: Battles, phi_calibrated: float | None) -> tuple[bool, tuple[str, ...]]:
    """Whether the scores are approximate, and what a reader has to know beside them."""
    scored = battles.scored
    models, items = int(scored.any(axis=1).sum()), int(scored.any(axis=0).sum())
    notes = []
    if models == 1:
        slope = LONE_PHI if phi_calibrated is None else phi_calibrated
        origin = "GPT-4-1106's" if phi_calibrated is None else "the judge's calibrated one"
        notes.append(f"one candidate: its length slope is held near {slope:g}, {origin}")
    elif models < FEW_MODELS:
        notes.append(f"{models} candidates are too few to tell length from quality well")
    if items < FEW_ITEMS:
        notes.append(f"only {number_of(items, 'item')}: intervals are rough")
    approximate = bool(notes)
    if models > 1:
        notes.append(f"fitted on a pool of {models} candidates: read the scores as a ranking")
    flat = (length_terms(battles) == 0).all(axis=1) & scored.any(axis=1)
    if flat.any():
        names = ", ".join(
            name for name, is_flat in zip(battles.models, flat, strict=True) if is_flat
        )
        notes.append(f"no length correction, the length difference never varies: {names}")
    return approximate, tuple(notes)
