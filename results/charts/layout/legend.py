"""The legend's entries, in rows above the frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results.charts.chart import Chart
from results.charts.layout.boxes import text_width
from results.charts.layout.sizes import Size
from results.charts.styles import SHADES

ROW = 20
SHADE_WIDTH = 7
_SYMBOL, _GAP = 18, 16


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    style: str
    kind: str
    """mark | line | bar | shades."""
    text: str
    x: float
    """Left end of the symbol."""
    y: float
    """Middle of the row."""
    size: float
    """Of the text."""

    @property
    def text_x(self) -> float:
        return self.x + _symbol_width(self.kind)


def legend_entries(chart: Chart, size: Size) -> tuple[list[LegendEntry], int]:
    """The entries in their places, and the number of rows."""
    found: list[LegendEntry] = []
    x, row = 2.0, 0
    for style, kind, text in _named(chart):
        width = _symbol_width(kind) + text_width(text, size.small)
        if found and x + width > size.width - 2:
            x, row = 2.0, row + 1
        found.append(
            LegendEntry(style=style, kind=kind, text=text, x=x, y=(row + 0.5) * ROW, size=size.small)
        )
        x += width + _GAP
    return found, row + 1 if found else 0


def _named(chart: Chart) -> Sequence[tuple[str, str, str]]:
    """Each name once, though a style may be used in several series."""
    found: dict[str, tuple[str, str, str]] = {}
    for series in (*chart.series, *chart.edge):
        if series.name:
            kind = "mark" if series.marks else "line" if series.lines else "bar"
            found.setdefault(series.name, (series.style, kind, series.name))
    if chart.shade_key:
        found["shades"] = ("best", "shades", chart.shade_key)
    return list(found.values())


def _symbol_width(kind: str) -> float:
    return 6 + SHADES * SHADE_WIDTH if kind == "shades" else _SYMBOL
