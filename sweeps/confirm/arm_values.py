"""An arm's parameters: those of the best trial with one hyperparameter changed."""

from __future__ import annotations

import math
from collections.abc import Mapping

from files_and_text.numbers import number
from results.comparison.arms import Arm, Role
from search_spaces import Dimension
from search_spaces.dimension import Value
from sweeps.plan.specs import StudySpec

NEEDS_MEMORY = frozenset({"per_device_train_batch_size", "lora_r"})
"""The planned seats may have no memory for values of these beyond the searched range."""

Params = Mapping[str, Value]


def arm_with(
    best: Params,
    parameter: str,
    value: Value,
    study_spec: StudySpec,
    *,
    role: Role,
    rows: tuple[str, ...] = (),
) -> Arm | None:
    """The best with one value changed, named after it; None where the planned seats may not hold it."""
    params = with_value(best, parameter, value, study_spec)
    if parameter in NEEDS_MEMORY and not study_spec.space[parameter].contains(params[parameter]):
        return None
    shown = number(float(value)) if isinstance(value, int | float) else value
    return Arm(name=f"{parameter} {shown}", role=role, values=params, rows=rows)


def with_value(best: Params, parameter: str, value: Value, study_spec: StudySpec) -> dict[str, Value]:
    """The best's parameters with `parameter`, or the one it is derived from, set; every active one has a
    value."""
    params = dict(best)
    rate = float(params["learning_rate"])
    match parameter:
        case "learning_rate":
            params[parameter] = float(value)
            if "embedding_lr_ratio" in params:
                params["embedding_lr_ratio"] = rate * float(params["embedding_lr_ratio"]) / float(value)
        case "embedding_learning_rate":
            params["embedding_lr_ratio"] = float(value) / rate
        case "warmup_steps":
            params["warmup_ratio"] = _share(int(value), study_spec.trial_config(best).max_steps)
        case _:
            params[parameter] = _as_in(study_spec.space[parameter], value)
    active = (dimension for dimension in study_spec.space.dimensions if dimension.is_active(params))
    return {dimension.name: params.get(dimension.name, dimension.default) for dimension in active}


def _as_in(dimension: Dimension, value: Value) -> Value:
    if dimension.kind == "int":
        return int(value)
    if dimension.kind == "float":
        return float(value)
    return next((choice for choice in dimension.choices or () if choice == value), value)


def _share(steps: int, total: int) -> float:
    """The share of `total` that rounds up to exactly `steps`: in floats, 3 / 49 * 49 is more than 3."""
    steps = min(steps, total)
    share = steps / total
    while math.ceil(share * total) > steps:
        share = math.nextafter(share, 0.0)
    return share
