"""The arms of a confirmation: the best trials, the guideline default, and each row's own value.

A row's arm takes the row's own value and everything else from the best trial. For a range, that value is the
end nearest to the best, because only it can refute the row. A row whose range contains the best has no arm:
its value is the best's, and the arms outside the range test it. When an arm changes the learning rate, the
embedding learning rate keeps its value, not its ratio, as in the tables' first trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from files_and_text.choices import SCHEDULERS
from files_and_text.numbers import number
from files_and_text.plain_values import finite
from lora_runner.errors import TrialConfigError
from results.comparison.arms import Arm
from results.errors import NothingToSay
from results.sweep_result import SweepResult, TrialResult
from results.verdict.decide import SEPARATE_RATE_ROWS
from results.verdict.measure import measure
from results.verdict.row_values import dimension_name, holds_value
from search_spaces import Dimension, GuidelineRow, SearchSpace
from search_spaces.dimension import Value
from sweeps.plan.specs import StudySpec

NEEDS_MEMORY = frozenset({"per_device_train_batch_size", "lora_r"})
"""The planned seats may have no memory for values of these beyond the searched range."""

Params = Mapping[str, Value]


def choose_arms(
    sweep: SweepResult,
    study_spec: StudySpec,
    *,
    best: int = 1,
    rows: bool = True,
    one_rate: Arm | None = None,
) -> tuple[Arm, ...]:
    """The arms, the sweep's best first; of arms with the same configuration only the first.

    They include the `best` best trials by loss, and the best by the metric where there is one; `one_rate` is
    that of `pick_rate`. Raises NothingToSay when no trial finished, or when there is nothing to compare the
    best with.
    """
    check_finished(sweep)
    finished = sweep.finished
    top = finished[0]
    arms = [_arm_of(top, "best", "best")]
    if (default := sweep.guideline_default) is not None:
        arms.append(_arm_of(default, "guideline default", "guideline_default"))
    arms += [_arm_of(trial, f"trial {trial.number}", "best") for trial in finished[1:]]
    arms = _distinct(arms, study_spec)
    others = [arm for arm in arms[1:] if arm.role == "best"]
    by_metric = sweep.best_by_metric
    named = None if by_metric is None else f"trial {by_metric.number}"
    arms = [arm for arm in arms if arm not in others[best - 1 :] or arm.name == named]
    if rows:
        arms += _row_arms(sweep, study_spec)
        arms += [one_rate] if one_rate is not None else []
    arms = _distinct(arms, study_spec)
    if len(arms) == 1:
        why = (
            "the sweep has not tried the guideline default"
            if default is None
            else "it is the guideline default itself"
        )
        raise NothingToSay(
            f"there is nothing to compare trial {top.number} of sweep {sweep.name!r} with: {why}, and no "
            "other configuration was asked for; --best 2 also runs the second best"
        )
    return tuple(arms)


def check_finished(sweep: SweepResult) -> None:
    """NothingToSay for a sweep without a finished trial."""
    if not sweep.finished:
        raise NothingToSay(
            f"sweep {sweep.name!r} has no trial that finished its full budget, so there is nothing to "
            "confirm; go on with `sweeps run`"
        )


def space_with(space: SearchSpace, arms: tuple[Arm, ...]) -> SearchSpace:
    """The space widened to contain every arm, also row values beyond the searched range."""
    dimensions = []
    for dimension in space.dimensions:
        values = [arm.values[dimension.name] for arm in arms if dimension.name in arm.values]
        if dimension.kind == "categorical":
            known = dimension.choices or ()
            new = [value for value in dict.fromkeys(values) if value not in known]
            dimensions.append(replace(dimension, choices=(*known, *new)))
            continue
        numbers = [float(value) for value in values]
        low, high = dimension.low, dimension.high
        assert low is not None
        assert high is not None
        dimensions.append(replace(dimension, low=min([low, *numbers]), high=max([high, *numbers])))
    return replace(space, dimensions=tuple(dimensions), first_trials=())


# --- rows -----------------------------------------------------------------------------------------


def _row_arms(sweep: SweepResult, study_spec: StudySpec) -> list[Arm]:
    best = sweep.best
    assert best is not None
    arms = []
    for row in tested_rows(sweep):
        dimension = dimension_name(row)
        for value in _own_values(row, best.values.get(row.parameter or "")):
            params = _with_value(best.params, row.parameter or "", value, study_spec)
            if dimension in NEEDS_MEMORY and not study_spec.space[dimension].contains(params[dimension]):
                continue
            shown = number(float(value)) if isinstance(value, int | float) else value
            arms.append(Arm(name=f"{row.parameter} {shown}", role="row", values=params, rows=(row.id,)))
    return arms


def tested_rows(sweep: SweepResult) -> list[GuidelineRow]:
    """Tested rows that can have an arm: of a parameter that the sweep searched and the best trial has."""
    best = sweep.best
    return [
        row
        for row in sweep.guidelines
        if row.topic != "stability"
        and row.id not in SEPARATE_RATE_ROWS
        and dimension_name(row) in sweep.dimensions
        and best is not None
        and row.parameter in best.values
        and measure(row, sweep).is_tested
    ]


def _own_values(row: GuidelineRow, best: Value | None) -> list[Value]:
    if best is None or holds_value(row, best):
        return []
    if row.choices:
        return [choice for choice in row.choices if choice in SCHEDULERS]
    found = finite(best)
    if found is None or row.low is None or row.high is None:
        return []
    return [row.low if found < row.low else row.high]


def _with_value(best: Params, parameter: str, value: Value, study_spec: StudySpec) -> dict[str, Value]:
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


# --- the same configuration -----------------------------------------------------------------------


def _arm_of(trial: TrialResult, name: str, role: str) -> Arm:
    return Arm(name=name, role=role, values=dict(trial.params))  # type: ignore[arg-type]


def _distinct(arms: list[Arm], study_spec: StudySpec) -> list[Arm]:
    """The first arm of each configuration, with the rows of all; invalid configurations are left out.

    Arms of best trials get no rows: a row is not tested by the best's own configuration.
    """
    found: dict[str, Arm] = {}
    for arm in arms:
        try:
            key = study_spec.trial_config(arm.values).hash()
        except TrialConfigError:
            continue
        first = found.setdefault(key, arm)
        if first.role != "best":
            rows = (*first.rows, *(row for row in arm.rows if row not in first.rows))
            found[key] = replace(first, rows=rows)
    return list(found.values())
