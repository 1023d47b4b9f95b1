"""The model's stop decision as an Optuna pruner; the keeper freezes what it stops instead of pruning it."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from search_spaces import SearchSpace


class FreezeThaw(BasePruner):
    """Stops a trial whose chance to end below all others is small."""

    def __init__(self, space_of: Callable[[optuna.Study], SearchSpace], *, min_resource: int) -> None:
        """`space_of`: a study's space as it is now; `min_resource`: percent before which no trial stops."""
        self._space_of, self._min_resource = space_of, min_resource
        self.reason = ""
        """Of the last decision, such as `3% likely to win`."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        if trial.last_step is None or trial.last_step < self._min_resource:
            return False
        from sweeps.study.curve_gp.curves import curves_of
        from sweeps.study.curve_gp.decisions import GO_ON_CHANCE, chances  # only here: it imports scipy

        found = chances(self._space_of(study), curves_of(study)).get(trial.number)
        if found is None:
            return False
        percent = f"{100 * found.wins:.0f}%" if found.wins >= 0.01 else "less than 1%"
        self.reason = f"{percent} likely to win"
        return found.wins < GO_ON_CHANCE
