"""Trials as a table for the terminal, best first, with the columns that fit its width."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from files_and_text.numbers import loss, value_text
from results.tables import DERIVED, parameters_of

_GAP = 2
_REASON_WIDTH = 24
"""A reason with less room than this is left out."""


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """A `trials_frame`, best first: by the loss at the full budget, then by how far a trial got and its loss
    there; running and waiting ones without a report come last."""
    return frame.sort_values(
        ["eval_loss", "last_percent", "last_eval_loss", "number"],
        ascending=[True, False, True, True],
        na_position="last",
        kind="stable",
    ).reset_index(drop=True)


def trials_table(frame: pd.DataFrame, *, width: int) -> Table:
    """A table of the rows of a `trials_frame`, in their order.

    Trial, evaluation loss (nats per token), the sweep's metric if it has one, and outcome are always there;
    then, as far as `width` cells go, the parameters, what follows from them, the share of the budget, and the
    reason.
    """
    rows = frame.to_dict("records")
    columns: list[tuple[str, list[str], bool]] = [
        ("trial", [str(row["number"]) for row in rows], True),
        ("eval_loss", [_loss(row) for row in rows], True),
        ("outcome", [_outcome(row) for row in rows], False),
    ]
    if "metric" in frame:
        columns.insert(2, ("metric", [_shown(row["metric"]) for row in rows], True))
    used = sum(map(_width, columns))
    names = [*parameters_of(frame), *DERIVED[:2]]
    optional = [(name, [_shown(row[name]) for row in rows], True) for name in names]
    optional.append(("percent", [_shown(row["last_percent"]) for row in rows], True))
    for column in filter(lambda column: any(column[1]), optional):
        if used + _width(column) > width:
            break  # a later column that fits would hide that one is missing
        columns.append(column)
        used += _width(column)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for name, _, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    cells = [values for _, values, _ in columns]
    if (room := width - used) >= _REASON_WIDTH:
        table.add_column("reason", max_width=room, no_wrap=True, overflow="ellipsis")
        cells.append([_shown(row["stop_reason"]) for row in rows])
    for line in zip(*cells, strict=True):
        # A reason is arbitrary text, never rich markup.
        table.add_row(*(Text(cell) for cell in line))
    return table


def _width(column: tuple[str, list[str], bool]) -> int:
    name, values, _ = column
    return max(map(cell_len, [name, *values])) + _GAP


def _loss(row: dict[Any, Any]) -> str:
    if not pd.isna(row["eval_loss"]):
        return loss(row["eval_loss"])
    # In brackets: not a loss at the full budget.
    return "" if pd.isna(row["last_eval_loss"]) else f"({loss(row['last_eval_loss'])})"


def _outcome(row: dict[Any, Any]) -> str:
    if not pd.isna(row["outcome"]):
        return str(row["outcome"])
    # Without an attempt no worker has had it, even where Optuna says RUNNING.
    return "running" if row["state"] == "RUNNING" and not pd.isna(row["attempt"]) else "waiting"


def _shown(value: Any) -> str:
    return "" if pd.isna(value) else value_text(value)
