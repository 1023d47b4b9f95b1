"""Which configurations a confirmation runs again: the best, the guideline default, and each row's own value.

Every arm of a row takes the row's own value and keeps everything else at the best. Of a range that is its
end nearest to the best, the only one that can refute it; a row that holds the best has no arm of its own,
since its value is the best's, and is tried by the arms that lie outside. Beside another main rate the
embeddings keep their rate, as in the tables' first trials, and not the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from files_and_text.choices import SCHEDULERS
from files_and_text.numbers import number
from files_and_text.plain_values import finite
from lora_runner.errors import TrialConfigError
from results.errors import NothingToSay
from results.sweep_result import SweepResult, TrialResult
from results.verdict.decide import SEPARATE_RATE_ROWS
from results.verdict.measure import measure
from results.verdict.row_values import dimension_name, holds_value
from results.verdict.statistics import Arm
from search_spaces import Dimension, GuidelineRow, SearchSpace
from search_spaces.dimension import Value
from sweeps.plan.specs import StudySpec

NEEDS_MEMORY = frozenset({"per_device_train_batch_size", "lora_r"})
"""A value beyond what was searched would not fit the seats that were planned."""
NUM_RATES = 4
"""That one rate for all is tried at, before the best of them becomes its arm."""
LEAST_SPAN = 4.0
"""Between the lowest and the highest of them."""

Params = Mapping[str, Value]


def choose_arms(
    sweep: SweepResult,
    study_spec: StudySpec,
    *,
    best: int = 1,
    rows: bool = True,
    one_rate: Arm | None = None,
) -> tuple[Arm, ...]:
    """The arms, the sweep's best first; of two that come to the same configuration only the first.

    `best` of the best trials by loss, and the best by the metric where there is one; `one_rate` as
    `pick_rate` found it. Raises NothingToSay when no trial finished, or when there is nothing to compare the
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
        raise NothingToSay(
            f"there is nothing to confirm trial {top.number} of sweep {sweep.name!r} against: it is the "
            "guideline default itself, and no other value is asked for"
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
    """The space with room for every arm, a row's own value beyond the searched range too."""
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
        dimensions.append(replace(dimension, low=min(low, *numbers, low), high=max(high, *numbers, high)))
    return replace(space, dimensions=tuple(dimensions), proposals=())


# --- one rate for all -----------------------------------------------------------------------------


def rates_to_try(sweep: SweepResult) -> tuple[Arm, ...]:
    """Candidates for one rate of LoRA and embeddings, everything else at the best; empty without two rates.

    Evenly (in log) from the lower of the best's two rates to the higher, where the best common one lies when
    the loss is a bowl in each, and over a factor of `LEAST_SPAN` at least.
    """
    best = sweep.best
    if best is None or "embedding_lr_ratio" not in best.params:
        return ()
    main = float(best.params["learning_rate"])
    low, high = sorted((main, main * float(best.params["embedding_lr_ratio"])))
    if high / low < LEAST_SPAN:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(LEAST_SPAN), middle * math.sqrt(LEAST_SPAN)
    step = (high / low) ** (1 / (NUM_RATES - 1))
    rates = [float(f"{low * step**index:.6g}") for index in range(NUM_RATES)]
    return tuple(
        Arm(
            name=f"one rate {number(rate)}",
            role="one_rate",
            values={**best.params, "learning_rate": rate, "embedding_lr_ratio": 1.0},
        )
        for rate in rates
    )


def pick_rate(candidates: tuple[Arm, ...], losses: Mapping[str, float]) -> Arm | None:
    """The candidate with the lowest loss as the arm `one rate`; None when none finished."""
    tried = [arm for arm in candidates if arm.name in losses]
    if not tried:
        return None
    chosen = min(tried, key=lambda arm: losses[arm.name])
    return replace(chosen, rows=tuple(sorted(SEPARATE_RATE_ROWS)))


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
    """Rows with a value that an arm can take, in a parameter that the sweep searched and the best has."""
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
    """The best's parameters with one of them, or one derived from them, set; each that exists has a value."""
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
            dimension = study_spec.space[parameter]
            params[parameter] = _as_in(dimension, value)
    complete: dict[str, Value] = {}
    for dimension in study_spec.space.dimensions:
        if dimension.is_active(params):
            complete[dimension.name] = params.get(dimension.name, dimension.default)
    return complete


def _as_in(dimension: Dimension, value: Value) -> Value:
    if dimension.kind == "int":
        return int(value)
    if dimension.kind == "float":
        return float(value)
    return next((choice for choice in dimension.choices or () if choice == value), value)


def _share(steps: int, total: int) -> float:
    """The share of `total` that is rounded up to exactly `steps`: 3 / 49 * 49 is more than 3 in floats."""
    steps = min(steps, total)
    share = steps / total
    while math.ceil(share * total) > steps:
        share = math.nextafter(share, 0.0)
    return share


# --- the same configuration -----------------------------------------------------------------------


def _arm_of(trial: TrialResult, name: str, role: str) -> Arm:
    return Arm(name=name, role=role, values=dict(trial.params))  # type: ignore[arg-type]


def _distinct(arms: list[Arm], study_spec: StudySpec) -> list[Arm]:
    """One arm per configuration, the first, with the rows of all; what is no configuration is left out.

    A row whose value comes to the best's own configuration is not tried by it.
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
