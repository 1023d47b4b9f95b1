"""Trials as a table for the terminal, best first: everything that was searched, at any width it fits in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich.cells import cell_len
from rich.text import Text

from files_and_text.numbers import share_text, value_text, warmup_text
from results.answer.answer import Answer
from results.parameter_order import SHORT_NAMES
from results.stored_trials import FROZEN
from results.tables import parameters_of
from results.text.gaps import loss_text, short_loss

_SHORT_SCHEDULERS = {
    "constant_with_warmup": "const_wu",
    "cosine_with_min_lr": "cos_min",
    "warmup_stable_decay": "wsd",
    "inverse_sqrt": "inv_sqrt",
}
_SHORT_OUTCOMES = {"complete": "done", "out_of_memory": "no memory"}
_PARTIAL = "In brackets: the loss before the end of the training."
_KEPT = "Frozen trials are kept on disk and may go on: `sweeps status` says when."
_TOLD = ("failed", "out_of_memory", "diverged")
"""Outcomes whose reason is told beneath the table."""
_MOST_TOLD = 5
_REASON_WIDTH = 24
"""A reason with less room than this has no column."""


class _Column(NamedTuple):
    name: str
    cells: list[str]
    is_number: bool = True

    @property
    def width(self) -> int:
        return max(map(cell_len, [self.name, *self.cells]))


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """A `trials_frame`, best first: by the loss at the full budget, then by how far a trial got and its loss
    there; running and waiting ones without a report come last."""
    return frame.sort_values(
        ["eval_loss", "last_percent", "last_eval_loss", "number"],
        ascending=[True, False, True, True],
        na_position="last",
        kind="stable",
    ).reset_index(drop=True)


def seeds_note(answer: Answer) -> str:
    """What the losses of the table, each of one run, are on new seeds; "" before a confirmation."""
    if not answer.seeds or answer.best is None:
        return ""
    text = (
        f"Each loss is of one run. On new seeds trial {answer.best.trial} has {loss_text(answer.best.loss)}"
    )
    default = answer.default
    if default.loss is None or not default.loss.seeds or default.trial == answer.best.trial:
        return f"{text}."
    return f"{text}, the guideline default {loss_text(default.loss)}."


def trials_table(frame: pd.DataFrame, *, width: int) -> list[Text]:
    """The rows of a `trials_frame`, in their order, as lines; beneath it what brackets mean and why trials
    failed.

    Trial, evaluation loss (nats per token), the sweep's metric if it has one, outcome, and everything that
    was searched; full names where all of them fit into `width` cells, else short ones. What still does not
    fit is named beneath.
    """
    rows: list[dict[Any, Any]] = frame.to_dict("records")
    if not rows:
        return [Text("No trial yet.")]
    full, short = _columns(frame, rows, is_short=False), _columns(frame, rows, is_short=True)
    columns, gap = next(
        (
            (columns, gap)
            for columns, gap in ((full, 2), (short, 2), (short, 1))
            if _width(columns, gap) <= width
        ),
        (short, 1),
    )
    left_out: list[str] = []
    while len(columns) > 3 and _width(columns, gap) > width:
        left_out.insert(0, columns[-1].name)
        columns = columns[:-1]
    reasons = [_shown(row["stop_reason"]) for row in rows]
    room = width - _width(columns, gap) - gap
    has_reasons = columns[-1] is full[-1] and room >= _REASON_WIDTH and any(reasons)
    if has_reasons:
        columns = [*columns, _Column("reason", [_cut(reason, room) for reason in reasons], is_number=False)]
    notes = _notes(rows, left_out, width, with_reasons=not has_reasons)
    return [*_lines(columns, gap), *(Text(note, style="dim") for note in notes)]


def _columns(frame: pd.DataFrame, rows: Sequence[dict[Any, Any]], *, is_short: bool) -> list[_Column]:
    def name_of(name: str) -> str:
        return SHORT_NAMES.get(name, name.removeprefix("lora_")) if is_short else name

    columns = [
        _Column("trial", [str(row["number"]) for row in rows]),
        _Column("loss" if is_short else "eval_loss", [_loss(row) for row in rows]),
    ]
    if "metric" in frame:
        columns.append(_Column("metric", [_shown(row["metric"]) for row in rows]))
    columns.append(_Column("outcome", [_outcome(row, is_short=is_short) for row in rows], is_number=False))
    for name, cell in _searched(frame, is_short=is_short):
        cells = [cell(row) for row in rows]
        if any(cells):
            columns.append(_Column(name_of(name), cells, is_number=name != "lr_scheduler_type"))
    return columns


def _searched(frame: pd.DataFrame, *, is_short: bool) -> list[tuple[str, Callable[[dict[Any, Any]], str]]]:
    """Names and how to show a row's value: rates first, the ratio as the embeddings' rate where it is
    narrow."""
    names = parameters_of(frame)
    found: list[tuple[str, Callable[[dict[Any, Any]], str]]] = []
    order = {name: index for index, name in enumerate(SHORT_NAMES)}
    for name in sorted(names, key=lambda name: order.get(name, len(order))):
        if name == "embedding_lr_ratio":
            found.append(("embedding_learning_rate", _of("embedding_learning_rate")))
            if is_short:
                continue
        if name == "warmup_ratio":
            found.append((name, lambda row: _warmup(row, is_short=is_short)))
        elif name == "lr_scheduler_type" and is_short:
            found.append((name, _short_scheduler))
        else:
            found.append((name, _of(name)))
    return found


def _of(name: str) -> Callable[[dict[Any, Any]], str]:
    return lambda row: _shown(row[name])


def _short_scheduler(row: dict[Any, Any]) -> str:
    name = _shown(row["lr_scheduler_type"])
    return _SHORT_SCHEDULERS.get(name, name)


def _warmup(row: dict[Any, Any], *, is_short: bool) -> str:
    """`37%`, or `15 steps (37%)`; `1 step` where the share is of less than one."""
    ratio, steps = row["warmup_ratio"], row.get("warmup_steps")
    if pd.isna(ratio):
        return ""
    if pd.isna(steps) or (is_short and steps > 1):
        return share_text(float(ratio))
    return warmup_text(float(ratio), float(steps))


def _width(columns: Sequence[_Column], gap: int) -> int:
    return sum(column.width for column in columns) + gap * (len(columns) - 1)


def _lines(columns: Sequence[_Column], gap: int) -> list[Text]:
    lines = [[column.name for column in columns]]
    lines += [list(cells) for cells in zip(*(column.cells for column in columns), strict=True)]
    found = []
    for number, cells in enumerate(lines):
        parts = []
        for column, cell in zip(columns, cells, strict=True):
            space = " " * (column.width - cell_len(cell))
            parts.append(space + cell if column.is_number else cell + space)
        # A reason is arbitrary text, never markup.
        found.append(Text((" " * gap).join(parts).rstrip(), style="bold" if number == 0 else ""))
    return found


def _notes(
    rows: Sequence[dict[Any, Any]], left_out: Sequence[str], width: int, *, with_reasons: bool
) -> list[str]:
    notes = []
    if any(pd.isna(row["eval_loss"]) and not pd.isna(row["last_eval_loss"]) for row in rows):
        notes.append(_cut(_PARTIAL, width))
    if any(row["outcome"] == FROZEN for row in rows):
        notes.append(_cut(_KEPT, width))
    if left_out:
        notes.append(_cut(f"No room for {', '.join(left_out)}: a wider terminal, or --csv.", width))
    told = [row for row in rows if row["outcome"] in _TOLD and _shown(row["stop_reason"])]
    if with_reasons:
        for row in told[:_MOST_TOLD]:
            notes.append(_cut(f"trial {row['number']}: {_shown(row['stop_reason'])}", width))
        if len(told) > _MOST_TOLD:
            notes.append(f"and {len(told) - _MOST_TOLD} more: --csv")
    return notes


def _cut(text: str, width: int) -> str:
    """One line of at most `width` cells; what is left out is in the middle."""
    line = " ".join(text.split())
    if cell_len(line) <= width:
        return line
    head = max((width - 1) // 2, 1)
    return f"{line[:head]}…{line[len(line) - (width - 1 - head) :]}"


def _loss(row: dict[Any, Any]) -> str:
    if not pd.isna(row["eval_loss"]):
        return short_loss(row["eval_loss"])
    # In brackets: not a loss at the full budget.
    return "" if pd.isna(row["last_eval_loss"]) else f"({short_loss(row['last_eval_loss'])})"


def _outcome(row: dict[Any, Any], *, is_short: bool) -> str:
    """`complete`, `pruned at 40%`, `running at 20%`; `done`, `pruned 40%` where it is narrow."""
    if not pd.isna(row["outcome"]):
        said = str(row["outcome"])
    else:
        # Without an attempt no worker has had it, even where Optuna says RUNNING.
        said = "running" if row["state"] == "RUNNING" and not pd.isna(row["attempt"]) else "waiting"
    percent = row["last_percent"]
    at = "" if pd.isna(percent) or said in ("complete", "waiting") else f" {percent}%"
    if is_short:
        return _SHORT_OUTCOMES.get(said, said) + at
    return said.replace("_", " ") + at.replace(" ", " at ")


def _shown(value: Any) -> str:
    return "" if pd.isna(value) else value_text(value)
