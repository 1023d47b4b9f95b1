"""Final values expected of pruned trials, for samplers that model final values alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import pairwise

from optuna.trial import FrozenTrial, TrialState

FARTHEST = 3.0
"""Of the median's distance to the best: values farther above the median say only that they are bad."""


def expected_values(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Number -> final value of every complete trial, and the one expected of every pruned trial.

    From the report at which it was pruned a trial is taken to have changed, from rung to rung, as the median
    of those did that went on. So at a rung the order stays, and values of different rungs can be compared. A
    trial that diverged or ran out of memory counts as the worst of all. Far values are cut off (`FARTHEST`),
    because a model of them all would see nothing else.
    """
    complete = {
        trial.number: trial.values[0]
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.values and math.isfinite(trial.values[0])
    }
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    changes = _median_changes(trials)
    expected = dict(complete)
    broken = []
    for trial in pruned:
        last = trial.last_step
        value = None if last is None else trial.intermediate_values[last]
        if value is None or not math.isfinite(value) or trial.user_attrs.get("outcome", "pruned") != "pruned":
            broken.append(trial.number)
        else:
            expected[trial.number] = value + sum(
                change for at, change in changes if last is not None and at >= last
            )
    if not expected:
        return {}
    best, median = min(expected.values()), statistics.median(expected.values())
    highest = median + FARTHEST * (median - best) if median > best else math.inf
    expected = {number: min(value, highest) for number, value in expected.items()}
    worst = max(expected.values())
    return expected | dict.fromkeys(broken, worst)


def _median_changes(trials: Iterable[FrozenTrial]) -> list[tuple[int, float]]:
    """(percent, median change of the value from there to the next report), over trials that have both."""
    found: dict[tuple[int, int], list[float]] = {}
    values = [
        trial.intermediate_values
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]
    percents = sorted({percent for each in values for percent in each})
    for before, after in pairwise(percents):
        for each in values:
            if before in each and after in each and math.isfinite(change := each[after] - each[before]):
                found.setdefault((before, after), []).append(change)
    return [(before, statistics.median(changes)) for (before, _), changes in found.items()]
