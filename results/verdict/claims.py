"""From the description of a row by one run per config to its word: what replicates, band and edges add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from files_and_text.plain_values import finite
from results.sweep_result import SweepResult
from results.verdict.band import Band, band_of
from results.verdict.comparisons import Weighed
from results.verdict.conditions import BASE_DIMENSION, other_run
from results.verdict.distances import TOLERANCE, gap_between, holds_value
from results.verdict.row_conditions import conditions_of, statement
from results.verdict.row_verdict import RowVerdict
from results.verdict.statistics import MARGIN, Arm, Comparison
from results.verdict.words import (
    Side,
    Word,
    combine,
    decide,
    decide_boundary,
    decide_region,
    decide_separate,
    rests_on,
)
from search_spaces import GuidelineRow
from search_spaces.dimension import Value

SEPARATE_RATE_ROWS = frozenset(
    {"boundary.same_rate", "embedding.when_unfrozen", "embedding.when_beside_lora"}
)
"""Rows that want a rate of its own for embeddings: answered by the arm that has one rate for all, tuned
itself."""


def claim(
    found: RowVerdict,
    sweep: SweepResult,
    weighed: Weighed | None,
    *,
    edges: Sequence[tuple[str, str]] = (),
    margin: float = MARGIN,
) -> RowVerdict:
    """The row with its word, effect, band, edge and conditions.

    `edges` are (dimension, side) at which the best lies. Without replicates a tested row is undecided.
    """
    row = found.row
    conditions = conditions_of(row, sweep.context)
    applies = other_run(row, sweep.context) is None
    word: Word = "undecided" if found.position != "not_tested" else "not_tested"
    comparison: Comparison | None = None
    if weighed is not None and applies:
        decided = _decided(row, sweep, weighed)
        if decided is not None:
            word, comparison = decided
    tested = applies and row.topic != "stability" and word != "not_tested"
    dimension = BASE_DIMENSION.get(row.parameter or "", row.parameter or "")
    return replace(
        found,
        verdict=word,
        comparison=comparison,
        band=_band(row, sweep, weighed, margin) if tested else None,
        edge=next((side for name, side in edges if name == dimension), "") if tested else "",
        conditions=conditions,
        conditions_statement=statement(conditions),
    )


def _decided(
    row: GuidelineRow, sweep: SweepResult, weighed: Weighed
) -> tuple[Word, Comparison | None] | None:
    """The word and the comparison it rests on; None when no arm bears on the row."""
    margin, found = weighed.margin, weighed.comparisons
    if row.topic == "stability":
        return None
    if row.id in SEPARATE_RATE_ROWS:
        one_rate = next((found[a.arm.name] for a in weighed.arms if a.arm.role == "one_rate"), None)
        if one_rate is not None:
            return decide_separate(one_rate, margin=margin), one_rate
    name = row.parameter or ""
    best = weighed.values[weighed.reference.name].get(name)
    if best is None:
        return None
    own, contrasts = _arms_of(row, sweep, weighed)
    sided = [(_side(weighed.values[arm.name].get(name), best), found[arm.name]) for arm in own]
    if row.topic == "boundary":
        words: list[Word] = [
            decide_boundary(c, direction=row.direction or "too_high", side=side, margin=margin)
            for side, c in sided
        ]
        return (combine(words), sided[0][1]) if words else None
    if holds_value(row, best):
        outside = [(_side(weighed.values[arm.name].get(name), best), found[arm.name]) for arm in contrasts]
        shown = [comparison for _, comparison in outside + sided]
        if not shown:
            return None
        word = decide_region(outside, sided, margin=margin)
        return word, rests_on(word, shown, margin)
    if not sided:
        return None
    said = [
        _of_range(row, weighed.values[arm.name].get(name), side, c, margin)
        for arm, (side, c) in zip(own, sided, strict=True)
    ]
    word = combine([word for word in said if word is not None])
    return word, min((c for _, c in sided), key=lambda c: float("inf") if c.effect is None else c.effect)


def _of_range(
    row: GuidelineRow, value: Value | None, side: Side, comparison: Comparison, margin: float
) -> Word | None:
    """A range is too low or too high when its end nearest to the best is; only runs that end early count
    anywhere. None for a worse value elsewhere in the range, which says nothing about that end."""
    word = decide(comparison, side=side, margin=margin)
    end = row.high if side == "below" else row.low
    if word in ("too_low", "too_high") and not comparison.loses_runs and end is not None:
        return word if _close(value, end) else None
    return word


def _arms_of(row: GuidelineRow, sweep: SweepResult, weighed: Weighed) -> tuple[list[Arm], list[Arm]]:
    """Arms of the row's own value, and arms outside the row, that differ from the best in its parameter
    alone."""
    own: list[Arm] = []
    outside: list[Arm] = []
    name = row.parameter or ""
    for summary in weighed.arms:
        arm = summary.arm
        value = weighed.values[arm.name].get(name)
        if arm is weighed.reference or arm.role == "one_rate" or value is None:
            continue
        named = arm.role == "row" and row.id in arm.rows
        if not named and not _differs_only_in(name, arm, sweep, weighed):
            continue
        (own if holds_value(row, value) else outside).append(arm)
    return own, outside


def _differs_only_in(name: str, arm: Arm, sweep: SweepResult, weighed: Weighed) -> bool:
    """Whether every other searched dimension is the best's; a dimension that one of the two lacks is left
    out.

    Beside another main rate the embeddings may keep their rate instead of their ratio: first trials do.
    """
    ours, best = weighed.values[arm.name], weighed.values[weighed.reference.name]
    base = BASE_DIMENSION.get(name, name)
    for other, dimension in sweep.dimensions.items():
        if other == base or other not in ours or other not in best:
            continue
        if gap_between(dimension, ours[other], best[other]) <= TOLERANCE:
            continue
        kept = _close(ours.get("embedding_learning_rate"), best.get("embedding_learning_rate"))
        if not (name == "learning_rate" and other == "embedding_lr_ratio" and kept):
            return False
    return not _close(ours.get(name), best.get(name))


def _close(one: Value | None, other: Value | None) -> bool:
    a, b = finite(one), finite(other)
    if a is None or b is None:
        return one is not None and one == other
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


def _side(value: Value | None, best: Value) -> Side:
    a, b = finite(value), finite(best)
    if a is None or b is None:
        return "equal" if value == best else "other"
    if _close(a, b):
        return "equal"
    return "above" if a > b else "below"


def _band(row: GuidelineRow, sweep: SweepResult, weighed: Weighed | None, margin: float) -> Band | None:
    name = row.parameter or ""
    points = [
        (trial.values[name], trial.eval_loss)
        for trial in sweep.finished
        if name in trial.values and trial.eval_loss is not None
    ]
    return band_of(name, points, margin=margin, noise=0.0 if weighed is None else weighed.run_noise)
