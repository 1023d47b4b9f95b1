"""The strip below the frame: a row for each value that the tables give, on the same x axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from results.charts.chart import Chart, StripRow
from results.charts.layout.boxes import Box, text_width
from results.charts.layout.labels import Label
from results.charts.layout.scales import Scale
from results.charts.layout.sizes import Size

_ROW = 19.0
_LINE = 14.0
"""Added to a row whose label has no room beside its bar and stands above it."""


@dataclass(frozen=True, kw_only=True)
class PlacedRow:
    row: StripRow
    left: float
    right: float
    """The same as `left` for a single value."""
    y: float
    label: Label


@dataclass(frozen=True, kw_only=True)
class Strip:
    box: Box
    title: Label | None
    rows: Sequence[PlacedRow]


def place_strip(chart: Chart, size: Size, x: Scale, frame: Box) -> Strip | None:
    """None for a chart without rows."""
    if not chart.strip:
        return None
    title, top = None, frame.bottom
    if chart.strip_title:
        base = top + size.small + 3
        title = Label(text=chart.strip_title, x=frame.left + 4, y=base, size=size.small, style="soft")
        top += _ROW
    rows = []
    for row in chart.strip:
        rows.append(_placed(row, x, top, size))
        top = rows[-1].y + _ROW / 2
    return Strip(
        box=Box(left=frame.left, top=frame.bottom, right=frame.right, bottom=top + 4), title=title, rows=rows
    )


def _placed(row: StripRow, x: Scale, top: float, size: Size) -> PlacedRow:
    """The label right of the bar, else left of it, else above it."""
    left, right, y = x.clipped(row.low), x.clipped(row.high), top + _ROW / 2
    width, base = text_width(row.label, size.small), y + 0.35 * size.small
    label = Label(text=row.label, x=right + 10, y=base, size=size.small, style="table")
    if right + 10 + width > x.end:
        label = replace(label, x=left - 10, anchor="end")
        if left - 10 - width < x.start:
            middle = min(max((left + right) / 2, x.start + width / 2), x.end - width / 2)
            label, y = replace(label, x=middle, anchor="middle"), y + _LINE
    return PlacedRow(row=row, left=left, right=right, y=y, label=label)
