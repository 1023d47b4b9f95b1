"""Whether a guideline row applies to a sweep: its conditions beside the sweep's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from files_and_text.plain_values import finite
from search_spaces import GuidelineRow

ConditionName = Literal[
    "method", "model size", "steps", "batch", "base", "alpha", "embeddings trained", "task"
]

FOUR_BIT = ("nf4", "nf4-single", "fp4", "fp4-double", "int4", "4-bit")

_ORDER: tuple[ConditionName, ...] = ("method", "embeddings trained", "model size", "steps", "task")
"""Order of the conditions: the first that excludes a row is the reason shown."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of a row beside the sweep's own value."""

    name: ConditionName
    row: Any = None
    """(low, high) of a size in billions or of steps, else the value; None or "" when the row does not say."""
    here: Any = None
    """None when the sweep did not record it."""
    differs: bool = False
    """Whether both are known and differ."""
    excludes: bool = False
    """Whether the row does not apply because of this condition."""


def conditions_of(row: GuidelineRow, context: Mapping[str, Any]) -> tuple[Condition, ...]:
    """All conditions of a row beside those that a sweep's context records.

    A base that is not in 4 bits differs but does not exclude: the row's number is still tested.
    """
    when, method, quantization = row.when, context.get("method"), context.get("quantization")
    size, steps = finite(context.get("model_size")), context.get("max_steps")
    trained, scenario = context.get("train_embeddings"), context.get("scenario")
    other_size = when.limits_size and size is not None and when.size_distance(size) > 0
    fits = when.includes_scenario(str(scenario), int(steps or 0))
    return (
        Condition(name="method", row=when.method, here=method, excludes=when.method not in (None, method)),
        Condition(
            name="model size",
            row=_bounds(when.model_size_billions_low, when.model_size_billions_high),
            here=size,
            differs=other_size,
            excludes=other_size or (when.limits_size and size is None),
        ),
        Condition(
            name="steps",
            row=_bounds(when.max_steps_low, when.max_steps_high),
            here=steps,
            differs=when.limits_steps and steps is not None and not when.includes_steps(int(steps)),
            excludes=when.limits_steps and (steps is None or (when.scenario is None and not fits)),
        ),
        Condition(name="batch", here=_batch(context)),
        Condition(
            name="base",
            row=when.method,
            here=quantization,
            differs=when.method == "qlora" and bool(quantization) and str(quantization) not in FOUR_BIT,
        ),
        Condition(name="alpha", here=context.get("alpha_convention")),
        Condition(
            name="embeddings trained",
            row=when.train_embeddings,
            here=trained,
            differs=None not in (when.train_embeddings, trained) and when.train_embeddings != bool(trained),
            excludes=when.train_embeddings not in (None, bool(trained)),
        ),
        Condition(
            name="task", row=row.condition, here=scenario, excludes=when.scenario is not None and not fits
        ),
    )


def excluding(conditions: Sequence[Condition]) -> Condition | None:
    """The first condition because of which the row does not apply; None when it applies."""
    named = {condition.name: condition for condition in conditions if condition.excludes}
    return next((named[name] for name in _ORDER if name in named), None)


def _batch(context: Mapping[str, Any]) -> float | None:
    size = finite(context.get("per_device_train_batch_size"))
    steps = finite(context.get("gradient_accumulation_steps")) or 1
    return None if size is None else size * steps


def _bounds(low: float | None, high: float | None) -> tuple[float | None, float | None] | None:
    return None if low is None and high is None else (low, high)
