"""What an arm is expected to cost before any of its new seeds ran, by the sweep's own trials.

The new seeds are independent of these trials: arms may be chosen by them without touching an error rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from results.comparison.arms import Arm
from results.effects.coordinates import coordinates_of
from results.effects.surface_model import SurfaceModel
from results.effects.value_effects import LEAST_TRIALS
from results.sweep_result import SweepResult
from results.verdict.arm_comparisons import values_of

UNKNOWN = 0.01
"""What an arm counts as costing, and how uncertain that is, where no model says: a share of the loss."""
_MOST_TRIALS = 64
_INTERVAL = 2 * 1.96
"""Standard deviations in an interval of 95%."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Shares of the best's loss."""

    cost: float
    spread: float
    """Standard deviation of what is plausible."""


def expected_costs(sweep: SweepResult, arms: Sequence[Arm]) -> Mapping[str, Expected]:
    """Arm -> what it is expected to cost more than the sweep's best."""
    best, coordinates = sweep.best, coordinates_of(sweep)
    trials = [trial for trial in sweep.finished if trial.eval_loss is not None][:_MOST_TRIALS]
    unknown = Expected(cost=UNKNOWN, spread=UNKNOWN)
    least = max(LEAST_TRIALS, len(coordinates.dimensions) + 2)
    if best is None or not best.eval_loss or not coordinates.dimensions or len(trials) < least:
        return {arm.name: unknown for arm in arms}
    model = SurfaceModel(
        np.array([coordinates.of(trial.values) for trial in trials]),
        np.array([trial.eval_loss for trial in trials], dtype=float),
        is_name=coordinates.is_name,
    )
    points = np.array([coordinates.of(values_of(arm, sweep.context)) for arm in arms])
    loss = abs(best.eval_loss)
    found = {
        arm.name: Expected(cost=found.middle / loss, spread=(found.high - found.low) / loss / _INTERVAL)
        for arm, found in zip(arms, model.differences(points, coordinates.of(best.values)), strict=True)
    }
    # That rate is tuned later: which arms run may not depend on what it turns out to be.
    return found | {arm.name: unknown for arm in arms if arm.role == "one_rate"}
