"""The tables of a plan: the search space, where its ranges come from, and the first trials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from files_and_text.numbers import number, value_text
from search_spaces import Dimension
from search_spaces.search_space import FirstTrial


def rows(name: str, lines: Sequence[str | Text]) -> list[tuple[str, str | Text]]:
    """`name` beside the first line only."""
    return [("" if index else name, line) for index, line in enumerate(lines)]


def two_columns(*cells: tuple[str, str | Text]) -> Table:
    """Names and what is said of them, wrapped beside the names."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in cells:
        # As Text: names of folders and models may hold brackets, which rich would read as markup.
        table.add_row(name, Text(value) if isinstance(value, str) else value)
    return table


def space_table(dimensions: Iterable[Dimension]) -> Table:
    """One line per dimension: the range searched, the tables' range, and the default."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
    table.add_column("searched", no_wrap=True)
    for name in ("range", "tables say", "default"):
        table.add_column(name)
    for d in dimensions:
        says = ", ".join(d.guideline_choices) if d.choices else _range(d.guideline_low, d.guideline_high)
        searched = ", ".join(map(str, d.choices)) if d.choices else _range(d.low, d.high, log=d.log)
        table.add_row(d.name, searched, says, value_text(d.default))
    return table


def _range(low: float | None, high: float | None, *, log: bool = False) -> str:
    if low is None or high is None:
        return ""
    return number(low) if low == high else f"{number(low)} .. {number(high)}" + (" (log)" if log else "")


def sources(dimensions: Iterable[Dimension]) -> Table:
    """The rows that each range came from, its condition and its note."""
    cells = []
    for d in dimensions:
        parts = [", ".join(d.rows) or "no row: the documents are silent"]
        if d.active_when:
            parts.append(f"only where {d.active_when[0]} is {' or '.join(map(str, d.active_when[1]))}")
        cells.append((d.name, "; ".join([*parts, *([d.note] if d.note else [])])))
    return two_columns(*cells)


def first_trials_table(planned: Sequence[FirstTrial]) -> Table:
    """The tables' own values in the order in which they run; after the first, only what differs from it."""
    first, *others = planned
    cells = [("0", f"{first.label}: " + ", ".join(f"{k} {value_text(v)}" for k, v in first.params.items()))]
    for index, other in enumerate(others, start=1):
        changed = {name: value for name, value in other.params.items() if first.params.get(name) != value}
        # The label names one difference and its row; what had to change with it follows.
        more = [f"{k} {value_text(v)}" for k, v in changed.items() if not other.label.startswith(f"{k} ")]
        cells.append((str(index), "; ".join([other.label, *more])))
    return two_columns(*cells)
