"""The finished verdict on a row, from what single runs measured and what replicates show.

A row is tested by arms that differ from the best in its parameter alone. Without one, the guideline default
speaks for the rows whose value it holds. It takes all of the tables' own values at once: where it is no worse
than the best by more than the margin, none of them costs more than that beside the others. Where it is worse,
it does not say which of them it is; for the learning rate alone the sweep itself can tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from results.comparison.arms import Arm
from results.comparison.paired import Comparison
from results.comparison.quantiles import t_quantile
from results.comparison.relation import relation
from results.sweep_result import SweepResult
from results.verdict.arm_comparisons import ArmComparisons, ArmSummary
from results.verdict.band import Edge, band_of
from results.verdict.measure import Measurement
from results.verdict.row_values import (
    BASE_DIMENSION,
    dimension_name,
    holds_value,
    is_close,
    side_of,
)
from results.verdict.row_verdict import RowVerdict
from results.verdict.word_rules import (
    Side,
    Word,
    boundary_word,
    combine,
    region_word,
    rests_on,
    separate_rate_word,
    value_word,
)
from search_spaces import GuidelineRow
from search_spaces.dimension import Value

SEPARATE_RATE_ROWS = frozenset(
    {"boundary.same_rate", "embedding.when_unfrozen", "embedding.when_beside_lora"}
)
"""Rows that want a separate learning rate for embeddings: answered by the arm that has one rate for all,
itself tuned."""


class TestedValue(NamedTuple):
    """A value of a row's parameter that was compared with the best."""

    value: Value
    side: Side
    comparison: Comparison


def decide(
    row: GuidelineRow,
    measurement: Measurement,
    sweep: SweepResult,
    compared: ArmComparisons | None,
    *,
    edges: Sequence[Edge],
    margin: float,
) -> RowVerdict:
    """The verdict on a row that `measure` has measured. Without replicates a tested row is undecided."""
    word: Word = "undecided" if measurement.is_tested else "not_tested"
    comparison: Comparison | None = None
    by_default = False
    if compared is not None and measurement.applies:
        found = _by_arms(row, sweep, compared)
        if found is None:
            found = _by_default(row, measurement, sweep, compared)
            by_default = found is not None
        word, comparison = found or (word, comparison)
    noise = 0.0 if compared is None else compared.run_noise
    decided = row_verdict(row, sweep, measurement, word, comparison, edges=edges, margin=margin, noise=noise)
    return replace(decided, by_default=by_default)


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
) -> RowVerdict:
    """The row's word with the band of its parameter and the edge at which the best lies.

    Neither where the best trial does not use the parameter.
    """
    name = row.parameter or ""
    says_nothing = not measurement.applies or row.topic == "stability" or word == "not_tested"
    if says_nothing or measurement.position == "unused":
        return RowVerdict(row=row, measurement=measurement, word=word, comparison=comparison)
    points = [
        (trial.values[name], trial.eval_loss)
        for trial in sweep.finished
        if name in trial.values and trial.eval_loss is not None
    ]
    return RowVerdict(
        row=row,
        measurement=measurement,
        word=word,
        comparison=comparison,
        band=band_of(name, points, margin=margin, noise=noise),
        edge=next((edge.side for edge in edges if edge.dimension == dimension_name(row)), ""),
    )


def _by_arms(
    row: GuidelineRow, sweep: SweepResult, compared: ArmComparisons
) -> tuple[Word, Comparison | None] | None:
    """The word and the comparison it rests on; None when no arm tests the row."""
    margin, found = compared.margin, compared.comparisons
    if row.topic == "stability":
        return None
    if row.id in SEPARATE_RATE_ROWS:
        one_rate = next((found[a.arm.name] for a in compared.arms if a.arm.role == "one_rate"), None)
        if one_rate is not None:
            return separate_rate_word(one_rate, margin=margin), one_rate
    name = row.parameter or ""
    best = compared.values[compared.reference.name].get(name)
    if best is None:
        return None
    own, outside = _arms_of(row, sweep, compared, best)
    if row.topic == "boundary" or holds_value(row, best):
        return word_of_sides(row, own, outside, margin=margin)
    if not own:
        return None
    words = [_word_of_range(row, arm, margin) for arm in own]
    cheapest = min((arm.comparison for arm in own), key=lambda c: math.inf if c.effect is None else c.effect)
    return combine([word for word in words if word is not None]), cheapest


def word_of_sides(
    row: GuidelineRow, own: Sequence[TestedValue], outside: Sequence[TestedValue], *, margin: float
) -> tuple[Word, Comparison | None] | None:
    """The word of a boundary row, or of one in whose range the best lies, and the comparison it rests on.

    `own` are values in the row, `outside` others; None when there are none to go by.
    """
    if row.topic == "boundary":
        direction = row.direction or "too_high"
        words = [
            boundary_word(arm.comparison, direction=direction, side=arm.side, margin=margin) for arm in own
        ]
        return (combine(words), own[0].comparison) if words else None
    shown = [arm.comparison for arm in (*outside, *own)]
    if not shown:
        return None
    word = region_word(
        [(arm.side, arm.comparison) for arm in outside], [arm.comparison for arm in own], margin=margin
    )
    return word, rests_on(word, shown, margin)


def _word_of_range(row: GuidelineRow, arm: TestedValue, margin: float) -> Word | None:
    """A range is too low or too high when its end nearest to the best is; runs that end early count anywhere.
    None for a worse value elsewhere in the range, which says nothing about that end."""
    word = value_word(arm.comparison, side=arm.side, margin=margin)
    end = row.high if arm.side == "below" else row.low
    if word in ("too_low", "too_high") and not arm.comparison.loses_runs and end is not None:
        return word if is_close(arm.value, end) else None
    return word


def _arms_of(
    row: GuidelineRow, sweep: SweepResult, compared: ArmComparisons, best: Value
) -> tuple[list[TestedValue], list[TestedValue]]:
    """Arms of the row's own value, and arms outside the row, that differ from the best in its parameter
    alone."""
    own: list[TestedValue] = []
    outside: list[TestedValue] = []
    name = row.parameter or ""
    for summary in compared.arms:
        arm = summary.arm
        value = compared.values[arm.name].get(name)
        if arm is compared.reference or arm.role == "one_rate" or value is None:
            continue
        named = arm.role == "row" and row.id in arm.rows
        if named or _differs_only_in(name, arm, sweep, compared):
            tested = TestedValue(value, side_of(value, best), compared.comparisons[arm.name])
            (own if holds_value(row, value) else outside).append(tested)
    return own, outside


def _differs_only_in(name: str, arm: Arm, sweep: SweepResult, compared: ArmComparisons) -> bool:
    """Whether every other searched dimension is the best's; a dimension that one of the two lacks is left
    out.

    With another main learning rate the embeddings may keep their rate instead of their ratio, as the first
    trials do.
    """
    ours, best = compared.values[arm.name], compared.values[compared.reference.name]
    base = BASE_DIMENSION.get(name, name)
    for other in sweep.dimensions:
        if other == base or other not in ours or other not in best or is_close(ours[other], best[other]):
            continue
        kept = is_close(ours.get("embedding_learning_rate"), best.get("embedding_learning_rate"))
        if not (name == "learning_rate" and other == "embedding_lr_ratio" and kept):
            return False
    return not is_close(ours.get(name), best.get(name))


def _by_default(
    row: GuidelineRow, measurement: Measurement, sweep: SweepResult, compared: ArmComparisons
) -> tuple[Word, Comparison] | None:
    """The word and the default's comparison; None where the default does not hold the row's value."""
    arm = _default_arm(compared)
    name = row.parameter or ""
    if arm is None or row.topic in ("boundary", "stability") or not measurement.is_tested:
        return None
    value = compared.values[arm.arm.name].get(name)
    if value is None or not holds_value(row, value):
        return None
    comparison = compared.comparisons[arm.arm.name]
    best = compared.values[compared.reference.name].get(name)
    side = "other" if best is None else side_of(value, best)
    found = relation(comparison, compared.margin)
    word = value_word(comparison, side=side, margin=compared.margin)
    if found not in ("worse", "loses_runs"):
        return word, comparison
    end = row.high if side == "below" else row.low
    is_end = end is not None and is_close(value, end)
    alone = name == "learning_rate" and is_end and _is_beyond_noise(row, measurement, sweep, compared)
    return (word if alone else "undecided"), comparison


def _default_arm(compared: ArmComparisons) -> ArmSummary | None:
    """The guideline default among the arms, if it was run again."""
    return next((arm for arm in compared.arms if arm.arm.role == "guideline_default"), None)


def _is_beyond_noise(
    row: GuidelineRow, measurement: Measurement, sweep: SweepResult, compared: ArmComparisons
) -> bool:
    """Whether the cheapest full-budget trial inside the row costs more than the margin and noise explain.

    There has to be one beside the default: only others can show that retuning the rest does not help. The
    difference of two runs on the sweep's seed has `sqrt(2) * run_noise`, and the lowest of n losses lies up
    to `sqrt(2 ln n) * run_noise` too low. Both are taken at the t quantile of the few pairs that measured the
    noise, which is 2 for many.
    """
    cost, best, default = measurement.cost, sweep.best, _default_arm(compared)
    if cost is None or best is None or best.eval_loss is None or default is None or not compared.run_noise:
        return False
    of_default = sweep.guideline_default
    others = [
        trial
        for trial in sweep.finished
        if holds_value(row, trial.values.get(row.parameter or ""))
        and (of_default is None or trial.number != of_default.number)
    ]
    pairs = compared.comparisons[default.arm.name].pairs
    if not others or pairs < 2:
        return False
    lowest_of = math.sqrt(math.log(len(sweep.finished)) / 2)
    noise = t_quantile(0.05, pairs - 1) * (math.sqrt(2) + lowest_of) * compared.run_noise
    return cost.difference > compared.margin * abs(best.eval_loss) + noise
