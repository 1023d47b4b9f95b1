"""Trials as points: each searched hyperparameter on a scale of its own, and the mean rate over the run.

A difference of 1 is a large one on every scale: two decades of a rate, the whole run of a warmup, the
searched range of anything else. The schedule and the warmup move the mean rate too, which is what the loss
mostly follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from files_and_text.choices import SCHEDULERS_WITHOUT_WARMUP
from files_and_text.plain_values import finite
from results.effects.mean_rate import mean_rate
from results.sweep_result import SweepResult, TrialResult
from search_spaces import Dimension
from search_spaces.dimension import Value

MEAN_RATE = "mean rate"
SAME = 0.02
"""Values no farther apart than this are the same for a comparison: 10% of a rate, 2% of the run for a
warmup."""
_DECADES = 2.0
_RATES = ("learning_rate", "embedding_lr_ratio")
Values = Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """The scales of one sweep."""

    names: tuple[str, ...]
    """The mean rate where the rate, the schedule or the warmup was searched; then the searched dimensions."""
    dimensions: Mapping[str, Dimension]
    codes: Mapping[str, Mapping[Value, float]]
    """Of dimensions that are names: name -> its number."""
    scheduler_kwargs: Mapping[str, Mapping[str, Any]]

    @property
    def is_name(self) -> NDArray[np.float64]:
        """1 for names, 0 for numbers."""
        return np.array([float(name in self.codes) for name in self.names])

    def of(self, values: Values) -> NDArray[np.float64]:
        """The point of a trial with these values; nan where it has none."""
        return np.array([self.place(name, values) for name in self.names])

    def place(self, name: str, values: Values) -> float:
        """The coordinate of one name; nan where a trial with these values has none."""
        if name == MEAN_RATE:
            kwargs = self.scheduler_kwargs.get(str(values.get("lr_scheduler_type", "")))
            mean = mean_rate(values, kwargs)
            return math.log10(mean) / _DECADES if mean else math.nan
        value = values.get(name)
        if name in self.codes:
            return self.codes[name].get(value, math.nan) if value is not None else math.nan
        found = finite(value)
        if name == "warmup_ratio":
            steps, total = finite(values.get("warmup_steps")), finite(values.get("max_steps"))
            # Training knows whole steps only: shares that come to the same steps are the same warmup.
            return steps / total if steps is not None and total else math.nan if found is None else found
        if found is None:
            return math.nan
        if name in _RATES:
            return math.log10(found) / _DECADES if found > 0 else math.nan
        low, high = _ends(self.dimensions[name])
        if (
            low > 0
            and high > low
            and (self.dimensions[name].log or self.dimensions[name].choices is not None)
        ):
            return math.log(found / low) / math.log(high / low) if found > 0 else math.nan
        return (found - low) / (high - low) if high > low else 0.0


def coordinates_of(sweep: SweepResult) -> Coordinates:
    """The scales of a sweep's searched dimensions."""
    searched = {name: found for name, found in sweep.dimensions.items() if not found.fixed}
    moves_rate = {"learning_rate", "lr_scheduler_type", "warmup_ratio"} & set(searched)
    names = (*((MEAN_RATE,) if moves_rate else ()), *searched)
    codes = {
        name: {choice: float(index) for index, choice in enumerate(found.choices)}
        for name, found in searched.items()
        if found.choices is not None and any(finite(choice) is None for choice in found.choices)
    }
    kwargs = {
        str(trial.values["lr_scheduler_type"]): trial.config.get("lr_scheduler_kwargs") or {}
        for trial in sweep.trials
        if "lr_scheduler_type" in trial.values
    }
    return Coordinates(names=names, dimensions=searched, codes=codes, scheduler_kwargs=kwargs)


def differences(one: Values, other: Values, coordinates: Coordinates, *, apart_from: str) -> list[str]:
    """The searched dimensions but `apart_from` in which two trials differ as far as it has an effect.

    What only one of the two has because of `apart_from` is left out: beside `constant` there is no warmup.
    With another main rate the embeddings may keep their rate or their ratio to it.
    """
    found = []
    for name in coordinates.names:
        if name in (MEAN_RATE, apart_from):
            continue
        a, b = coordinates.place(name, one), coordinates.place(name, other)
        if math.isnan(a) or math.isnan(b):
            depends = coordinates.dimensions[name].active_when
            if math.isnan(a) != math.isnan(b) and (depends is None or depends[0] != apart_from):
                found.append(name)
        elif abs(a - b) > SAME and not (
            apart_from == "learning_rate"
            and name == "embedding_lr_ratio"
            and _keeps_embedding_rate(one, other)
        ):
            found.append(name)
    return found


def _keeps_embedding_rate(one: Values, other: Values) -> bool:
    a, b = (finite(values.get("embedding_learning_rate")) for values in (one, other))
    return bool(a and b) and abs(math.log10((a or 1.0) / (b or 1.0))) <= SAME * _DECADES


def changed(
    best: TrialResult, parameter: str, value: Value, others: Sequence[TrialResult], *, is_ratio_searched: bool
) -> dict[str, Value] | None:
    """The best's values with one of them changed, and what follows from it; None where the best has none.

    A schedule that warms up takes the warmup of the best of `others` that has it, where the best has none.
    """
    values = dict(best.values)
    steps, rate = finite(values.get("max_steps")), finite(values.get("learning_rate"))
    ratio, number = finite(values.get("embedding_lr_ratio")), finite(value)
    if parameter not in values and parameter != "lr_scheduler_type":
        return None
    values[parameter] = value
    if parameter == "learning_rate" and number and ratio:
        values["embedding_learning_rate"] = number * ratio
    elif parameter == "embedding_lr_ratio" and number and rate:
        values["embedding_learning_rate"] = number * rate
    elif parameter == "embedding_learning_rate" and number and rate and ratio:
        if is_ratio_searched:
            values["embedding_lr_ratio"] = number / rate
        else:
            values["learning_rate"] = number / ratio
    elif parameter == "warmup_ratio" and number is not None and steps:
        values["warmup_steps"] = min(int(steps), math.ceil(number * steps))
    elif parameter == "warmup_steps" and number is not None and steps:
        values["warmup_ratio"] = number / steps
    elif parameter == "lr_scheduler_type":
        _warmup_of(values, value, others)
    return values


def _warmup_of(values: dict[str, Value], scheduler: Value, others: Sequence[TrialResult]) -> None:
    warmups = ("warmup_ratio", "warmup_steps")
    if scheduler in SCHEDULERS_WITHOUT_WARMUP:
        for name in warmups:
            values.pop(name, None)
    elif not any(name in values for name in warmups):
        like = next((t.values for t in others if t.values.get("lr_scheduler_type") == scheduler), {})
        values.update({name: like[name] for name in warmups if name in like})


def _ends(dimension: Dimension) -> tuple[float, float]:
    ends = dimension.ends()
    return min(ends), max(ends)
