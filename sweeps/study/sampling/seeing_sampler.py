"""One of Optuna's samplers that is shown the trials otherwise than they are stored (`seen_trials.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from results.stored_trials import is_replicate
from search_spaces import SearchSpace
from sweeps.storage.optuna_private import SeenStudy

Seen = Callable[[Sequence[FrozenTrial], SearchSpace], list[FrozenTrial]]


class SeeingSampler(BaseSampler):
    """Asks `sampler`, to which it shows the study's trials after every function of `seen`, in their order."""

    def __init__(self, sampler: BaseSampler, space: SearchSpace, *seen: Seen) -> None:
        self.sampler = sampler
        self._space, self._seen = space, seen
        self._shown: tuple[int, optuna.Study] | None = None
        """The number of the trial that is drawn, and what is shown for it."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What the sampler models together."""
        return self.sampler.infer_relative_search_space(self._show(study, trial), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sampler's proposal from its model; nothing where it has none."""
        return self.sampler.sample_relative(self._show(study, trial), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value of a hyperparameter that is not in the model."""
        return self.sampler.sample_independent(
            self._show(study, trial), trial, param_name, param_distribution
        )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Before a trial's values are drawn."""
        self.sampler.before_trial(self._show(study, trial), trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """After a trial has ended."""
        self.sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Draw from another seed."""
        self.sampler.reseed_rng()

    def _show(self, study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
        if self._shown is None or self._shown[0] != trial.number:

            def seen(trials: Sequence[FrozenTrial]) -> Sequence[FrozenTrial]:
                # Runs on new seeds repeat a configuration, which no model should count several times.
                trials = [trial for trial in trials if not is_replicate(trial)]
                for change in self._seen:
                    trials = change(trials, self._space)
                return trials

            self._shown = trial.number, cast(optuna.Study, SeenStudy(study, seen))
        return self._shown[1]
