"""Can a sweep say anything about a row: is the row about such a run, was its parameter searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from files_and_text.numbers import number
from files_and_text.plain_values import finite
from results.sweep_result import SweepResult
from search_spaces import Dimension, GuidelineRow

BASE_DIMENSION = {"embedding_learning_rate": "embedding_lr_ratio", "warmup_steps": "warmup_ratio"}
"""Derived quantity -> the dimension that is drawn for it."""


def other_run(row: GuidelineRow, context: Mapping[str, Any]) -> str | None:
    """Why the row does not speak of this sweep (its method, size, scenario, length); None when it does."""
    when = row.when
    about = f"the row is about {row.condition!r}" if row.condition else "the row is about other runs"
    method, size = context.get("method"), finite(context.get("model_size"))
    steps, scenario = context.get("max_steps"), context.get("scenario")
    trained = context.get("train_embeddings")
    if when.method is not None and when.method != method:
        return f"{about} (method {when.method}); this sweep's method is {method}"
    if when.train_embeddings is not None and when.train_embeddings != bool(trained):
        return f"{about}; this sweep {'trains' if trained else 'does not train'} embeddings"
    if when.by_size and size is None:
        return f"{about}; this sweep did not record its model's size"
    if when.by_size and size is not None and when.size_distance(size) > 0:
        return f"{about}; this base has {_parameters(size)} parameters"
    if when.by_steps and steps is None:
        return f"{about}; this sweep did not record its number of steps"
    if not when.holds(
        scenario=str(scenario),
        model_size=size or 1e9,
        max_steps=int(steps or 0),
        method=str(method),
        train_embeddings=bool(trained),
    ):
        if when.by_steps and when.scenario is None:
            return f"{about}; this sweep trains for {steps} steps"
        said = f"{about}; this sweep's scenario is {scenario!r}"
        return f"{said} and it trains for {steps} steps" if when.by_steps else said
    return None


def not_searched(row: GuidelineRow, sweep: SweepResult) -> str | None:
    """Why no trial could differ in the row's parameter, or None when some could."""
    name = row.parameter
    if name is None:
        return "the row gives no parameter to compare"
    drawn = [BASE_DIMENSION.get(name, name)]
    if name == "embedding_learning_rate":
        drawn.append("learning_rate")  # with a fixed ratio it still follows the main rate
    values = [trial.values[name] for trial in sweep.trials if name in trial.values]
    if any(dimension in sweep.dimensions and not sweep.dimensions[dimension].fixed for dimension in drawn):
        return None if values else f"no trial has a value of {name}"
    if len(set(values)) == 1:
        return f"{name} was not searched: every trial held it at {show(values[0])}"
    return f"{name} was not in the search space"


def show(value: object) -> str:
    """A parameter's value as a person writes it."""
    return number(finite(value)) if isinstance(value, float) else str(value)


def shown_range(row: GuidelineRow) -> str:
    """The row's own value, range or names."""
    if row.choices:
        return " or ".join(row.choices)
    if row.low is None or row.high is None:
        return "no value"
    return number(row.low) if row.low == row.high else f"{number(row.low)} to {number(row.high)}"


def searched_range(dimension: Dimension | None) -> str:
    """What was searched in a dimension, for a reason; "" when unknown."""
    if dimension is None or dimension.low is None or dimension.high is None:
        return ""
    return f"; {dimension.name} was searched from {number(dimension.low)} to {number(dimension.high)}"


def _parameters(size: float) -> str:
    return f"{number(size / 1e9)}B" if size >= 1e8 else f"{number(size / 1e6)}M"


def conjunction(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
