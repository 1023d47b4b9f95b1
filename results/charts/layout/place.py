"""A chart in a picture of a given width: every mark, line and label in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results.charts.chart import Axis, Chart, Guide, Mark, Series, StripRow, Tick
from results.charts.layout.boxes import Box, box_around, text_box, text_width
from results.charts.layout.labels import Label, along_line, beside, beside_line, best_place
from results.charts.layout.legend import ROW, LegendEntry, legend_entries
from results.charts.layout.scales import Scale, ticks_of
from results.charts.layout.sizes import Size
from results.charts.layout.spread import Point, spread
from results.charts.styles import STYLES

_STRIP_ROW, _EDGE_ROW, _EDGE_ROWS = 19.0, 12.0, 4
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


@dataclass(frozen=True, kw_only=True)
class PlacedTick:
    at: float
    """Pixel."""
    text: str
    """"" where there is no room for it."""


@dataclass(frozen=True, kw_only=True)
class PlacedRow:
    row: StripRow
    left: float
    right: float
    y: float
    label: Label | None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Pixels of one chart at one size."""

    chart: Chart
    size: Size
    height: float
    frame: Box
    edge: Box | None
    """The zone above the frame for marks without a place on the y axis."""
    strip: Box | None
    x: Scale
    y: Scale
    x_ticks: Sequence[PlacedTick]
    y_ticks: Sequence[PlacedTick]
    marks: Sequence[PlacedMark]
    edge_marks: Sequence[PlacedMark]
    rows: Sequence[PlacedRow]
    labels: Sequence[Label]
    """All text but ticks', rows' and the legend's."""
    legend: Sequence[LegendEntry]


def place(chart: Chart, size: Size) -> Layout:
    """Lay out one chart; the same chart gives the same pixels."""
    legend, legend_rows = legend_entries(chart, size)
    top: float = legend_rows * ROW + (6 if legend_rows else 0)
    titles = _top_titles(chart, size, top + size.small)
    top += size.small + 8 if titles else 0
    left = _left_margin(chart, size)
    right = size.width - 8
    edge_marks, edge_rows = _edge_marks(chart, size, Scale(axis=chart.x, start=left, end=right), top)
    edge = Box(left=left, top=top, right=right, bottom=top + edge_rows * _EDGE_ROW + 6) if edge_rows else None
    top = edge.bottom if edge else top
    frame = Box(left=left, top=top, right=right, bottom=top + round(chart.height * size.height_share))
    x = Scale(axis=chart.x, start=frame.left, end=frame.right)
    ends = (frame.top, frame.bottom) if chart.y.is_reversed else (frame.bottom, frame.top)
    y = Scale(axis=chart.y, start=ends[0], end=ends[1])
    strip, rows = _strip(chart, size, x, frame)
    below = strip.bottom if strip else frame.bottom
    x_ticks = [] if chart.is_bare else _x_ticks(chart.x, x, size)
    tick_room = size.small + 8 if any(tick.text for tick in x_ticks) else 0
    if chart.x.title:
        middle = (frame.left + frame.right) / 2
        base = below + tick_room + size.font + 4
        titles.append(
            Label(text=chart.x.title, x=middle, y=base, size=size.font, anchor="middle", style="title")
        )
        tick_room += size.font + 8
    marks = _marks(chart, size, x, y, frame)
    return Layout(
        chart=chart,
        size=size,
        height=below + tick_room + 4,
        frame=frame,
        edge=edge,
        strip=strip,
        x=x,
        y=y,
        x_ticks=x_ticks,
        y_ticks=[] if chart.is_bare else _y_ticks(chart.y, y, size, frame),
        marks=marks,
        edge_marks=edge_marks,
        rows=rows,
        labels=[*titles, *_frame_labels(chart, size, x, y, frame, marks)],
        legend=legend,
    )


def _top_titles(chart: Chart, size: Size, base: float) -> list[Label]:
    """The y axis's title lies above its end: turned text is hard to read and takes width from phones."""
    found = []
    if chart.y.title:
        found.append(Label(text=chart.y.title, x=2, y=base, size=size.font, style="title"))
    if chart.edge and chart.edge_title:
        right = Label(
            text=chart.edge_title, x=size.width - 8, y=base, size=size.small, anchor="end", style="soft"
        )
        if not any(right.box.overlaps(label.box) for label in found):
            found.append(right)
    return found


def _left_margin(chart: Chart, size: Size) -> float:
    if chart.is_bare:
        return 12
    ticks = ticks_of(chart.y, 6)
    return max([text_width(tick.text, size.small) for tick in ticks], default=0) + 14


def _half(style: str, size: Size, count: int) -> float:
    return STYLES[style].size * size.mark_share * (0.75 if count > _CROWD else 1.0)


def _edge_marks(chart: Chart, size: Size, x: Scale, top: float) -> tuple[list[PlacedMark], int]:
    """The marks and the number of rows that they take."""
    found = [(series, mark) for series in chart.edge for mark in series.marks]
    points = [
        Point(x=x.clipped(mark.x), y=top + 2 + _EDGE_ROW / 2, half=_half(series.style, size, len(found)))
        for series, mark in found
    ]
    rows = [index * _EDGE_ROW for index in range(_EDGE_ROWS)]
    inside = [_moved_inside(point, x.start, x.end) for point in points]
    placed = spread(inside, left=x.start, right=x.end, rows=rows)
    used = max(
        (round((p.y - point.y) / _EDGE_ROW) for p, point in zip(placed, points, strict=True)), default=-1
    )
    marks = [
        PlacedMark(series=series, mark=mark, point=point)
        for (series, mark), point in zip(found, placed, strict=True)
    ]
    return marks, used + 1


def _moved_inside(point: Point, left: float, right: float) -> Point:
    x = min(max(point.x, left + point.half), right - point.half)
    return Point(x=x, y=point.y, half=point.half)


def _marks(chart: Chart, size: Size, x: Scale, y: Scale, frame: Box) -> list[PlacedMark]:
    """Later series lie on top and keep their places: the best is never moved by others."""
    found = [(series, mark) for series in chart.series for mark in series.marks]
    points = [
        Point(x=x.clipped(mark.x), y=y.clipped(mark.y), half=_half(series.style, size, len(found)))
        for series, mark in found
    ]
    placed = spread(points[::-1], left=frame.left, right=frame.right)[::-1]
    per_unit = frame.height / ((chart.y.high - chart.y.low) or 1.0)
    return [
        PlacedMark(series=series, mark=mark, point=point, pixels_per_unit=per_unit)
        for (series, mark), point in zip(found, placed, strict=True)
    ]


def _x_ticks(axis: Axis, scale: Scale, size: Size) -> list[PlacedTick]:
    """Labels that would touch a neighbor or leave the picture are left out, round numbers last."""
    ticks = ticks_of(axis, int(abs(scale.end - scale.start) / 46))
    kept: list[Box] = []
    texts: dict[float, str] = {}
    for tick in sorted(ticks, key=_roundness):
        box = text_box(tick.text, scale.pixel(tick.at), 0, size.small, "middle")
        room = Box(left=box.left - 5, top=box.top, right=box.right + 5, bottom=box.bottom)
        if box.left >= 0 and box.right <= size.width and not any(room.overlaps(other) for other in kept):
            kept.append(box)
            texts[tick.at] = tick.text
    return [PlacedTick(at=scale.pixel(tick.at), text=texts.get(tick.at, "")) for tick in ticks]


def _roundness(tick: Tick) -> int:
    """Powers of ten are labeled first."""
    digits = f"{tick.at:.2e}".split("e")[0].rstrip("0").rstrip(".")
    return 0 if digits in ("1", "0") else len(digits)


def _y_ticks(axis: Axis, scale: Scale, size: Size, frame: Box) -> list[PlacedTick]:
    most = max(2, int(frame.height / 48))
    return [PlacedTick(at=scale.pixel(tick.at), text=tick.text) for tick in ticks_of(axis, most)]


def _strip(chart: Chart, size: Size, x: Scale, frame: Box) -> tuple[Box | None, list[PlacedRow]]:
    if not chart.strip:
        return None, []
    title = _STRIP_ROW if chart.strip_title else 0.0
    height = title + _STRIP_ROW * len(chart.strip) + 4
    box = Box(left=frame.left, top=frame.bottom, right=frame.right, bottom=frame.bottom + height)
    rows = []
    for index, row in enumerate(chart.strip):
        y = box.top + title + (index + 0.5) * _STRIP_ROW
        left, right = x.clipped(row.low), x.clipped(row.high)
        rows.append(
            PlacedRow(row=row, left=left, right=right, y=y, label=_row_label(row, left, right, y, size, box))
        )
    return box, rows


def _row_label(row: StripRow, left: float, right: float, y: float, size: Size, strip: Box) -> Label | None:
    """Right of the bar, else left of it, else on it."""
    base = y + 0.35 * size.small
    tried = (
        Label(text=row.label, x=right + 10, y=base, size=size.small, style="table"),
        Label(text=row.label, x=left - 10, y=base, size=size.small, anchor="end", style="table"),
        Label(text=row.label, x=(left + right) / 2, y=base, size=size.small, anchor="middle", style="table"),
        Label(text=row.label, x=strip.right - 4, y=base, size=size.small, anchor="end", style="table"),
    )
    return next((label for label in tried if label.box.is_inside(strip)), None)


def _guide_box(guide: Guide, x: Scale, y: Scale, frame: Box) -> Box:
    if guide.side == "x":
        at = x.pixel(guide.at)
        return Box(left=at - 2, top=frame.top, right=at + 2, bottom=frame.bottom)
    at = y.pixel(guide.at)
    return Box(left=frame.left, top=at - 2, right=frame.right, bottom=at + 2)


def _frame_labels(
    chart: Chart, size: Size, x: Scale, y: Scale, frame: Box, marks: Sequence[PlacedMark]
) -> list[Label]:
    """Labels of marks first, the last series' before all; then those of guides and line ends."""
    taken: list[Box] = []
    boxes = [placed.box for placed in marks] + [_guide_box(guide, x, y, frame) for guide in chart.guides]
    found: list[Label] = []

    def add(label: Label | None) -> None:
        if label is not None:
            found.append(label)
            taken.append(label.box)

    for placed in reversed(marks):
        if placed.mark.label:
            point = placed.point
            tried = beside(
                placed.mark.label,
                point.x,
                point.y,
                half=point.half,
                size=size.font,
                style=placed.series.style,
            )
            add(best_place(tried, inside=frame, taken=taken, marks=boxes))
    for series in reversed(chart.series):
        for line in series.lines:
            if line.label and line.points:
                end = (x.clipped(line.points[-1][0]), y.clipped(line.points[-1][1]))
                tried = beside(line.label, *end, half=2, size=size.font, style=series.style)
                add(best_place(tried, inside=frame, taken=taken, marks=boxes))
    for guide in chart.guides:
        if not guide.label:
            continue
        if guide.side == "y":
            tried = along_line(
                guide.label, y.pixel(guide.at), frame=frame, size=size.small, style=guide.style
            )
        else:
            tried = beside_line(
                guide.label, x.pixel(guide.at), frame=frame, size=size.small, style=guide.style
            )
        add(best_place(tried, inside=frame, taken=taken, marks=boxes))
    return found
