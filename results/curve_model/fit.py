"""Fit the hyperparameters on the curves of several models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from results.curve_model.hyperparameters import PRIOR_SPREAD, START, Hyperparameters
from results.curve_model.points import CurvePoints
from results.curve_model.posterior import CurvePosterior, evidence
from results.curve_model.shape import grid_of

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[np.float64]]


def fit(
    models: Sequence[CurvePoints],
    *,
    start: Hyperparameters = START,
    rounds: int = 3,
    steps: int = 60,
) -> Hyperparameters:
    """The hyperparameters with the highest posterior density, each model's own values summed out.

    A round weighs the runs by how far they lie off (heavy tails), then climbs for at most `steps` steps.
    """
    from scipy.optimize import minimize

    found = start
    rate, rank = (padded([getattr(model, name) for model in models]) for name in ("rate", "rank"))
    loss = padded([model.loss - model.loss.mean() for model in models])
    for _ in range(rounds):
        weights = padded([CurvePosterior(found, model).run_weights for model in models], empty=0.0)

        def objective(values: Array, weights: Array = weights) -> float:
            return -log_posterior(Hyperparameters.of(values), rate, rank, loss, weights)

        result = minimize(objective, found.values(), method="L-BFGS-B", options={"maxiter": steps})
        found = Hyperparameters.of(result.x)
    return found


def log_posterior(h: Hyperparameters, rate: Array, rank: Array, loss: Array, weights: Array) -> float:
    """The log density of hyperparameters, but for a constant; models as rows, padded with weight 0."""
    off = (np.array(h.values()) - np.array(START.values())) / np.array(PRIOR_SPREAD)
    try:
        _, _, logs = evidence(h, grid_of(h), rate, rank, loss, weights)
    except np.linalg.LinAlgError:
        return -1e10
    total = float(np.logaddexp.reduce(logs, axis=(-2, -1)).sum() - 0.5 * (off**2).sum())
    return total if np.isfinite(total) else -1e10


def padded(rows: Sequence[Array], empty: float | None = None) -> Array:
    """Rows of different lengths as one array: the last value is repeated, or `empty`."""
    longest = max(map(len, rows))
    return np.stack(
        [np.pad(r, (0, longest - len(r)), constant_values=r[-1] if empty is None else empty) for r in rows]
    )
