"""The learning rate schedule, and the share of the steps that warm up."""

from __future__ import annotations

from files_and_text.numbers import six_digits
from search_spaces.dimension import Dimension
from search_spaces.from_rows.sourced_dimension import (
    RowValue,
    Run,
    SourcedDimension,
    row_ends,
    rows_with,
    span,
    with_numbers,
)
from search_spaces.guidelines import Guidelines
from search_spaces.rows import GuidelineRow, When

MOST_WARMUP = 0.5

# Offered so that a row about schedulers can be contradicted.
USUAL_SCHEDULERS = ("linear", "constant", "cosine")


def scheduler(tables: Guidelines, run: Run) -> SourcedDimension:
    """The schedule: the run length's own choices first, then those of other rows, then the usual others."""
    rows = [row for row in run.rows(tables, "lr_scheduler_type") if row.choices]
    by_length = [row for row in rows if row.when.limits_steps]
    others = [row for row in rows if not row.when.limits_steps]
    own = tuple(dict.fromkeys(choice for row in by_length for choice in row.choices))
    named = tuple(choice for row in others for choice in row.choices)
    choices = tuple(dict.fromkeys((*own, *named, *USUAL_SCHEDULERS)))
    # A row without any condition is an example, not advice for this run.
    advising = [*by_length, *(row for row in others if row.when != When())]
    return SourcedDimension(
        from_rows=Dimension(
            name="lr_scheduler_type",
            kind="categorical",
            choices=choices,
            guideline_choices=own,
            default=choices[0],
            rows=tuple(row.id for row in (*by_length, *others)),
        ),
        default_rows=tuple(row.id for row in advising if choices[0] in row.choices),
        row_values=tuple(RowValue(value=name, rows=(row.id,)) for row in advising for name in row.choices),
    )


def warmup_ratio(tables: Guidelines, run: Run, factor: float) -> SourcedDimension:
    """The share of steps spent warming up: the ratio rows, and the least number of steps as a share."""
    ratios = with_numbers(run.rows(tables, "warmup_ratio"))
    steps = with_numbers(run.rows(tables, "warmup_steps"))
    shares = {row.id: (row.low or 0.0) / run.max_steps for row in steps}
    floors = {row_id: share for row_id, share in shares.items() if share <= MOST_WARMUP}
    floor = max(floors.values(), default=0.0)
    low, by_ratio = span(ratios, default=(0.0, 0.0))
    high = max(by_ratio, floor)
    by_length = [row for row in ratios if row.when.limits_steps]
    if by_length:
        wanted = by_length[-1].low or 0.0
    else:
        # The least share that no ratio row calls too little.
        wanted = min(max((row.low or 0.0 for row in ratios), default=0.0), high)
    default = max(wanted, floor)
    if floor > wanted:
        default_rows = tuple(row_id for row_id, share in floors.items() if share == floor)
    else:
        default_rows = tuple(row.id for row in by_length) or rows_with(ratios, default)
    return SourcedDimension(
        from_rows=Dimension(
            name="warmup_ratio",
            kind="float",
            low=0.0,  # no warmup at all: what a row about warmup has to beat
            # Not wider than the least number of steps: trials are compared after twice the longest warmup.
            high=max(high, min(six_digits(by_ratio * factor), MOST_WARMUP)),
            guideline_low=low,
            guideline_high=high,
            default=default,
            rows=tuple(row.id for row in (*ratios, *steps) if row in ratios or row.id in floors),
            note=_floor_note(steps, floors, low, run.max_steps),
        ),
        default_rows=default_rows,
        # Not the floors: a minimum number of steps matters only where it is more than the ratio rows say.
        row_values=row_ends(ratios),
        row_minimums=tuple(RowValue(value=share, rows=(row_id,)) for row_id, share in floors.items()),
    )


def _floor_note(steps: list[GuidelineRow], floors: dict[str, float], low: float, max_steps: int) -> str:
    """What the least number of warmup steps is of this run, where that matters."""
    if not steps:
        return ""
    least, row_id = f"{steps[0].low:g} steps of warmup", steps[0].id
    if row_id not in floors:
        return f"{least} are more than half of {max_steps}, so {row_id} says nothing of so short a run"
    return f"{least} are {floors[row_id]:.3g} of {max_steps}" if floors[row_id] >= low else ""
