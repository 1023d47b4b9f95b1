"""What a sweep's own trials, one run per config, measured of one guideline row: numbers alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from files_and_text.plain_values import finite
from results.effects.value_effects import Effect, ValueEffects
from results.sweep_result import SweepResult, TrialResult
from results.verdict.applicability import Condition, conditions_of, excluding
from results.verdict.row_values import (
    TOLERANCE,
    Position,
    dimension_name,
    distances,
    holds_value,
    is_beyond,
    position_of,
)
from search_spaces import Dimension, GuidelineRow
from search_spaces.dimension import Value
from search_spaces.from_rows.schedule import MOST_WARMUP

SIGNS_OF_ROW: Mapping[str, tuple[str, ...]] = {
    "stability.nan": ("nan_or_inf",),
    "stability.spike": ("loss_spike",),
    "stability.eval_rises": ("eval_rises",),
    "stability.repetitive": ("repetitive_output",),
    "stability.slow": ("slow_decrease",),
    "stability.unchanged": ("barely_changed",),
    "stability.embedding_nan": ("nan_or_inf",),
    "stability.embedding_spike": ("loss_spike",),
    "stability.same_rate_instability": ("nan_or_inf", "loss_spike"),
    "stability.diverges": ("nan_or_inf",),
    "stability.stalls": ("slow_decrease",),
}
"""Stability row -> the signs that lora_runner reports for it; rows that are absent here have none."""

NotTested = Literal[
    "no_value",  # the row names none
    "longer_than_run",  # a least number of warmup steps that no part of so short a run can hold
    "excluded",  # by one of the conditions
    "no_parameter",  # the row names none
    "no_trial_with_parameter",
    "held_fixed",  # at `held_at`
    "not_in_space",
    "no_trial_beyond",  # a boundary's value
    "nothing_finished",
    "nothing_finished_with_parameter",
    "no_such_sign",  # lora_runner reports none for the row
    "no_trial_ran",
    "sign_not_shown",
    "sign_in_all_trials",
    "best_has_none",  # and what was run again with one costs more beside its other settings
]
"""Why a sweep's own trials say nothing about a row."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The loss of a trial that took the row's value against the best, both at the full budget."""

    trial: int
    eval_loss: float
    """Nats per token."""
    difference: float
    """eval_loss minus the best trial's; never below 0."""
    percent: float | None
    """Difference in percent of the best trial's loss; None where that is not above 0."""
    own_value: bool
    """Whether the trial was run to measure this row, or only happens to lie inside it."""
    differs_in: tuple[str, ...]
    """Other searched dimensions in which the trial differs from the best: they share the difference. Values
    that are close enough to have no effect do not count."""


@dataclass(frozen=True, kw_only=True)
class BeyondBoundary:
    """Trials at or beyond a value that a document calls too high or too low."""

    trials: tuple[int, ...]
    outcomes: Mapping[str, int]
    signs: Mapping[str, int]
    """Sign -> number of trials that showed it."""
    cost: Cost | None
    """Cost of the best finished one."""


@dataclass(frozen=True, kw_only=True)
class SignCounts:
    """Trials that showed the signs of a stability row, against the others."""

    signs: tuple[str, ...]
    trials: tuple[int, ...]
    num_others: int
    num_values: int
    """Trials with a sign whose value of the row's parameter is known."""
    best_value: float | None
    num_on_said_side_of_best: int | None
    """How many of `num_values` are above the best (row says too high) or below it (row says too low)."""
    median_with_sign: float | None
    median_without_sign: float | None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What single runs show of one row; None where nothing was measured."""

    conditions: tuple[Condition, ...]
    not_tested: NotTested | None = None
    held_at: Value | None = None
    """The row's parameter in every trial, where it was not searched."""
    position: Position = "not_tested"
    """Where the best value lies: inside | below | above the row's range, outside its choices, unused by the
    best trial, or not_tested.

    For a boundary row the range is its one value. For a stability row it is where the trials that showed
    the sign lie in the row's parameter against the trials that did not (by medians).
    """
    best_value: Value | None = None
    best_trial: int | None = None
    """The best trial, where it has the row's parameter (there is no warmup beside `constant`)."""
    lowest_trial: int | None = None
    """The best trial of the sweep."""
    distance_log10: float | None = None
    """From the nearest end of the row's range to the best value, never negative; 0 inside."""
    centre_offset_log10: float | None = None
    """From the geometric centre of the row's range to the best value; positive when the best is higher."""
    cost: Cost | None = None
    """Of the cheapest trial with the row's value, whatever else it differs in."""
    alone: Cost | None = None
    """Of the cheapest one that differs from the best in nothing else; None where there is none."""
    effect: Effect | None = None
    """What the row's value costs with everything else as the best, by a model of the finished trials; None
    where the best holds it, and with too few trials."""
    ended_early: tuple[TrialResult, ...] = ()
    """Trials of the row's own value that did not finish; never a cost."""
    searched: Dimension | None = None
    """What was searched for the row's parameter."""
    beyond: BeyondBoundary | None = None
    """For boundary rows only."""
    signs: SignCounts | None = None
    """For stability rows only."""

    @property
    def by_itself(self) -> Cost | Effect | None:
        """What the row's value costs with everything else as the best: of a run, else of the model."""
        return self.alone or self.effect

    @property
    def applies(self) -> bool:
        """Whether the row is about such a sweep."""
        return excluding(self.conditions) is None

    @property
    def is_tested(self) -> bool:
        """Whether the sweep's own trials say anything about the row."""
        return self.position != "not_tested"


def measure(row: GuidelineRow, sweep: SweepResult, effects: ValueEffects | None = None) -> Measurement:
    """Measure one row; every row gets a measurement, with its reason where nothing was tested.

    Without `effects` no model is fitted.
    """
    effects = ValueEffects(sweep, has_model=False) if effects is None else effects
    found = Measurement(conditions=conditions_of(row, sweep.context))
    if row.topic == "stability":
        return _stability(row, sweep, found)
    if row.topic == "boundary":
        return _boundary(row, sweep, effects, found)
    return _value(row, sweep, effects, found)


def _value(row: GuidelineRow, sweep: SweepResult, effects: ValueEffects, found: Measurement) -> Measurement:
    if not row.choices and row.low is None and row.high is None:
        return replace(found, not_tested="no_value")
    steps = finite(sweep.context.get("max_steps"))
    if row.parameter == "warmup_steps" and steps and (row.low or 0.0) > MOST_WARMUP * steps:
        return replace(found, not_tested="longer_than_run")
    if (searched := _searched(row, sweep, found)).not_tested:
        return searched
    name = row.parameter or ""
    own = [t for t in sweep.trials if row.id in t.rows and holds_value(row, t.values.get(name))]
    ended_early = tuple(trial for trial in own if trial.eval_loss is None)
    best = _best_with(row, sweep)
    if best is None:
        return replace(found, not_tested=_nothing_finished(sweep), ended_early=ended_early)
    # The most charitable reading of the row: its value with the best other settings that this sweep tried.
    inside = [trial for trial in sweep.finished if holds_value(row, trial.values.get(name))]
    cost = _cost(row, sweep, inside[0], effects) if inside else None
    # Once a trial of the row's own value has finished, those that did not say nothing more about it.
    is_measured = cost is not None and cost.own_value
    found = _position(row, sweep, best, found)
    return replace(
        found,
        cost=cost,
        alone=_alone(row, sweep, inside, effects),
        effect=None if found.position == "inside" else effects.of(name, _own_values(row, found.position)),
        ended_early=() if is_measured else ended_early,
        searched=sweep.dimensions.get(dimension_name(row)),
    )


def _boundary(
    row: GuidelineRow, sweep: SweepResult, effects: ValueEffects, found: Measurement
) -> Measurement:
    if row.low is None:
        return replace(found, not_tested="no_value")
    name = row.parameter or ""
    ran = [trial for trial in sweep.started if trial.outcome != "running"]
    beyond = [trial for trial in ran if is_beyond(row, trial.values.get(name))]
    finished = [trial for trial in sweep.finished if trial in beyond]
    beyond_cost = _cost(row, sweep, finished[0], effects) if finished else None
    found = replace(
        found,
        searched=sweep.dimensions.get(name),
        beyond=BeyondBoundary(
            trials=tuple(trial.number for trial in beyond),
            outcomes=_counts(trial.outcome for trial in beyond),
            signs=_counts(sign for trial in beyond for sign in trial.signs),
            cost=beyond_cost,
        ),
    )
    searched = _searched(row, sweep, found)
    if searched.not_tested:
        return searched
    if not beyond:
        return replace(found, not_tested="no_trial_beyond")
    best = _best_with(row, sweep)
    if best is None:
        return replace(found, not_tested=_nothing_finished(sweep))
    found = _position(row, sweep, best, found)
    is_best_beyond = beyond_cost is not None and beyond_cost.trial == found.best_trial
    return replace(
        found,
        cost=beyond_cost,
        alone=_alone(row, sweep, finished, effects),
        effect=None if is_best_beyond else effects.of(name, [row.low]),
    )


def _own_values(row: GuidelineRow, position: Position) -> Sequence[Value]:
    """The row's names, or the end of its range towards the best."""
    if row.choices:
        return row.choices
    end = row.high if position == "above" else row.low
    return [] if end is None else [end]


def _alone(
    row: GuidelineRow, sweep: SweepResult, trials: Sequence[TrialResult], effects: ValueEffects
) -> Cost | None:
    """Of trials with the row's value, best first, the first that differs from the best in nothing else."""
    costs = (_cost(row, sweep, trial, effects) for trial in trials)
    return next((cost for cost in costs if cost is not None and not cost.differs_in), None)


def _stability(row: GuidelineRow, sweep: SweepResult, found: Measurement) -> Measurement:
    """Compare the trials that showed a sign with the others."""
    signs, name = SIGNS_OF_ROW.get(row.id, ()), row.parameter or "learning_rate"
    if not signs:
        return replace(found, not_tested="no_such_sign")
    if not found.applies:
        return replace(found, not_tested="excluded")
    ran = [t for t in sweep.started if t.outcome not in ("running", "failed") and name in t.values]
    showing = [trial for trial in ran if set(signs) & set(trial.signs)]
    others = [trial for trial in ran if trial not in showing]
    with_sign, without = _numbers(showing, name), _numbers(others, name)
    best = _best_with(row, sweep)
    best_value = None if best is None else finite(best.values.get(name))
    counts = SignCounts(
        signs=signs,
        trials=tuple(trial.number for trial in showing),
        num_others=len(others),
        num_values=len(with_sign),
        best_value=best_value,
        num_on_said_side_of_best=_on_said_side(row, with_sign, best_value),
        median_with_sign=median(with_sign) if with_sign else None,
        median_without_sign=median(without) if without else None,
    )
    found = replace(found, signs=counts)
    if not ran or not with_sign:
        return replace(found, not_tested="sign_not_shown" if ran else "no_trial_ran")
    if not without:
        return replace(found, not_tested="sign_in_all_trials")
    ours, theirs = median(with_sign), median(without)
    if math.isclose(ours, theirs, rel_tol=TOLERANCE):
        return replace(found, position="inside")
    return replace(found, position="above" if ours > theirs else "below")


def _searched(row: GuidelineRow, sweep: SweepResult, found: Measurement) -> Measurement:
    """`found`, with the reason where the row does not apply or no trial could differ in its parameter."""
    if not found.applies:
        return replace(found, not_tested="excluded")
    name = row.parameter
    if name is None:
        return replace(found, not_tested="no_parameter")
    drawn = [dimension_name(row)]
    if name == "embedding_learning_rate":
        drawn.append("learning_rate")  # with a fixed ratio it still follows the main rate
    values = [trial.values[name] for trial in sweep.trials if name in trial.values]
    if any(dimension in sweep.dimensions and not sweep.dimensions[dimension].fixed for dimension in drawn):
        return found if values else replace(found, not_tested="no_trial_with_parameter")
    if len(set(values)) == 1:
        return replace(found, not_tested="held_fixed", held_at=values[0])
    return replace(found, not_tested="not_in_space")


def _position(row: GuidelineRow, sweep: SweepResult, best: TrialResult, found: Measurement) -> Measurement:
    lowest = None if sweep.best is None else sweep.best.number
    if best.number != lowest:
        return replace(found, position="unused", lowest_trial=lowest)
    value = best.values[row.parameter or ""]
    distance, offset = distances(row, value)
    return replace(
        found,
        position=position_of(row, value),
        best_value=value,
        best_trial=best.number,
        lowest_trial=lowest,
        distance_log10=distance,
        centre_offset_log10=offset,
    )


def _cost(row: GuidelineRow, sweep: SweepResult, trial: TrialResult, effects: ValueEffects) -> Cost | None:
    """The trial's loss against the best; None unless both finished."""
    best = sweep.best
    if best is None or best.eval_loss is None or trial.eval_loss is None:
        return None
    difference = trial.eval_loss - best.eval_loss
    return Cost(
        trial=trial.number,
        eval_loss=trial.eval_loss,
        difference=difference,
        percent=100 * difference / best.eval_loss if best.eval_loss > 0 else None,
        own_value=row.id in trial.rows,
        differs_in=effects.differing(row.parameter or "", trial),
    )


def _best_with(row: GuidelineRow, sweep: SweepResult) -> TrialResult | None:
    return next((trial for trial in sweep.finished if row.parameter in trial.values), None)


def _nothing_finished(sweep: SweepResult) -> NotTested:
    return "nothing_finished_with_parameter" if sweep.finished else "nothing_finished"


def _on_said_side(row: GuidelineRow, values: Sequence[float], best: float | None) -> int | None:
    if best is None or row.direction is None or not values:
        return None
    return sum(value > best if row.direction == "too_high" else value < best for value in values)


def _numbers(trials: Sequence[TrialResult], name: str) -> list[float]:
    return [value for trial in trials if (value := finite(trial.values.get(name))) is not None]


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
