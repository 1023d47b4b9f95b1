"""The main learning rate, and the ratio of the embeddings' learning rate to it."""

from __future__ import annotations

from files_and_text.numbers import value_text
from search_spaces.dimension import Dimension
from search_spaces.from_rows.sourced_dimension import (
    BEST_AT_THE_LAST,
    ONE_RATE_FOR_ALL,
    SMALL_MODEL,
    UPWARDS_FOR_SMALL,
    Run,
    SourcedDimension,
    row_ends,
    rows_with,
    span,
    widened,
    with_numbers,
)
from search_spaces.guidelines import Guidelines
from search_spaces.rows import GuidelineRow

LEARNING_RATE_LIMITS = (1e-6, 1e-2)


def learning_rate(
    tables: Guidelines, run: Run, factor: float, *, is_own_factor: bool = False
) -> SourcedDimension:
    """The main learning rate, spanning the rows of the scenario, the model size and the run's length.

    `is_own_factor`: the user's, which holds on both sides.
    """
    rates = [row for row in tables.values() if row.parameter == "learning_rate" and row.low is not None]
    notes = []
    if run.method == "full":
        full = [row for row in rates if row.topic == "method" and row.when.method == "full"]
        general = [row for row in full if not row.when.limits_size]
        sized = [row for row in full if row.when.limits_size]
        by_length: list[GuidelineRow] = []
        far = [row for row in sized if row.when.size_distance(run.model_size) > 0]
        note = "".join(f"nearest row {r.condition}: {run.model_size:.3g} parameters lie outside" for r in far)
        # The one value given for a size stands for all sizes: no other row gives one in the general range.
        anchor = min((row.low for row in sized if row.low is not None), default=0.0)
    else:
        named = [row for row in rates if row.topic == "scenario"]
        general = [row for row in named if row.when.scenario == run.scenario]
        by_length = [
            row
            for row in named
            if row not in general and row.when.limits_steps and row.when.includes_steps(run.max_steps)
        ]
        sized, size_note = tables.nearest_size("model_size", run.model_size)
        note = size_note or ""
        anchor = tables["method.qlora"].high or 2e-4
        notes = [
            f"the row {row.id} is written for {row.condition}; this run has {run.max_steps} steps"
            for row in general
            if not row.when.includes_steps(run.max_steps)
        ]
    is_small = run.method == "qlora" and run.model_size <= SMALL_MODEL and not is_own_factor
    above = UPWARDS_FOR_SMALL if is_small else factor
    wide = f"searched up to {above:g} times the rows' highest: {BEST_AT_THE_LAST}" if is_small else ""
    rows = [*general, *sized, *by_length]
    default = _common_rate(general, sized, anchor)
    return SourcedDimension(
        from_rows=widened(
            "learning_rate",
            rows,
            span(rows),
            factor,
            default=default,
            factor_above=above,
            limits=LEARNING_RATE_LIMITS,
            note="; ".join(part for part in (note, wide) if part),
        ),
        default_rows=rows_with(rows, default),
        row_values=row_ends(rows),
        notes=(*([note] if note else []), *notes),
        about_high=wide,
    )


def _common_rate(general: list[GuidelineRow], sized: list[GuidelineRow], anchor: float) -> float:
    """One rate that both groups allow; where they contradict each other, the lower of their nearest ends.

    Inside what both allow, the value nearest to the method's own default. Lower in a contradiction, since a
    rate too low is slow where one too high diverges, and the documents lower rates "for stability".
    """
    groups = [span(rows) for rows in (general, sized) if rows]
    low, high = max(low for low, _ in groups), min(high for _, high in groups)
    return min(max(anchor, low), high)


def embedding_lr_ratio(
    tables: Guidelines, run: Run, factor: float, main_rate: float
) -> SourcedDimension | None:
    """Embedding rate over main rate, spanning every row about it; None when no row applies to the method."""
    ratio_rows = with_numbers(run.rows(tables, "embedding_lr_ratio"))
    ratios = [row for row in ratio_rows if row.topic == "embedding"]
    rates = with_numbers(run.rows(tables, "embedding_learning_rate"))
    rates = [row for row in rates if row.topic == "embedding"]
    if not ratios and not rates:
        return None
    boundary = [row for row in run.rows(tables, "embedding_lr_ratio") if row.topic == "boundary"]
    low, high = span(ratios, default=(1.0, 0.0))
    rate_low, rate_high = span(rates, default=(main_rate, 0.0))
    low, high = min(low, rate_low / main_rate), max(high, rate_high / main_rate)
    embedding_rate = rates[0].low if rates else None
    default = high if embedding_rate is None else embedding_rate / main_rate
    rows = [*rates, *ratios]
    note = ""
    warned = [
        row for row in boundary if row.direction == "too_high" and row.low is not None and row.low <= default
    ]
    if ratios and warned:
        # Beside a low main rate the embeddings' usual rate is one that the same tables warn of.
        usual = value_text(rates[0].low or 0.0) if rates else "the rows' own rate"
        note = f"{usual} would be {value_text(default)} of the main rate: {warned[0].id}"
        default, embedding_rate = span(ratios)[1], None
    row_values = row_ends(rows, main_rate)
    return SourcedDimension(
        from_rows=widened(
            "embedding_lr_ratio",
            [*rows, *boundary],
            (low, high),
            factor,
            default=default,
            include=ONE_RATE_FOR_ALL,
            note=note,
        ),
        default_rows=tuple(row_id for each in row_values if each.value == default for row_id in each.rows),
        row_values=row_values,
        embedding_rate=embedding_rate,
    )


def embedding_lr_ratio_without_rows() -> SourcedDimension:
    """For a user who searches the ratio under a method that no row gives one for."""
    return SourcedDimension(
        from_rows=Dimension(
            name="embedding_lr_ratio",
            kind="float",
            low=0.01,
            high=ONE_RATE_FOR_ALL,
            log=True,
            default=ONE_RATE_FOR_ALL,
            note="no row holds for this method",
        )
    )
