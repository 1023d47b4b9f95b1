"""The strip below the frame: a row for each value that the tables give, on the same x axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results.charts.chart import Chart, StripRow
from results.charts.layout.boxes import Box
from results.charts.layout.labels import Label
from results.charts.layout.scales import Scale
from results.charts.layout.sizes import Size

_ROW = 19.0


@dataclass(frozen=True, kw_only=True)
class PlacedRow:
    row: StripRow
    left: float
    right: float
    """The same as `left` for a single value."""
    y: float
    label: Label | None


@dataclass(frozen=True, kw_only=True)
class Strip:
    box: Box
    title: Label | None
    rows: Sequence[PlacedRow]


def place_strip(chart: Chart, size: Size, x: Scale, frame: Box) -> Strip | None:
    """None for a chart without rows."""
    if not chart.strip:
        return None
    head = _ROW if chart.strip_title else 0.0
    bottom = frame.bottom + head + _ROW * len(chart.strip) + 4
    box = Box(left=frame.left, top=frame.bottom, right=frame.right, bottom=bottom)
    title = None
    if chart.strip_title:
        base = box.top + size.small + 3
        title = Label(text=chart.strip_title, x=box.left + 4, y=base, size=size.small, style="soft")
    middles = [box.top + head + (index + 0.5) * _ROW for index in range(len(chart.strip))]
    rows = [_placed(row, x, y, size, box) for row, y in zip(chart.strip, middles, strict=True)]
    return Strip(box=box, title=title, rows=rows)


def _placed(row: StripRow, x: Scale, y: float, size: Size, strip: Box) -> PlacedRow:
    """The label right of the bar, else left of it, else on it."""
    left, right, base = x.clipped(row.low), x.clipped(row.high), y + 0.35 * size.small
    common = {"text": row.label, "y": base, "size": size.small, "style": "table"}
    tried = (
        Label(x=right + 10, **common),  # type: ignore[arg-type]
        Label(x=left - 10, anchor="end", **common),  # type: ignore[arg-type]
        Label(x=(left + right) / 2, anchor="middle", **common),  # type: ignore[arg-type]
        Label(x=strip.right - 4, anchor="end", **common),  # type: ignore[arg-type]
    )
    label = next((label for label in tried if label.box.is_inside(strip)), None)
    return PlacedRow(row=row, left=left, right=right, y=y, label=label)
