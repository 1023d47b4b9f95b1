"""Whether a rate beyond the best's was tried at all: rates are means over the run, schedule included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from results.effects.coordinates import Values, coordinates_of
from results.effects.mean_rate import mean_rate
from results.sweep_result import SweepResult, TrialResult

Side = Literal["", "higher", "lower"]
_TRIED = ("complete", "pruned", "diverged")
"""Outcomes that say something of a trial's values."""
_APART = 1.1
"""A rate within 10% of the best's is no other rate."""


def untried_side(
    sweep: SweepResult, best: TrialResult | None, run_again: Iterable[Values] = ()
) -> tuple[Side, float | None]:
    """The side on which nothing was tried, and the best's mean rate; "" where both were, or without a search.

    `run_again` are the values of configurations that ran on new seeds.
    """
    rate = sweep.dimensions.get("learning_rate")
    if best is None or rate is None or rate.fixed:
        return "", None
    kwargs = coordinates_of(sweep).scheduler_kwargs
    tried = [trial.values for trial in sweep.trials if trial.outcome in _TRIED]

    def mean_of(values: Values) -> float | None:
        return mean_rate(values, kwargs.get(str(values.get("lr_scheduler_type", ""))))

    own = mean_of(best.values)
    means = [mean for values in (*tried, *run_again) if (mean := mean_of(values)) is not None]
    if own is None or max(means, default=own) / min(means, default=own) < _APART:
        return "", own
    if max(means) < own * _APART:
        return "higher", own
    return ("lower" if min(means) > own / _APART else ""), own
