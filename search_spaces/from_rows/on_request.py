"""The dimensions that are searched on request: batch size, LoRA's own, weight decay."""

from __future__ import annotations

from search_spaces.dimension import Dimension
from search_spaces.from_rows.sourced_dimension import (
    RowValue,
    Run,
    SourcedDimension,
    rows_with,
    span,
    with_numbers,
)
from search_spaces.guidelines import Guidelines

# The documents are silent on these: what adapter training commonly uses, as (choices, default).
# Rank and alpha both default to 16, a scale alpha/r of 1.
_LORA: dict[str, tuple[tuple[float | int, ...], float | int]] = {
    "lora_r": ((8, 16, 32, 64), 16),
    "lora_alpha": ((8, 16, 32, 64), 16),
    "lora_dropout": ((0.0, 0.05, 0.1), 0.0),
}
ON_REQUEST = (*_LORA, "per_device_train_batch_size", "weight_decay")


def on_request(name: str, tables: Guidelines, run: Run, widen: float) -> SourcedDimension:
    """One dimension of ON_REQUEST; `widen` counts for the batch size alone."""
    if name == "per_device_train_batch_size":
        return _batch_size(tables, run, widen)
    if name == "weight_decay":
        return _weight_decay(tables, run)
    choices, default = _LORA[name]
    note = "the documents are silent: common choices"
    return SourcedDimension(
        from_rows=Dimension(name=name, kind="categorical", choices=choices, default=default, note=note)
    )


def _batch_size(tables: Guidelines, run: Run, widen: float) -> SourcedDimension:
    """The batch of one device, in powers of two; the default is the row's low end, which fits most memory."""
    rows, note = tables.nearest_size("batch_size", run.model_size)
    rows = with_numbers(rows)
    low, high = span(rows, default=(1.0, 1.0))
    powers = (2**power for power in range(20) if low / widen <= 2**power <= high * widen)
    ends = [(row.id, end) for row in rows for end in (row.low, row.high) if end is not None]
    return SourcedDimension(
        from_rows=Dimension(
            name="per_device_train_batch_size",
            kind="categorical",
            choices=tuple(sorted({*powers, int(low), int(high)})),
            guideline_low=low,
            guideline_high=high,
            default=int(low),
            rows=tuple(row.id for row in rows),
            note=note or "",
        ),
        default_rows=rows_with(rows, low),
        row_values=tuple(RowValue(value=int(end), rows=(row_id,)) for row_id, end in ends),
    )


def _weight_decay(tables: Guidelines, run: Run) -> SourcedDimension:
    rows = with_numbers(run.rows(tables, "weight_decay"))
    low, high = span(rows, default=(0.0, 0.0))
    ids = tuple(row.id for row in rows)
    return SourcedDimension(
        from_rows=Dimension(
            name="weight_decay",
            kind="float",
            low=0.0,
            high=max(high, 0.1),
            guideline_low=low if rows else None,
            guideline_high=high if rows else None,
            default=low,
            rows=ids,
            note="the documents name no range: 0 to 0.1 is common",
        ),
        default_rows=ids,
    )
