"""Rows that say what is too much: values called too high or too low, and the signs of such rates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from files_and_text.numbers import number, plural
from files_and_text.plain_values import finite
from results.sweep_result import SweepResult, TrialResult
from results.verdict.conditions import not_searched, other_run, searched_range, show
from results.verdict.distances import TOLERANCE, best_with, cost_of, distances, numbers_of, position_of
from results.verdict.row_verdict import Position, RowVerdict
from results.verdict.wording import against, not_tested, nothing_finished
from search_spaces import GuidelineRow
from search_spaces.dimension import Value

SIGNS_OF_ROW: Mapping[str, tuple[str, ...]] = {
    "stability.nan": ("nan_or_inf",),
    "stability.spike": ("loss_spike",),
    "stability.eval_rises": ("eval_rises",),
    "stability.repetitive": ("repetitive_output",),
    "stability.slow": ("slow_decrease",),
    "stability.unchanged": ("barely_changed",),
    "stability.embedding_nan": ("nan_or_inf",),
    "stability.embedding_spike": ("loss_spike",),
    "stability.same_rate_instability": ("nan_or_inf", "loss_spike"),
    "stability.diverges": ("nan_or_inf",),
    "stability.stalls": ("slow_decrease",),
}
"""Stability row -> the signs of the runner that stand for it; rows that are absent here have none."""


def judge_boundary(row: GuidelineRow, sweep: SweepResult) -> RowVerdict:
    """What became of the trials at or beyond a value that a document calls too high or too low."""
    name, limit = row.parameter or "", row.low
    if limit is None:
        return not_tested(row, "the row names no value")
    ran = [trial for trial in sweep.started if trial.outcome != "running"]
    beyond = [trial for trial in ran if _is_beyond(row, trial.values.get(name))]
    finished = [trial for trial in sweep.finished if trial in beyond]
    cost = cost_of(row, sweep, finished[0]) if finished else None
    seen = _what_became(row, beyond, sweep) + (
        "" if cost is None else f"; the best of them, trial {cost.trial}, {against(cost)}"
    )
    details = {
        "trials": [trial.number for trial in beyond],
        "outcomes": dict(sorted(Counter(trial.outcome for trial in beyond).items())),
        "signs": dict(sorted(Counter(sign for trial in beyond for sign in trial.signs).items())),
    }
    reason = other_run(row, sweep.context) or not_searched(row, sweep)
    if reason is None and not beyond:
        reason = seen
    best = best_with(row, sweep)
    if reason is None and best is None:
        reason = nothing_finished(row, sweep)
    if reason is not None or best is None:
        return not_tested(
            row, reason or "", details=details, evidence=seen, claim=f"{seen}." if beyond else ""
        )
    value = best.values[name]
    position = position_of(row, value)
    where = "at that value itself" if position == "inside" else f"{position} it"
    called = "too low" if row.direction == "too_low" else "too high"
    distance, offset = distances(row, value)
    return RowVerdict(
        row=row,
        position=position,
        best_value=value,
        best_trial=best.number,
        distance_log10=distance,
        centre_offset_log10=offset,
        cost=cost,
        evidence=seen,
        details=details,
        claim=f"{seen[0].upper()}{seen[1:]}. The table calls that {called}; the best trial lies {where}.",
    )


def judge_stability(row: GuidelineRow, sweep: SweepResult) -> RowVerdict:
    """Whether the trials that showed a sign lie where the table says it comes from."""
    signs, name = SIGNS_OF_ROW.get(row.id, ()), row.parameter or "learning_rate"
    if not signs:
        return not_tested(row, "no stability sign that a trial reports stands for this row")
    reason = other_run(row, sweep.context)
    if reason is not None:
        return not_tested(row, reason)
    ran = [t for t in sweep.started if t.outcome not in ("running", "failed") and name in t.values]
    showing = [trial for trial in ran if set(signs) & set(trial.signs)]
    others = [trial for trial in ran if trial not in showing]
    with_sign, without = numbers_of(showing, name), numbers_of(others, name)
    best = best_with(row, sweep)
    said_side, on_side = _on_said_side(row, with_sign, None if best is None else best.values.get(name))
    details = {
        "signs": list(signs),
        "trials": [trial.number for trial in showing],
        "num_others": len(others),
        "num_on_said_side_of_best": on_side,
        "median_with_sign": median(with_sign) if with_sign else None,
        "median_without_sign": median(without) if without else None,
    }
    if not ran:
        return not_tested(row, "no trial ran", details=details)
    if not with_sign:
        return not_tested(
            row, f"none of {plural(len(ran), 'trial')} showed {' or '.join(signs)}", details=details
        )
    said = f"{len(showing)} of {plural(len(ran), 'trial')} showed {' or '.join(signs)}"
    meaning = {"too_high": f"{name} being too high", "too_low": f"{name} being too low"}
    table = f"which the table reads as {meaning.get(row.direction or '', 'a sign without a direction')}"
    if not without:
        reason = f"{said}, {table}; no trial is without it, so there is none to compare with"
        return not_tested(row, reason, details=details)
    position = _side(median(with_sign), median(without))
    relation = {"inside": "equal to", "above": "higher than", "below": "lower than"}[position]
    return RowVerdict(
        row=row,
        position=position,
        evidence=f"trials {', '.join(str(trial.number) for trial in showing)}",
        details=details,
        claim=(
            f"{said}, {table}. Their median {name}, {number(median(with_sign))}, is {relation} that of the "
            f"others, {number(median(without))}.{said_side} Medians of so few trials, drawn by a sampler "
            "that avoids bad regions, are a hint and no test."
        ),
    )


def _on_said_side(row: GuidelineRow, values: Sequence[float], best: Value | None) -> tuple[str, int | None]:
    """How many trials with the sign lie on the table's side of the best trial; in words, and counted."""
    found = finite(best)
    if found is None or row.direction is None or not values:
        return "", None
    high = row.direction == "too_high"
    count = sum(value > found if high else value < found for value in values)
    side = "above" if high else "below"
    said = f" {count} of {len(values)} with the sign lie {side} the best, {number(found)}."
    return said, count


def _is_beyond(row: GuidelineRow, value: Value | None) -> bool:
    found = finite(value)
    if found is None or row.low is None:
        return False
    if row.direction == "too_low":
        return found <= row.low * (1 + TOLERANCE)
    return found >= row.low * (1 - TOLERANCE)


def _what_became(row: GuidelineRow, beyond: Sequence[TrialResult], sweep: SweepResult) -> str:
    side = f"at {show(row.low)} {'or below' if row.direction == 'too_low' else 'or above'}"
    if not beyond:
        return f"no trial {side}{searched_range(sweep.dimensions.get(row.parameter or ''))}"
    outcomes = Counter(trial.outcome for trial in beyond)
    signs = Counter(sign for trial in beyond for sign in trial.signs)
    said = f"{plural(len(beyond), 'trial')} {side}: "
    said += ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    if signs:
        said += f"; signs: {', '.join(f'{sign} in {count}' for sign, count in sorted(signs.items()))}"
    return said


def _side(value: float, other: float) -> Position:
    if math.isclose(value, other, rel_tol=TOLERANCE):
        return "inside"
    return "above" if value > other else "below"
