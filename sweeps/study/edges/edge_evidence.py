"""Whether trials improve towards an end of a range by more than chance, the other dimensions allowed for.

A best trial at an end is no sign of anything in a dimension without effect: it lies within a twentieth of
one end or the other in a tenth of all sweeps, and a sampler that follows it returns there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from results.stored_trials import is_frozen
from search_spaces import SearchSpace
from sweeps.study.curve_gp.features import Features, Floats, to_unit
from sweeps.study.pruning.expected_values import expected_values

T_NEEDED = 3.0
"""Least ratio of the slope towards the end to its standard error. A sweep asks again after every trial, so
it is more than for a single look."""
_SHARES = (0.0, 0.5, 0.9, 0.99)
"""Of the variance that the other hyperparameters may explain; the likeliest is taken."""
_LENGTH = 0.5
"""Of a range, or of the distance of two choices, over which their effect stays alike."""


def improves_towards(trials: Sequence[FrozenTrial], space: SearchSpace, name: str, side: str) -> bool:
    """Whether values get better towards this end ("low" or "high") of a numeric dimension."""
    return slope_t(trials, space, name, side) >= T_NEEDED


def slope_t(trials: Sequence[FrozenTrial], space: SearchSpace, name: str, side: str) -> float:
    """The improvement per range towards this end, in standard errors; -inf where trials are too few or alike.

    A linear slope in the dimension beside a smooth function of all others (a Gaussian process), fitted to the
    ranks of the values, which neither a diverged trial nor a cliff can dominate.
    """
    values = expected_values([_as_ended(trial) for trial in trials])
    told = [trial for trial in trials if trial.number in values and name in trial.params]
    if len(told) < 4:
        return -math.inf
    position = np.array([to_unit(space[name], float(trial.params[name])) for trial in told])
    if np.ptp(position) < 1e-6:
        return -math.inf
    order = np.argsort(np.argsort([values[trial.number] for trial in told], kind="stable"), kind="stable")
    better = np.array([NormalDist().inv_cdf(1 - (rank + 0.5) / len(told)) for rank in order])
    others = replace(space, dimensions=tuple(d for d in space.dimensions if d.name != name), first_trials=())
    kernel = _kernel(Features.of(others).points([trial.params for trial in told]))
    design = np.column_stack([np.ones(len(told)), position if side == "high" else -position])
    return max(_fit(design, better, kernel, share) for share in _SHARES)[1]


def _as_ended(trial: FrozenTrial) -> FrozenTrial:
    """A frozen trial as the pruned one that it becomes."""
    if not is_frozen(trial):
        return trial
    ended = copy.copy(trial)
    ended.state, ended.user_attrs = TrialState.PRUNED, trial.user_attrs | {"outcome": "pruned"}
    return ended


def _kernel(points: Floats) -> Floats:
    distance = ((points[:, None, :] - points[None, :, :]) ** 2).sum(axis=-1)
    return np.asarray(np.exp(-0.5 * distance / _LENGTH**2))


def _fit(design: Floats, values: Floats, kernel: Floats, share: float) -> tuple[float, float]:
    """(restricted log-likelihood, slope / standard error) by generalized least squares."""
    covariance = (1 - share) * np.eye(len(values)) + share * kernel
    solved = np.linalg.solve(covariance, np.column_stack([design, values]))
    normal = design.T @ solved[:, :2]
    inverse = np.linalg.inv(normal)
    effects = inverse @ (design.T @ solved[:, 2])
    rest, freedom = values - design @ effects, len(values) - 2
    variance = max(float(rest @ np.linalg.solve(covariance, rest)) / freedom, 1e-12)
    likelihood = -0.5 * (
        freedom * math.log(variance) + np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(normal)[1]
    )
    return float(likelihood), float(effects[1] / math.sqrt(variance * inverse[1, 1]))
