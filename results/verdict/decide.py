"""The finished verdict on a row, from what single runs measured and what replicates show.

A row is tested by arms that differ from the best in its parameter alone, and by arms that hold its value
beside other settings: the sweep's best trial inside the row, and the guideline default. Where one of these is
no worse than the best by more than the margin, the value costs no more than that beside its settings. Where
it is worse, it does not say which of them it is; where the default is all there is, the sweep itself can tell
for the learning rate alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from results.comparison.paired import Comparison
from results.comparison.relation import relation
from results.effects.value_effects import ValueEffects
from results.sweep_result import SweepResult, TrialResult
from results.verdict.arm_comparisons import ArmComparisons, has_values_of
from results.verdict.band import Edge, band_of
from results.verdict.measure import Measurement
from results.verdict.row_tests import (
    RowTests,
    costs_beyond_noise,
    differs_only_in,
    least_cost,
    retuned_trial,
    tests_of,
    was_run_again,
)
from results.verdict.row_values import dimension_name, holds_value, is_beyond, is_close, side_of
from results.verdict.row_verdict import RowVerdict
from results.words.word_rules import (
    COSTS,
    ComparedValue,
    Finding,
    boundary_finding,
    region_finding,
    separate_rate_finding,
    value_finding,
)
from results.words.words import Word
from search_spaces import GuidelineRow
from search_spaces.dimension import Value

SEPARATE_RATE_ROWS = frozenset(
    {"boundary.same_rate", "embedding.when_unfrozen", "embedding.when_beside_lora"}
)
"""Rows that want a separate learning rate for embeddings: answered by the arm that has one rate for all,
itself tuned."""


def decide(
    row: GuidelineRow,
    measurement: Measurement,
    sweep: SweepResult,
    compared: ArmComparisons | None,
    *,
    edges: Sequence[Edge],
    margin: float,
    effects: ValueEffects | None = None,
) -> RowVerdict:
    """The verdict on a row that `measure` has measured. Without replicates a tested row is undecided."""
    found = Finding("undecided" if measurement.is_tested else "not_tested")
    by_default = False
    if compared is not None and measurement.applies:
        found = finding_of(row, measurement, sweep, compared) or found
        if measurement.position == "unused" and _can_say_nothing(row, found, sweep, compared):
            found = Finding("not_tested")
            measurement = replace(measurement, position="not_tested", not_tested="best_has_none")
        by_default = found.comparison is not None and _is_default(row, found.comparison, sweep, compared)
    decided = row_verdict(
        row,
        sweep,
        measurement,
        found.word,
        found.comparison,
        edges=edges,
        margin=margin,
        noise=0.0 if compared is None else compared.run_noise,
        effects=effects,
    )
    trial = None if by_default or compared is None else _trial_of(found.comparison, sweep, compared)
    if trial is None or sweep.best is None:
        return replace(decided, by_default=by_default)
    best = sweep.best.params
    differs_in = tuple(
        name
        for name in {**best, **trial.params}
        if name != dimension_name(row) and not is_close(trial.params.get(name), best.get(name))
    )
    return replace(decided, by_trial=trial.number, differs_in=differs_in)


def row_verdict(
    row: GuidelineRow,
    sweep: SweepResult,
    measurement: Measurement,
    word: Word,
    comparison: Comparison | None,
    *,
    edges: Sequence[Edge],
    margin: float,
    noise: float = 0.0,
    effects: ValueEffects | None = None,
) -> RowVerdict:
    """The row's word with the band of its parameter and the edge at which the best lies.

    Neither where the best trial does not use the parameter.
    """
    name = row.parameter or ""
    says_nothing = not measurement.applies or row.topic == "stability" or word == "not_tested"
    if says_nothing or measurement.position == "unused":
        return RowVerdict(row=row, measurement=measurement, word=word, comparison=comparison)
    effects = ValueEffects(sweep, has_model=False) if effects is None else effects
    return RowVerdict(
        row=row,
        measurement=measurement,
        word=word,
        comparison=comparison,
        band=band_of(name, effects, margin=margin, noise=noise),
        edge=next((edge.side for edge in edges if edge.dimension == dimension_name(row)), ""),
    )


def finding_of(
    row: GuidelineRow, measurement: Measurement, sweep: SweepResult, compared: ArmComparisons
) -> Finding | None:
    """The word and the comparison it rests on; None when no arm tests the row."""
    margin = compared.margin
    if row.topic == "stability":
        return None
    if row.id in SEPARATE_RATE_ROWS:
        one_rate = next((a.arm.name for a in compared.arms if a.arm.role == "one_rate"), None)
        if one_rate is not None:
            return separate_rate_finding(compared.comparisons[one_rate], margin=margin)
    best = compared.values[compared.reference.name].get(row.parameter or "")
    tests = tests_of(row, sweep, compared)
    if best is None or (not tests.own and not tests.outside):
        return _by_settings_of_others(row, measurement, tests, best, sweep, compared)
    if row.topic != "boundary" and holds_value(row, best):
        inside = [*(arm.comparison for arm in tests.own), *tests.retuned]
        return region_finding(tests.outside, inside, margin=margin)
    is_proved = _is_proved(row, tests, sweep, compared)
    least = least_cost(row, tests, sweep, compared)
    if row.topic == "boundary":
        return _boundary(row, tests, best, margin=margin, is_proved=is_proved, least=least)
    if not tests.own:
        return _by_settings_of_others(row, measurement, tests, best, sweep, compared)
    return value_finding(tests.own, tests.retuned, margin=margin, is_refutable=is_proved, least_cost=least)


def _can_say_nothing(row: GuidelineRow, found: Finding, sweep: SweepResult, compared: ArmComparisons) -> bool:
    """Whether no arm can tell what the value costs of a row whose parameter the best does not use: all that
    hold it cost more, beside a scheduler that has the parameter."""
    holding = tests_of(row, sweep, compared).retuned
    return found.word == "undecided" and all(relation(c, compared.margin) in COSTS for c in holding)


def _boundary(
    row: GuidelineRow, tests: RowTests, best: Value, *, margin: float, is_proved: bool, least: float
) -> Finding | None:
    good_side = [arm.comparison for arm in tests.outside if not is_beyond(row, arm.value)]
    best_is_beyond = is_beyond(row, best)
    if not tests.own and not (best_is_beyond and good_side):
        return None
    return boundary_finding(
        tests.own,
        () if best_is_beyond else tests.retuned,
        good_side,
        direction=row.direction or "too_high",
        best_is_beyond=best_is_beyond,
        margin=margin,
        is_supportable=is_proved,
        least_cost=least,
    )


def _is_proved(row: GuidelineRow, tests: RowTests, sweep: SweepResult, compared: ArmComparisons) -> bool:
    """Whether the sweep's best trial inside the row was run again too, or lies too far behind for that."""
    trial = retuned_trial(row, sweep)
    if trial is None or was_run_again(trial, compared):
        return True
    default = _of_default(compared)
    measured_by = [arm.comparison.arm for arm in tests.own] + ([] if default is None else [default.arm])
    return any(costs_beyond_noise(trial, sweep, compared, measured_by=name) for name in measured_by)


def _by_settings_of_others(
    row: GuidelineRow,
    measurement: Measurement,
    tests: RowTests,
    best: Value | None,
    sweep: SweepResult,
    compared: ArmComparisons,
) -> Finding | None:
    """The word where no arm differs from the best in the row's parameter alone; None where none holds it."""
    if not tests.retuned or row.topic == "boundary" or not measurement.is_tested:
        return None
    margin = compared.margin
    if best is not None and holds_value(row, best):
        return region_finding((), tests.retuned, margin=margin)
    found = value_finding((), tests.retuned, margin=margin)
    default = _of_default(compared)
    if found.word != "undecided" or default is None or default not in tests.retuned or best is None:
        return found
    if any(relation(comparison, margin) not in COSTS for comparison in tests.retuned):
        return found
    # All that hold the value cost more. For the rate the sweep can tell whether retuning the rest would help.
    value = compared.values[default.arm][row.parameter or ""]
    side = side_of(value, best)
    own = ComparedValue(value, side, default)
    end = row.high if side == "below" else row.low
    if row.parameter != "learning_rate" or not is_close(value, end):
        return Finding("undecided", default)
    others = _trial_beside_default(row, sweep)
    if others is None or not costs_beyond_noise(others, sweep, compared, measured_by=default.arm):
        return Finding("undecided", default)
    return value_finding([own], tests.retuned, margin=margin)


def _trial_beside_default(row: GuidelineRow, sweep: SweepResult) -> TrialResult | None:
    """The best trial with the row's value that is not the guideline default: only others can show that
    retuning the rest does not help."""
    default = sweep.guideline_default
    return next(
        (
            trial
            for trial in sweep.finished
            if holds_value(row, trial.values.get(row.parameter or ""))
            and (default is None or trial.number != default.number)
        ),
        None,
    )


def _trial_of(
    comparison: Comparison | None, sweep: SweepResult, compared: ArmComparisons
) -> TrialResult | None:
    """The sweep's trial that was run again with all of its own values; None for other arms."""
    if comparison is None:
        return None
    arm = next(summary.arm for summary in compared.arms if summary.arm.name == comparison.arm)
    if arm.role not in ("retuned", "best"):
        return None
    return next((trial for trial in sweep.finished if has_values_of(trial, arm.values)), None)


def _is_default(
    row: GuidelineRow, comparison: Comparison, sweep: SweepResult, compared: ArmComparisons
) -> bool:
    """Whether the arm is the guideline default and differs from the best in other hyperparameters too."""
    arm = next(summary.arm for summary in compared.arms if summary.arm.name == comparison.arm)
    return arm.role == "guideline_default" and not differs_only_in(row.parameter or "", arm, sweep, compared)


def _of_default(compared: ArmComparisons) -> Comparison | None:
    """The guideline default against the best, if it was run again."""
    name = next((arm.arm.name for arm in compared.arms if arm.arm.role == "guideline_default"), None)
    return None if name is None else compared.comparisons.get(name)
