"""Bars on their lanes in pixels, with their labels."""

from __future__ import annotations

from dataclasses import dataclass

from results.charts.chart import Bar, Chart, Series
from results.charts.layout.boxes import Box, text_width
from results.charts.layout.labels import Label
from results.charts.layout.scales import Scale
from results.charts.layout.sizes import Size

_SHARE = 0.72
"""Of the lane's height."""


@dataclass(frozen=True, kw_only=True)
class PlacedBar:
    series: Series
    bar: Bar
    box: Box
    label: Label | None
    """None where there is no room for it."""


def placed_bars(chart: Chart, size: Size, x: Scale, y: Scale, *, has_names_above: bool) -> list[PlacedBar]:
    """All bars; a lane with its name above keeps the upper part for it."""
    if not any(series.bars for series in chart.series):
        return []
    lane = abs(y.pixel(1) - y.pixel(0))
    name = size.small + 4 if has_names_above else 0.0
    height = _SHARE * (lane - name)
    found = []
    for series in chart.series:
        for bar in series.bars:
            left, right, middle = x.clipped(bar.low), x.clipped(bar.high), y.pixel(bar.y) + name / 2
            box = Box(
                left=left, top=middle - height / 2, right=max(right, left + 0.5), bottom=middle + height / 2
            )
            found.append(PlacedBar(series=series, bar=bar, box=box, label=_label(bar, box, size.small)))
    return found


def _label(bar: Bar, box: Box, size: float) -> Label | None:
    base = (box.top + box.bottom) / 2 + 0.35 * size
    if bar.is_label_outside:
        return Label(text=bar.label, x=box.right + 6, y=base, size=size, style="ink")
    if not bar.label or text_width(bar.label, size) + 4 > box.width:
        return None
    middle = (box.left + box.right) / 2
    return Label(text=bar.label, x=middle, y=base, size=size, anchor="middle", style="onbar")
