"""Marks in pixels: those of the frame, and those along the top edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results.charts.chart import Chart, Mark, Series
from results.charts.layout.boxes import Box, box_around
from results.charts.layout.scales import Scale
from results.charts.layout.sizes import Size
from results.charts.layout.spread import Point, spread
from results.charts.styles import STYLES

EDGE_ROW = 12.0
_EDGE_ROWS = 4
_CROWD = 80
"""With more marks than this they are drawn smaller."""


@dataclass(frozen=True, kw_only=True)
class PlacedMark:
    series: Series
    mark: Mark
    point: Point
    pixels_per_unit: float = 0.0
    """Of the y axis, to draw an interval around a mark."""

    @property
    def box(self) -> Box:
        return box_around(self.point.x, self.point.y, self.point.half)

    @property
    def interval(self) -> Box | None:
        """The error bar; None without one."""
        low, high, y = self.mark.low, self.mark.high, self.mark.y
        if low is None or high is None:
            return None
        top, bottom = (self.point.y + self.pixels_per_unit * (y - end) for end in (high, low))
        return Box(left=self.point.x - 5, top=top, right=self.point.x + 5, bottom=bottom)


def edge_marks(chart: Chart, size: Size, x: Scale, top: float) -> tuple[list[PlacedMark], int]:
    """The marks of the top edge, and the number of rows that they take."""
    found = [(series, mark) for series in chart.edge for mark in series.marks]
    points = []
    for series, mark in found:
        half = _half(series.style, size, len(found))
        inside = min(max(x.clipped(mark.x), x.start + half), x.end - half)
        points.append(Point(x=inside, y=top + 3 + EDGE_ROW / 2, half=half))
    placed = spread(points, left=x.start, right=x.end, rows=[index * EDGE_ROW for index in range(_EDGE_ROWS)])
    moves = [round((p.y - point.y) / EDGE_ROW) for p, point in zip(placed, points, strict=True)]
    return _paired(found, placed), max(moves, default=-1) + 1


def frame_marks(chart: Chart, size: Size, x: Scale, y: Scale, frame: Box) -> list[PlacedMark]:
    """The marks of the frame. Later series lie on top and keep their places: the best is not moved."""
    found = [(series, mark) for series in chart.series for mark in series.marks]
    points = [
        Point(x=x.clipped(mark.x), y=y.clipped(mark.y), half=_half(series.style, size, len(found)))
        for series, mark in found
    ]
    if chart.is_spread:
        points = spread(points[::-1], left=frame.left, right=frame.right)[::-1]
    return _paired(found, points, frame.height / ((chart.y.high - chart.y.low) or 1.0))


def _half(style: str, size: Size, count: int) -> float:
    return STYLES[style].size * size.mark_share * (0.75 if count > _CROWD else 1.0)


def _paired(
    found: Sequence[tuple[Series, Mark]], points: Sequence[Point], per_unit: float = 0.0
) -> list[PlacedMark]:
    return [
        PlacedMark(series=series, mark=mark, point=point, pixels_per_unit=per_unit)
        for (series, mark), point in zip(found, points, strict=True)
    ]
