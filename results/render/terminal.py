"""A verdict for the terminal."""

from __future__ import annotations

from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from files_and_text.numbers import plural, value_text
from results.text.comparisons import effect_text, word_text
from results.text.limitations import limitation_text
from results.text.rows import description
from results.text.values import shown_range
from results.text.verdict_lines import verdict_lines
from results.verdict.measure import Cost
from results.verdict.row_verdict import RowVerdict
from results.verdict.verdict import Verdict

_COLUMNS = ("row", "says", "best", "position", "log10", "costs", "trial")
_WITH_REPLICATES = ("row", "says", "best", "verdict", "effect")
_RIGHT = ("says", "best", "log10", "costs", "trial")
_WRAPPED = ("says", "effect")
_WORD_STYLES = {
    "supported": "green",
    "no_difference": "green",
    "too_high": "red",
    "too_low": "yellow",
    "not_supported": "yellow",
    "undecided": "dim",
}
_STYLES = {"inside": "green", "below": "yellow", "above": "red", "outside": "yellow"}
"""Red for above: the loss is flat below the best rate and a cliff above it."""


def render(verdict: Verdict) -> RenderableType:
    """The answer, the tested rows as a table, the stability rows, the limitations; other rows are counted."""
    parts: list[RenderableType] = [Text(line) for line in verdict_lines(verdict)]
    tested = [row for row in verdict.rows if row.is_tested]
    if tested:
        parts.append(verdict_table(verdict))
        parts.extend(Text(description(row), style="dim") for row in tested if row.row.topic == "stability")
    untested = len(verdict.rows) - len(tested)
    if untested:
        parts.append(
            Text(f"{plural(untested, 'guideline row')} not tested; verdict.md says why.", style="dim")
        )
    parts.extend(Text(f"- {limitation_text(found)}", style="dim") for found in verdict.limitations)
    return Group(*parts)


def verdict_table(verdict: Verdict) -> Table:
    """One line per tested row, narrow enough for 80 columns; verdict.md has the evidence in words."""
    table = Table(
        title=f"Guideline rows against sweep {verdict.study}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    replicated = verdict.replicates is not None
    for name in _WITH_REPLICATES if replicated else _COLUMNS:
        justify: Literal["left", "right"] = "right" if name in _RIGHT else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name not in _WRAPPED)
    for row in verdict.rows:
        if row.is_tested and row.row.topic != "stability":
            table.add_row(*_cells(row, replicated=replicated))
    return table


def _cells(row: RowVerdict, *, replicated: bool) -> tuple[str | Text, ...]:
    measured = row.measurement
    best = "" if measured.best_value is None else value_text(measured.best_value)
    if replicated:
        word = Text(word_text(row), style=_WORD_STYLES.get(row.word, ""))
        return row.row.id, shown_range(row.row), best, word, effect_text(row.comparison)
    return (
        row.row.id,
        shown_range(row.row),
        best,
        Text(measured.position, style=_STYLES.get(measured.position, "")),
        "" if measured.distance_log10 is None else f"{measured.distance_log10:.2f}",
        _share(measured.cost),
        "" if measured.cost is None else f"#{measured.cost.trial}",
    )


def _share(cost: Cost | None) -> str:
    """What the row costs in percent of the best loss; verdict.md has the loss itself."""
    if cost is None:
        return "?"
    return f"{cost.difference:+.4f}" if cost.percent is None else f"{cost.percent:+.2f}%"


def print_verdict(verdict: Verdict, console: Console | None = None) -> None:
    """Print `render` to the terminal."""
    (console or Console()).print(render(verdict))
