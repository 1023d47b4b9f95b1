"""The two learning rates: from the rows that hold for a run to a range, a default, and values to propose."""

from __future__ import annotations

from search_spaces.from_rows.dimension_draft import (
    ONE_RATE_FOR_ALL,
    Draft,
    Run,
    ends_as_proposals,
    holding,
    rows_for,
    span,
    widened,
    with_numbers,
)
from search_spaces.guidelines import Guidelines
from search_spaces.rows import GuidelineRow

LEARNING_RATE_LIMITS = (1e-6, 1e-2)


def learning_rate_draft(tables: Guidelines, run: Run, factor: float) -> Draft:
    """The main learning rate, spanning the rows of the scenario, the model size and the run's length."""
    rates = [row for row in tables.values() if row.parameter == "learning_rate" and row.low is not None]
    notes = []
    if run.method == "full":
        general = [r for r in rates if r.topic == "method" and r.when.method == "full" and not r.when.by_size]
        sized = [r for r in rates if r.topic == "method" and r.when.method == "full" and r.when.by_size]
        by_length: list[GuidelineRow] = []
        far = [row for row in sized if row.when.size_distance(run.model_size) > 0]
        note = "".join(f"nearest row {r.condition}: {run.model_size:.3g} parameters lie outside" for r in far)
        # The one value given for a size stands for all sizes: no other row points inside the general range.
        anchor = min((row.low for row in sized if row.low is not None), default=0.0)
    else:
        named = [row for row in rates if row.topic == "scenario"]
        general = [row for row in named if row.when.scenario == run.scenario]
        by_length = [
            row
            for row in named
            if row not in general and row.when.by_steps and row.when.steps_hold(run.max_steps)
        ]
        sized, size_note = tables.nearest_size("model_size", run.model_size)
        note = size_note or ""
        anchor = tables["method.qlora"].high or 2e-4
        notes = [
            f"the row {row.id} is written for {row.condition}; this run has {run.max_steps} steps"
            for row in general
            if not row.when.steps_hold(run.max_steps)
        ]
    low, high = span([*general, *sized, *by_length])
    default = common_rate(general, sized, anchor)
    rows = [*general, *sized, *by_length]
    dimension = widened(
        "learning_rate",
        rows,
        (low, high),
        factor,
        default=default,
        log=True,
        limits=LEARNING_RATE_LIMITS,
        note=note,
    )
    return Draft(
        tables=dimension,
        final=dimension,
        default_rows=holding(rows, default),
        proposals=ends_as_proposals(rows),
        notes=(*([note] if note else []), *notes),
    )


def common_rate(general: list[GuidelineRow], sized: list[GuidelineRow], anchor: float) -> float:
    """One rate that both groups allow; where they contradict each other, the lower of their nearest ends.

    Inside what both allow, the value nearest to the method's own default. Lower in a contradiction, since a
    rate too low is slow where one too high diverges, and the documents lower rates "for stability".
    """
    groups = [span(rows) for rows in (general, sized) if rows]
    low, high = max(low for low, _ in groups), min(high for _, high in groups)
    return min(max(anchor, low), high)


def embedding_ratio_draft(tables: Guidelines, run: Run, factor: float, main_rate: float) -> Draft | None:
    """Embedding rate over main rate, spanning every row about it; None when no row holds for the method."""
    held = rows_for(tables, run)
    ratios = [row for row in held if row.parameter == "embedding_lr_ratio" and row.topic == "embedding"]
    rates = [row for row in held if row.parameter == "embedding_learning_rate" and row.topic == "embedding"]
    ratios, rates = with_numbers(ratios), with_numbers(rates)
    if not ratios and not rates:
        return None
    boundary = [row for row in held if row.parameter == "embedding_lr_ratio" and row.topic == "boundary"]
    low, high = span(ratios, default=(1.0, 0.0))
    rate_low, rate_high = span(rates, default=(main_rate, 0.0))
    low, high = min(low, rate_low / main_rate), max(high, rate_high / main_rate)
    embedding_rate = rates[0].low if rates else None
    default = embedding_rate / main_rate if embedding_rate is not None else high
    rows = [*rates, *ratios]
    proposals = ends_as_proposals(rows, main_rate)
    dimension = widened(
        "embedding_lr_ratio",
        [*rows, *boundary],
        (low, high),
        factor,
        default=default,
        log=True,
        include=ONE_RATE_FOR_ALL,
    )
    return Draft(
        tables=dimension,
        final=dimension,
        default_rows=tuple(row_id for p in proposals if p.value == default for row_id in p.rows),
        proposals=proposals,
        embedding_rate=embedding_rate,
    )
