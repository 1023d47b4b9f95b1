"""A verdict for the terminal."""

from __future__ import annotations

from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from files_and_text.numbers import plural
from results.render.markdown import answer_lines
from results.verdict.claim_wording import effect_text, word_text
from results.verdict.conditions import show, shown_range
from results.verdict.row_verdict import RowVerdict
from results.verdict.verdict import Verdict

_COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("row", "left"),
    ("says", "right"),
    ("best", "right"),
    ("position", "left"),
    ("log10", "right"),
    ("costs", "right"),
    ("trial", "right"),
)
_WITH_REPLICATES: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("row", "left"),
    ("says", "right"),
    ("best", "right"),
    ("verdict", "left"),
    ("effect", "left"),
)
_WORD_STYLES = {
    "supported": "green",
    "no_difference": "green",
    "too_high": "red",
    "too_low": "yellow",
    "not_supported": "yellow",
    "undecided": "dim",
}
_STYLES = {"inside": "green", "below": "yellow", "above": "red", "outside": "yellow"}
"""Above stands out: the loss is flat to the left of the best rate and a cliff to its right."""


def render(verdict: Verdict) -> RenderableType:
    """The answer, the tested rows as a table, the signs of instability, the limits; the rest is counted."""
    parts: list[RenderableType] = [Text(line) for line in answer_lines(verdict)]
    tested = [row for row in verdict.rows if row.is_tested]
    if tested:
        parts.append(verdict_table(verdict))
        parts.extend(Text(row.claim, style="dim") for row in tested if row.row.topic == "stability")
    untested = len(verdict.rows) - len(tested)
    if untested:
        parts.append(
            Text(f"{plural(untested, 'guideline row')} not tested; verdict.md says why.", style="dim")
        )
    parts.extend(Text(f"- {caveat}", style="dim") for caveat in verdict.caveats)
    return Group(*parts)


def verdict_table(verdict: Verdict) -> Table:
    """One line per tested row, narrow enough for 80 columns; verdict.md holds the evidence in words."""
    table = Table(
        title=f"Guideline rows against sweep {verdict.study}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    replicated = verdict.replicates is not None
    for name, justify in _WITH_REPLICATES if replicated else _COLUMNS:
        wraps = name in ("says", "effect")
        table.add_column(name, justify=justify, overflow="fold", no_wrap=not wraps)
    for row in verdict.rows:
        if row.is_tested and row.row.topic != "stability":
            table.add_row(*(_replicated_cells(row) if replicated else _cells(row)))
    return table


def _cells(row: RowVerdict) -> tuple[str | Text, ...]:
    return (
        row.row.id,
        shown_range(row.row),
        "" if row.best_value is None else show(row.best_value),
        Text(row.position, style=_STYLES.get(row.position, "")),
        "" if row.distance_log10 is None else f"{row.distance_log10:.2f}",
        _share(row),
        "" if row.cost is None else f"#{row.cost.trial}",
    )


def _replicated_cells(row: RowVerdict) -> tuple[str | Text, ...]:
    return (
        row.row.id,
        shown_range(row.row),
        "" if row.best_value is None else show(row.best_value),
        Text(word_text(row), style=_WORD_STYLES.get(row.verdict, "")),
        effect_text(row.comparison),
    )


def _share(row: RowVerdict) -> str:
    """What the row costs in percent of the best loss; the loss itself stands in verdict.md."""
    if row.cost is None:
        return "?"
    return f"{row.cost.difference:+.4f}" if row.cost.percent is None else f"{row.cost.percent:+.2f}%"


def print_verdict(verdict: Verdict, console: Console | None = None) -> None:
    """Print `render` to the terminal."""
    (console or Console()).print(render(verdict))
