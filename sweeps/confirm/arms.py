"""The arms of a confirmation: the best trials, the guideline default, and what tests each guideline row.

A row in which the best does not lie is tested by its own value with everything else from the best trial, and
by the sweep's best trial inside the row with all of its own values, where that may be as good: whoever takes
the value retunes the rest. For a range, the value is the end nearest to the best, because only it can refute
the row. A row that holds the best is tested from outside (`contrast.py`). When an arm changes the learning
rate, the embedding learning rate keeps its value, not its ratio, as in the tables' first trials.

The arms that test the most rows come first, so that a small budget leaves out the least telling ones.
"""

from __future__ import annotations

import math
from dataclasses import replace

from files_and_text.choices import SCHEDULERS
from files_and_text.plain_values import finite
from lora_runner.errors import TrialConfigError
from results.comparison.arms import Arm
from results.comparison.constants import ASSUMED_NOISE, MARGIN
from results.errors import NothingToSay
from results.sweep_result import SweepResult, TrialResult
from results.verdict.decide import SEPARATE_RATE_ROWS
from results.verdict.measure import measure
from results.verdict.row_tests import retuned_trial
from results.verdict.row_values import dimension_name, has_value_of
from search_spaces import GuidelineRow, SearchSpace
from search_spaces.dimension import Value
from sweeps.confirm.arm_values import arm_with
from sweeps.confirm.contrast import contrast_arms
from sweeps.plan.specs import StudySpec

_FAR_BEHIND = 3.0
"""Noise is taken so many times when a trial is left out as far behind the best."""
_ORDER = ("row", "contrast", "one_rate", "retuned")
_NEIGHBOUR_COUNTS_AS = 3
"""Rows that a neighbour of the best rate counts as: it also tells whether the best lies at an edge."""


def choose_arms(
    sweep: SweepResult,
    study_spec: StudySpec,
    *,
    best: int = 1,
    rows: bool = True,
    one_rate: Arm | None = None,
) -> tuple[Arm, ...]:
    """The arms, the sweep's best first; of arms with the same configuration only the first.

    They include the `best` best trials by loss, and the best by the metric where there is one, before those
    that test rows, the most telling of these first; `one_rate` is that of `pick_rate`. Raises NothingToSay
    when no trial finished, or when there is nothing to compare the best with.
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
    first = len(arms)
    if rows:
        arms += contrast_arms(rows_with_arms(sweep), _row_arms(sweep, study_spec), sweep, study_spec)
        arms += [one_rate] if one_rate is not None else []
        arms += _retuned_arms(sweep)
    arms = _distinct(arms, study_spec)
    arms = [*arms[:first], *sorted(arms[first:], key=_how_telling)]
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


def rows_with_arms(sweep: SweepResult) -> list[GuidelineRow]:
    """Tested rows that can have an arm: of a parameter that the sweep searched and the best trial has."""
    best = sweep.best
    return [
        row
        for row in measured_rows(sweep)
        if best is not None
        and row.parameter in best.values
        # With one rate for all as the best, no other rate for all tests these rows.
        and (row.id not in SEPARATE_RATE_ROWS or has_value_of(row, best.values[row.parameter or ""]))
    ]


def measured_rows(sweep: SweepResult) -> list[GuidelineRow]:
    return [
        row
        for row in sweep.guidelines
        if row.topic != "stability"
        and dimension_name(row) in sweep.dimensions
        and measure(row, sweep).is_tested
    ]


def _row_arms(sweep: SweepResult, study_spec: StudySpec) -> list[Arm]:
    """The own values of rows in which the best does not lie, one arm for each value."""
    best = sweep.best
    assert best is not None
    arms: dict[tuple[str, Value], Arm] = {}
    for row in rows_with_arms(sweep):
        parameter = row.parameter or ""
        for value in _own_values(row, best.values.get(parameter)):
            arm = arm_with(best.params, parameter, value, study_spec, role="row")
            if arm is not None:
                known = arms.setdefault((parameter, value), arm)
                arms[parameter, value] = replace(known, rows=(*known.rows, row.id))
    return list(arms.values())


def _own_values(row: GuidelineRow, best: Value | None) -> list[Value]:
    if best is None or has_value_of(row, best):
        return []
    if row.choices:
        return [choice for choice in row.choices if choice in SCHEDULERS]
    found = finite(best)
    if found is None or row.low is None or row.high is None:
        return []
    return [row.low if found < row.low else row.high]


def _retuned_arms(sweep: SweepResult) -> list[Arm]:
    """The sweep's best trials inside rows in which the best does not lie, unless far behind it."""
    best = sweep.best
    assert best is not None
    found: dict[int, Arm] = {}
    for row in measured_rows(sweep):
        if row.id in SEPARATE_RATE_ROWS or has_value_of(row, best.values.get(row.parameter or "")):
            continue
        trial = retuned_trial(row, sweep)
        if trial is None or _is_far_behind(trial, sweep):
            continue
        known = found.get(trial.number) or _arm_of(trial, f"trial {trial.number}", "retuned")
        found[trial.number] = replace(known, rows=(*known.rows, row.id))
    return list(found.values())


def _is_far_behind(trial: TrialResult, sweep: SweepResult) -> bool:
    """Whether its one run costs so much more that the noise measured later will hardly explain it."""
    best = sweep.best
    if best is None or best.eval_loss is None or trial.eval_loss is None:
        return True
    # As `results.verdict.row_tests.costs_beyond_noise` does, with the noise that is to be expected.
    luck = math.sqrt(2) + math.sqrt(math.log(len(sweep.finished)) / 2)
    cost = trial.eval_loss - best.eval_loss
    return cost > (MARGIN + _FAR_BEHIND * luck * ASSUMED_NOISE) * abs(best.eval_loss)


def _how_telling(arm: Arm) -> tuple[int, int]:
    """Sorts the arms that test the most rows first; of equals a row's own value before its retuned one."""
    is_neighbour = arm.role == "contrast" and arm.name.startswith("learning_rate ")
    tested = max(len(arm.rows), _NEIGHBOUR_COUNTS_AS if is_neighbour else 0)
    return -tested, _ORDER.index(arm.role)


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
