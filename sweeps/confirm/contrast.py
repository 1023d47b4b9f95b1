"""Arms outside the rows that hold the best, which nothing else could contradict, and the rate's neighbours.

One arm serves as many rows as possible: of all values outside, the one outside of the most rows that no arm
tests yet, then the next. The learning rate always gets a neighbour on both sides of the best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from files_and_text.plain_values import finite
from results.comparison.arms import Arm
from results.sweep_result import SweepResult
from results.verdict.arm_comparisons import values_of
from results.verdict.row_values import dimension_name, has_value_of, is_close
from search_spaces import Dimension, GuidelineRow
from search_spaces.dimension import Value
from sweeps.confirm.arm_values import arm_with
from sweeps.plan.specs import StudySpec

_STEP = 2.0
"""Factor from the best rate to its neighbours."""
_NEAREST, _FARTHEST = 1.5, 3.0
"""A value between these factors from the best is a neighbour too; another row's value or one just outside a
row is taken for it."""
_OUTSIDE = 1.25
"""Factor from a row's end to a value that counts as outside."""


def contrast_arms(
    rows: Sequence[GuidelineRow], arms: Sequence[Arm], sweep: SweepResult, study_spec: StudySpec
) -> list[Arm]:
    """`arms`, the rows' own values, with the arms outside rows that hold the best; `rows` are all that can
    have an arm.

    Each of these rows is added to the rows of the arm outside it that lies nearest to the best.
    """
    found = list(arms)
    by_parameter: dict[str, list[GuidelineRow]] = {}
    for row in rows:
        if has_value_of(row, _best(sweep).get(row.parameter or "")):
            by_parameter.setdefault(row.parameter or "", []).append(row)
    if "learning_rate" in sweep.dimensions:
        _add_neighbours(by_parameter.get("learning_rate", []), found, sweep, study_spec)
    for name, held in by_parameter.items():
        while uncovered := [row for row in held if _nearest_outside(row, name, found, sweep) is None]:
            if (arm := _widest(uncovered, name, sweep, study_spec)) is None:
                break
            found.append(arm)
        for row in held:
            if (nearest := _nearest_outside(row, name, found, sweep)) is not None:
                found[found.index(nearest)] = replace(nearest, rows=(*nearest.rows, row.id))
    return found


def _add_neighbours(
    held: Sequence[GuidelineRow], found: list[Arm], sweep: SweepResult, study_spec: StudySpec
) -> None:
    """A rate below and one above the best, unless a row's own value is one."""
    best = float(_best(sweep)["learning_rate"])
    for up in (False, True):

        def factor(value: float, up: bool = up) -> float:
            return value / best if up else best / value

        tried = [float(arm.values["learning_rate"]) for arm in found]
        if any(_NEAREST <= factor(value) <= _FARTHEST for value in tried):
            continue
        step = _STEP if up else 1 / _STEP
        candidates = [best * step, *_just_outside(held, up=up)]
        near = [value for value in candidates if _NEAREST <= factor(value) <= _FARTHEST]
        value = max(
            near,
            key=lambda v: (sum(not has_value_of(row, v) for row in held), -abs(math.log(factor(v) / _STEP))),
        )
        arm = _arm("learning_rate", float(f"{value:.2g}"), sweep, study_spec)
        if arm is not None:
            found.append(arm)


def _just_outside(rows: Sequence[GuidelineRow], *, up: bool) -> list[float]:
    """Values a little past the ends of rows; of a boundary on its good side."""
    found = []
    for row in rows:
        if row.topic == "boundary" and (row.direction == "too_high") == up:
            continue
        end = row.high if up else row.low
        if end is not None:
            found.append(end * _OUTSIDE if up else end / _OUTSIDE)
    return found


def _widest(rows: Sequence[GuidelineRow], name: str, sweep: SweepResult, study_spec: StudySpec) -> Arm | None:
    """The arm outside of the most of these rows, and of those the most telling one."""
    dimension = sweep.dimensions[dimension_name(rows[0])]
    if any(row.choices for row in rows):
        values: list[Value] = _rivals(dimension, sweep)
    else:
        values = [*_numbers_outside(rows, dimension, finite(_best(sweep)[name]) or 0.0)]
    covered = {value: sum(not has_value_of(row, value) for row in rows) for value in values}
    for value in sorted(covered, key=lambda value: -covered[value]):
        if covered[value] and (arm := _arm(name, value, sweep, study_spec)) is not None:
            return arm
    return None


def _rivals(dimension: Dimension, sweep: SweepResult) -> list[Value]:
    """Other choices, those that the sweep's trials did best with first."""
    losses: dict[Value, float] = {}
    for trial in sweep.finished:
        if dimension.name in trial.values and trial.eval_loss is not None:
            losses.setdefault(trial.values[dimension.name], trial.eval_loss)
    best = _best(sweep)[dimension.name]
    others = [choice for choice in dimension.choices or () if choice != best]
    return sorted(others, key=lambda choice: losses.get(choice, math.inf))


def _numbers_outside(rows: Sequence[GuidelineRow], dimension: Dimension, best: float) -> list[float]:
    """Numbers past the ends of the rows on both sides, nearest to the best first."""
    is_factor = best > 0 and (dimension.log or rows[0].parameter != dimension.name)
    width = ((dimension.high or 0.0) - (dimension.low or 0.0)) / 4
    found = []
    for row in rows:
        ends = [(row.low, False), (row.high, True)]
        if row.topic == "boundary":
            ends = [(row.low, row.direction == "too_low")]
        for end, up in ends:
            if end is None or (end <= 0 and not up):
                continue
            if is_factor:
                value = max(end * _OUTSIDE, best * _STEP) if up else min(end / _OUTSIDE, best / _STEP)
            else:
                value = max(end, best) + width if up else _lower(min(end, best), dimension)
            value = float(f"{value:.2g}")
            found.append(float(round(value)) if _is_whole(dimension, row) else value)
    kept = [value for value in found if is_factor or value >= 0]
    distance = (lambda v: abs(math.log(v / best))) if is_factor else (lambda v: abs(v - best))
    return sorted(dict.fromkeys(kept), key=distance)


def _lower(end: float, dimension: Dimension) -> float:
    """A value well below `end` on a scale that is not logarithmic: none at all where that is searched."""
    lowest = dimension.low or 0.0
    return lowest if lowest < end else end / _STEP


def _is_whole(dimension: Dimension, row: GuidelineRow) -> bool:
    return dimension.kind == "int" or row.parameter == "warmup_steps"


def _nearest_outside(row: GuidelineRow, name: str, arms: Sequence[Arm], sweep: SweepResult) -> Arm | None:
    """The arm that differs from the best in this parameter alone, outside the row, nearest to the best."""
    own = dimension_name(row)
    best = _best(sweep).get(name)
    found = []
    for arm in arms:
        value = values_of(arm, sweep.context).get(name)
        if (
            value is None
            or has_value_of(row, value)
            or is_close(value, best)
            or not _changes(own, arm, sweep)
        ):
            continue
        found.append((_distance(value, best), arm))
    return min(found, key=lambda pair: pair[0], default=(0.0, None))[1]


def _changes(own: str, arm: Arm, sweep: SweepResult) -> bool:
    """Whether the arm was made by changing this dimension."""
    assert sweep.best is not None
    changed = {
        name
        for name in arm.values.keys() & sweep.best.params.keys()
        if not is_close(arm.values[name], sweep.best.params[name])
    }
    if own == "learning_rate":
        return own in changed
    return own in changed and "learning_rate" not in changed and len(changed) == 1


def _distance(value: Value, best: Value | None) -> float:
    ours, theirs = finite(value), finite(best)
    if ours is None or theirs is None:
        return 0.0
    if ours > 0 and theirs > 0:
        return abs(math.log(ours / theirs))
    return abs(ours - theirs) * 100


def _arm(name: str, value: Value, sweep: SweepResult, study_spec: StudySpec) -> Arm | None:
    assert sweep.best is not None
    return arm_with(sweep.best.params, name, value, study_spec, role="contrast")


def _best(sweep: SweepResult) -> Mapping[str, Value]:
    assert sweep.best is not None
    return sweep.best.values
