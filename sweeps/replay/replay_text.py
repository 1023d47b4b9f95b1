"""A replay as text for the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from sweeps.console import say
from sweeps.replay.comparison import ComparedValue, Replay

SHOWN = ("eval_loss", "base_eval_loss", "train_loss", "grad_norm", "metric", "adapter_sha256", "adapter file")
"""Values with a line of their own; the others only where they differ."""
DIGITS = 12
"""Of a digest."""


def print_replay(replay: Replay, console: Console) -> None:
    """A line for each value, notes, and whether all bits are equal."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("report", "value", "recorded", "found", ""):
        table.add_column(heading, no_wrap=True, justify="right" if heading == "report" else "left")
    for value in replay.values:
        if value.name in SHOWN or not value.is_equal:
            equal = "equal" if value.is_equal else "[red]different[/red]"
            table.add_row(f"{value.percent}%", value.name, shown(value.recorded), shown(value.found), equal)
    console.print(table)
    for note in replay.notes:
        say(console, note, style="dim")
    say(console, summary(replay), style="green" if replay.is_equal else "red")


def summary(replay: Replay) -> str:
    """One sentence: equal, or the first value that differs, with both in full; and what was not compared."""
    lacking = f"; not in the record, so not compared: {', '.join(replay.lacking)}" if replay.lacking else ""
    if (first := replay.first_difference) is None:
        count, percent = len(replay.values), replay.last_percent
        return (
            f"trial {replay.number}: all {count} recorded values up to {percent}% of the budget are equal, "
            f"bit by bit{lacking}"
        )
    return (
        f"trial {replay.number} differs first at {first.percent}% of the budget: {first.name} was recorded "
        f"as {_exactly(first, first.recorded)} ({first.source}), found {_exactly(first, first.found)}"
        f"{lacking}"
    )


def _exactly(value: ComparedValue, one: Any) -> str:
    """A number with its bits where a decimal may hide them."""
    is_float = isinstance(one, float) and isinstance(value.found, float)
    return f"{one!r} ({one.hex()})" if is_float else repr(one)


def shown(value: Any) -> str:
    """A value for the table: numbers in full, digests by their first digits."""
    return f"{value[:DIGITS]}..." if isinstance(value, str) else repr(value)
