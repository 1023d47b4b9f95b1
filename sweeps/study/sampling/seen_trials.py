"""Finished trials as a sampler's model should see them, where that is not as they are stored."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from search_spaces import Dimension, SearchSpace
from sweeps.study.pruning.expected_values import expected_values


def in_present_space(trials: Sequence[FrozenTrial], space: SearchSpace) -> list[FrozenTrial]:
    """The trials with the ranges that the space has now.

    Optuna's samplers drop a hyperparameter whose range has changed from their models, or keep to the first
    range. A trial with a value outside the present range stays as it is.
    """
    present = {dimension.name: (dimension, distribution_of(dimension)) for dimension in space.dimensions}
    return [_with_ranges(trial, present) for trial in trials]


def with_pruned_values(trials: Sequence[FrozenTrial], space: SearchSpace) -> list[FrozenTrial]:
    """Complete and pruned trials as complete ones, and a value for every hyperparameter of each trial.

    For samplers whose models know neither pruned trials nor hyperparameters that only some trials have: one
    that a trial lacks has its default, which changes nothing there.
    """
    values = expected_values(trials)
    seen = []
    for trial in trials:
        is_ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if is_ended and trial.number not in values:
            continue
        lacking = [dimension for dimension in space.dimensions if dimension.name not in trial.params]
        changed = copy.copy(trial)
        if is_ended:
            changed.state, changed.values = TrialState.COMPLETE, [values[trial.number]]
        if trial.params:  # not the trial that is being drawn
            changed.distributions = trial.distributions | {d.name: distribution_of(d) for d in lacking}
            changed.params = trial.params | {d.name: d.default for d in lacking}
        seen.append(changed)
    return seen


def distribution_of(dimension: Dimension) -> BaseDistribution:
    """What Optuna records of a value that `Dimension.suggest` asked for."""
    if dimension.choices is not None:
        return CategoricalDistribution(dimension.choices)
    low, high = dimension.bounds()
    if dimension.kind == "int":
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)


def _with_ranges(
    trial: FrozenTrial, present: Mapping[str, tuple[Dimension, BaseDistribution]]
) -> FrozenTrial:
    moved: dict[str, BaseDistribution] = {}
    for name, stored in trial.distributions.items():
        dimension, distribution = present.get(name, (None, stored))
        if dimension is not None and distribution != stored and dimension.contains(trial.params.get(name)):
            moved[name] = distribution
    if not moved:
        return trial
    changed = copy.copy(trial)
    changed.distributions = trial.distributions | moved
    return changed
