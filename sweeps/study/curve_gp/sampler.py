"""The model's proposals as an Optuna sampler."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from search_spaces import SearchSpace
from search_spaces.dimension import Dimension
from sweeps.study.curve_gp.curves import curves_of
from sweeps.study.curve_gp.decisions import STARTUP_TRIALS, propose


class CurveGPSampler(BaseSampler):
    """Proposes by the model of all learning curves; it learns from running and pruned trials too."""

    def __init__(
        self, space: SearchSpace, *, number: int, seed: int, n_startup_trials: int = STARTUP_TRIALS
    ) -> None:
        """`number`: of the draw, from 0; `seed`: the same for all draws of a search."""
        self._space = space
        self._number, self._seed, self._startup = number, seed, n_startup_trials
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every dimension of the space, so that conditional ones are proposed with the others."""
        return {dimension.name: distribution_of(dimension) for dimension in self._space.dimensions}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        curves = [curve for curve in curves_of(study) if curve.number != trial.number]
        return dict(propose(self._space, curves, number=self._number, seed=self._seed, startup=self._startup))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Only for what the space does not hold."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)


def distribution_of(dimension: Dimension) -> BaseDistribution:
    """What `Dimension.suggest` asks Optuna for."""
    if dimension.kind == "categorical":
        return CategoricalDistribution(list(dimension.choices or ()))
    low, high = dimension.bounds()
    if dimension.kind == "int":
        step = 1 if dimension.step is None else int(dimension.step)
        return IntDistribution(int(low), int(high), log=dimension.log, step=step)
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)
