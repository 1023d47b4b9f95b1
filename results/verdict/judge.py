"""Judging one guideline row by the trials of one sweep, one run per config."""

from __future__ import annotations

from results.sweep_result import SweepResult, TrialResult
from results.verdict.conditions import (
    BASE_DIMENSION,
    not_searched,
    other_run,
    searched_range,
    show,
    shown_range,
)
from results.verdict.distances import best_with, cost_of, distances, holds_value, position_of
from results.verdict.judge_extremes import judge_boundary, judge_stability
from results.verdict.row_verdict import RowVerdict
from results.verdict.wording import (
    by_distance,
    cost_sentence,
    evidence_of,
    how_it_ended,
    not_tested,
    nothing_finished,
)
from search_spaces import GuidelineRow


def judge(row: GuidelineRow, sweep: SweepResult) -> RowVerdict:
    """The verdict on one row; every row gets one, with its reason where nothing was tested."""
    if row.topic == "stability":
        return judge_stability(row, sweep)
    if row.topic == "boundary":
        return judge_boundary(row, sweep)
    if not row.choices and row.low is None and row.high is None:
        return not_tested(row, "the row names no value that a trial could take")
    reason = other_run(row, sweep.context) or not_searched(row, sweep)
    if reason is not None:
        return not_tested(row, reason)
    best = best_with(row, sweep)
    if best is None:
        stopped = tuple(how_it_ended(trial) for trial in _own(row, sweep) if trial.eval_loss is None)
        return not_tested(row, nothing_finished(row, sweep), stopped=stopped)
    return _judge_value(row, sweep, best)


def measured_by(row: GuidelineRow, sweep: SweepResult) -> TrialResult | None:
    """The finished trial that tells what the row's value costs: the best of those inside the row.

    The most charitable reading of the row: its value with the best companions that this sweep tried. When the
    best trial itself lies inside, the row costs nothing.
    """
    inside = (trial for trial in sweep.finished if holds_value(row, trial.values.get(row.parameter or "")))
    return next(inside, None)


def _judge_value(row: GuidelineRow, sweep: SweepResult, best: TrialResult) -> RowVerdict:
    value = best.values[row.parameter or ""]
    position = position_of(row, value)
    measuring = measured_by(row, sweep)
    cost = None if measuring is None else cost_of(row, sweep, measuring)
    # Once a trial of the row's own value has finished, those that did not say nothing more about it.
    unmeasured = cost is None or not cost.own_value
    ended_early = [trial for trial in _own(row, sweep) if trial.eval_loss is None and unmeasured]
    stopped = tuple(how_it_ended(trial) for trial in ended_early)
    evidence = evidence_of(cost, sweep)
    distance, offset = distances(row, value)
    where = {
        "inside": f"lies inside the row's {shown_range(row)}",
        "outside": f"is not among the row's {shown_range(row)}",
    }.get(position, f"lies {position} the row's {shown_range(row)}")
    sentences = [
        f"The best {row.parameter}, {show(value)} (trial {best.number}), {where}{by_distance(distance)}."
    ]
    if sweep.best is not None and best.number != sweep.best.number:
        sentences.append(
            f"The best trial, {sweep.best.number}, has no {row.parameter}; trial {best.number} is the "
            "best of those that do."
        )
    if cost is None:
        reach = searched_range(
            sweep.dimensions.get(BASE_DIMENSION.get(row.parameter or "", row.parameter or ""))
        )
        sentences.append(f"What the row's value costs was not measured: no trial inside it finished{reach}.")
    else:
        sentences.append(cost_sentence(cost))
    sentences.extend(f"{text[0].upper()}{text[1:]}." for text in stopped)
    return RowVerdict(
        row=row,
        position=position,
        best_value=value,
        best_trial=best.number,
        distance_log10=distance,
        centre_offset_log10=offset,
        cost=cost,
        evidence=evidence,
        stopped=stopped,
        claim=" ".join(sentences),
    )


def _own(row: GuidelineRow, sweep: SweepResult) -> list[TrialResult]:
    return [
        trial
        for trial in sweep.trials
        if row.id in trial.rows and holds_value(row, trial.values.get(row.parameter or ""))
    ]
