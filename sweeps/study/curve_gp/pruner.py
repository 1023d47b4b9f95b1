"""The model's stop decision as an Optuna pruner; the keeper freezes what it stops instead of pruning it."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from search_spaces import SearchSpace
from sweeps.study.curve_gp.curves import curves_of
from sweeps.study.curve_gp.decisions import GO_ON_CHANCE, chances


class FreezeThaw(BasePruner):
    """Stops a trial whose chance to end below all others is small."""

    def __init__(self, space: SearchSpace, *, min_resource: int, go_on: float = GO_ON_CHANCE) -> None:
        """`min_resource`: percent of the budget before which no trial is stopped; `go_on`: 0..1."""
        self._space, self._min_resource, self._go_on = space, min_resource, go_on
        self.reason = ""
        """Of the last decision, such as `wins with 3%`."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial.last_step is None or trial.last_step < self._min_resource:
            return False
        found = chances(self._space, curves_of(study)).get(trial.number)
        if found is None:
            return False
        self.reason = f"wins with {100 * found.wins:.0f}%"
        return found.wins < self._go_on
