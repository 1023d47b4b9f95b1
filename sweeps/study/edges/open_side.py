"""Whether nothing has been tried on one side of the best: then the best may well lie there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from results.stored_trials import full_budget_loss, is_replicate, rank
from results.verdict.band import EDGE_SHARE
from search_spaces import Dimension, SearchSpace
from search_spaces.dimension import Value

SIDES = ("high", "low")
STEP = 2.5
"""A trial beside the best has so many times its rate, or the end of the range."""
BEYOND = 1.05
"""A rate that is this much farther lies beside the best."""
_STARTED = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The best of the search's complete trials."""
    complete = [trial for trial in trials if not is_replicate(trial) and full_budget_loss(trial) is not None]
    return min(complete, key=rank, default=None)


def end_reached(dimension: Dimension, value: float) -> str | None:
    """ "low" or "high" when a value is as close to that end of its range as the verdict calls its edge."""
    low, high = dimension.bounds()
    if low >= high:
        return None
    if dimension.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    share = (value - low) / (high - low)
    return "low" if share <= EDGE_SHARE else "high" if share >= 1 - EDGE_SHARE else None


@dataclass(frozen=True, kw_only=True)
class OpenSide:
    """A side of the best on which no trial of its scheduler has run, running ones included."""

    dimension: str
    side: str
    best: int
    """The best trial's number."""
    params: dict[str, Any]
    """The best's, with a value on that side."""

    @property
    def value(self) -> Value:
        """What is to be tried."""
        value: Value = self.params[self.dimension]
        return value


def open_side(trials: Sequence[FrozenTrial], space: SearchSpace, name: str) -> OpenSide | None:
    """The side of the best on which nothing has been tried of a dimension on a log scale; high before low.

    Trials of another scheduler say little, because the best rate moves with it. An end of the range has no
    other side, and neither has a best so near to it that a trial at the end would repeat it.
    """
    best = best_trial(trials)
    if best is None or name not in best.params or name not in space:
        return None
    dimension, value = space[name], float(best.params[name])
    if not dimension.log or not dimension.contains(best.params[name]):
        return None
    low, high = dimension.bounds()
    alike = [
        float(trial.params[name])
        for trial in trials
        if trial.state in _STARTED
        and not is_replicate(trial)
        and name in trial.params
        and trial.params.get("lr_scheduler_type") == best.params.get("lr_scheduler_type")
    ]
    at_end = end_reached(dimension, value)
    is_tried = {
        "high": any(other > value * BEYOND for other in alike),
        "low": any(other < value / BEYOND for other in alike),
    }
    for side in SIDES:
        if is_tried[side] or at_end == side:
            continue
        beside = min(value * STEP, high) if side == "high" else max(value / STEP, low)
        params = best.params | {name: beside}
        if max(beside / value, value / beside) > BEYOND and all(trial.params != params for trial in trials):
            return OpenSide(dimension=name, side=side, best=best.number, params=params)
    return None
