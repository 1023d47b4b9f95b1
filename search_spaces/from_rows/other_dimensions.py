"""Schedule, warmup, batch size, and what the documents are silent on: from rows to a range and a default."""

from __future__ import annotations

from files_and_text.numbers import six_digits
from search_spaces.from_rows.dimension_draft import (
    ONE_RATE_FOR_ALL,
    Draft,
    Proposal,
    Run,
    ends_as_proposals,
    holding,
    rows_for,
    span,
    with_numbers,
)
from search_spaces.guidelines import Guidelines
from search_spaces.rows import When
from search_spaces.space import Dimension

MOST_WARMUP = 0.5

# Offered so that a row about schedulers can be contradicted.
USUAL_SCHEDULERS = ("linear", "constant", "cosine")

# The documents are silent on these: what adapter training commonly uses, as (choices, default).
# Rank and alpha both default to 16, a scale alpha/r of 1.
CONVENTIONS: dict[str, tuple[tuple[float | int, ...], float | int]] = {
    "lora_r": ((8, 16, 32, 64), 16),
    "lora_alpha": ((8, 16, 32, 64), 16),
    "lora_dropout": ((0.0, 0.05, 0.1), 0.0),
}


def scheduler_draft(tables: Guidelines, run: Run) -> Draft:
    """The schedule: the run length's own choices first, then those of other rows, then the usual others."""
    held = [row for row in rows_for(tables, run) if row.parameter == "lr_scheduler_type" and row.choices]
    by_length = [row for row in held if row.when.by_steps]
    others = [row for row in held if not row.when.by_steps]
    own = tuple(dict.fromkeys(choice for row in by_length for choice in row.choices))
    named = tuple(choice for row in others for choice in row.choices)
    choices = tuple(dict.fromkeys((*own, *named, *USUAL_SCHEDULERS)))
    dimension = Dimension(
        name="lr_scheduler_type",
        kind="categorical",
        choices=choices,
        guideline_choices=own,
        default=choices[0],
        rows=tuple(row.id for row in (*by_length, *others)),
    )
    # A row without any condition illustrates; it proposes nothing for this run.
    proposing = [*by_length, *(row for row in others if row.when != When())]
    return Draft(
        tables=dimension,
        final=dimension,
        default_rows=tuple(row.id for row in proposing if choices[0] in row.choices),
        proposals=tuple(
            Proposal(value=choice, rows=(row.id,)) for row in proposing for choice in row.choices
        ),
    )


def warmup_draft(tables: Guidelines, run: Run, factor: float) -> Draft:
    """The share of steps spent warming up: the ratio rows, and the least number of steps as a share."""
    held = with_numbers(rows_for(tables, run))
    ratios = [row for row in held if row.parameter == "warmup_ratio"]
    steps = [row for row in held if row.parameter == "warmup_steps"]
    floors = {row.id: min((row.low or 0.0) / run.max_steps, MOST_WARMUP) for row in steps}
    floor = max(floors.values(), default=0.0)
    low, high = span(ratios, default=(0.0, 0.0))
    high = max(high, floor)
    by_length = [row for row in ratios if row.when.by_steps]
    if by_length:
        wanted = by_length[-1].low or 0.0
    else:
        # The least share that no ratio row calls too little.
        wanted = min(max((row.low or 0.0 for row in ratios), default=0.0), high)
    default = max(wanted, floor)
    if floor > wanted:
        default_rows = tuple(row_id for row_id, share in floors.items() if share == floor)
    else:
        default_rows = tuple(row.id for row in by_length) or holding(ratios, default)
    dimension = Dimension(
        name="warmup_ratio",
        kind="float",
        low=0.0,  # no warmup at all: what a row about warmup has to beat
        high=max(high, min(six_digits(high * factor), MOST_WARMUP)),
        guideline_low=low,
        guideline_high=high,
        default=default,
        rows=tuple(row.id for row in (*ratios, *steps)),
        note=f"{steps[0].low:g} steps of {run.max_steps} are {floor:.3g}" if steps and floor >= low else "",
    )
    # Shares below the ratio rows are no proposal of theirs: a minimum only speaks where it binds.
    return Draft(
        tables=dimension,
        final=dimension,
        default_rows=default_rows,
        proposals=ends_as_proposals(ratios),
    )


def batch_size_draft(tables: Guidelines, run: Run, factor: float) -> Draft:
    """The batch of one device, in powers of two; the default is the row's low end, which fits most memory."""
    rows, note = tables.nearest_size("batch_size", run.model_size)
    rows = with_numbers(rows)
    low, high = span(rows, default=(1.0, 1.0))
    powers = tuple(2**power for power in range(20) if low / factor <= 2**power <= high * factor)
    choices = tuple(sorted({*powers, int(low), int(high)}))
    dimension = Dimension(
        name="per_device_train_batch_size",
        kind="categorical",
        choices=choices,
        guideline_low=low,
        guideline_high=high,
        default=int(low),
        rows=tuple(row.id for row in rows),
        note=note or "",
    )
    proposals = tuple(
        Proposal(value=int(end), rows=(row.id,))
        for row in rows
        for end in (row.low, row.high)
        if end is not None
    )
    return Draft(tables=dimension, final=dimension, default_rows=holding(rows, low), proposals=proposals)


def convention_draft(name: str, tables: Guidelines | None = None, run: Run | None = None) -> Draft:
    """A dimension on which the documents are silent, but for a value of weight decay."""
    if name in CONVENTIONS:
        choices, default = CONVENTIONS[name]
        note = "the documents are silent: common choices"
        dimension = Dimension(name=name, kind="categorical", choices=choices, default=default, note=note)
        return Draft(tables=dimension, final=dimension)
    if name == "embedding_lr_ratio":
        note = "no row holds for this method"
        dimension = Dimension(
            name=name,
            kind="float",
            low=0.01,
            high=ONE_RATE_FOR_ALL,
            log=True,
            default=ONE_RATE_FOR_ALL,
            note=note,
        )
        return Draft(tables=dimension, final=dimension)
    held = rows_for(tables, run) if tables is not None and run is not None else []
    rows = [row for row in with_numbers(held) if row.parameter == name]
    low, high = span(rows, default=(0.0, 0.0))
    dimension = Dimension(
        name=name,
        kind="float",
        low=0.0,
        high=max(high, 0.1),
        guideline_low=low if rows else None,
        guideline_high=high if rows else None,
        default=low,
        rows=tuple(row.id for row in rows),
        note="the documents name no range: 0 to 0.1 is common",
    )
    return Draft(tables=dimension, final=dimension, default_rows=tuple(row.id for row in rows))
