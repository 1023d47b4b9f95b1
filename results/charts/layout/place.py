"""A chart in a picture of a given width: every mark, line and label in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from results.charts.chart import Chart, Guide
from results.charts.layout.bars import PlacedBar, placed_bars
from results.charts.layout.boxes import Box, text_width
from results.charts.layout.labels import Label, along_line, beside, beside_line, best_place, moved_apart
from results.charts.layout.legend import ROW, LegendEntry, legend_entries
from results.charts.layout.marks import EDGE_ROW, PlacedMark, edge_marks, frame_marks
from results.charts.layout.scales import Scale
from results.charts.layout.sizes import Size
from results.charts.layout.strip import Strip, place_strip
from results.charts.layout.ticks import PlacedTick, are_names_above, left_margin, x_ticks, y_ticks

_APART = 10
"""Pixels between a mark and its label from which on a line joins them."""


@dataclass(frozen=True, kw_only=True)
class Leader:
    """A thin line from a mark to its label, where that stands apart from it."""

    start: tuple[float, float]
    end: tuple[float, float]
    style: str


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Pixels of one chart at one size."""

    chart: Chart
    size: Size
    height: float
    frame: Box
    edge: Box | None
    """The zone above the frame for marks without a place on the y axis."""
    strip: Strip | None
    x: Scale
    y: Scale
    x_ticks: Sequence[PlacedTick]
    y_ticks: Sequence[PlacedTick]
    marks: Sequence[PlacedMark]
    bars: Sequence[PlacedBar]
    edge_marks: Sequence[PlacedMark]
    labels: Sequence[Label]
    """All text but ticks', rows' and the legend's."""
    leaders: Sequence[Leader]
    legend: Sequence[LegendEntry]

    @property
    def bottom(self) -> float:
        """Where the x axis lies."""
        return self.frame.bottom if self.strip is None else self.strip.box.bottom


def place(chart: Chart, size: Size) -> Layout:
    """Lay out one chart; the same chart gives the same pixels."""
    legend, legend_rows = legend_entries(chart, size)
    top: float = legend_rows * ROW + (6 if legend_rows else 0)
    titles = _top_titles(chart, size, top + size.small)
    top += size.small + 8 if titles else 0
    height = round(chart.height * size.height_share)
    left, right = left_margin(chart.y, size, height), size.width - 8 - _right_margin(chart, size)
    x = Scale(axis=chart.x, start=left, end=right)
    on_edge, edge_rows = edge_marks(chart, size, x, top)
    edge = None
    if edge_rows:
        edge = Box(left=x.start, top=top, right=x.end, bottom=top + edge_rows * EDGE_ROW + 6)
        top = edge.bottom
    frame = Box(left=x.start, top=top, right=x.end, bottom=top + height)
    ends = (frame.top, frame.bottom) if chart.y.is_reversed else (frame.bottom, frame.top)
    y = Scale(axis=chart.y, start=ends[0], end=ends[1])
    strip = place_strip(chart, size, x, frame)
    bottom = strip.box.bottom if strip else frame.bottom
    ticks = x_ticks(chart.x, x, size, bottom)
    end = bottom + (size.small + 8 if any(tick.label for tick in ticks) else 0)
    if chart.x.title:
        end += size.font + 4
        middle = (frame.left + frame.right) / 2
        title = Label(text=chart.x.title, x=middle, y=end, size=size.font, anchor="middle", style="title")
        titles.append(title)
    marks = frame_marks(chart, size, x, y, frame)
    labels, leaders = _frame_labels(chart, size, x, y, frame, marks)
    return Layout(
        chart=chart,
        size=size,
        height=end + 6,
        frame=frame,
        edge=edge,
        strip=strip,
        x=x,
        y=y,
        x_ticks=ticks,
        y_ticks=y_ticks(chart.y, y, size, frame),
        marks=marks,
        bars=placed_bars(chart, size, x, y, has_names_above=are_names_above(chart.y, size, height)),
        edge_marks=on_edge,
        labels=[
            *titles,
            *labels,
            *_end_labels(chart, size, y, frame),
            *_notes(chart, size, x, y),
        ],
        leaders=leaders,
        legend=legend,
    )


def _top_titles(chart: Chart, size: Size, base: float) -> list[Label]:
    """The y axis's title lies above its end: turned text is hard to read and takes width from phones."""
    found = []
    if chart.y.title:
        found.append(Label(text=chart.y.title, x=2, y=base, size=size.font, style="title"))
    if chart.edge and chart.edge_title:
        end = size.width - 8
        edge = Label(text=chart.edge_title, x=end, y=base, size=size.small, anchor="end", style="soft")
        if not any(edge.box.overlaps(label.box) for label in found):
            found.append(edge)
    return found


def _right_margin(chart: Chart, size: Size) -> float:
    """Room for the labels of lines at their ends."""
    lines = [line.label for series in chart.series for line in series.lines if line.label]
    bars = [bar.label for series in chart.series for bar in series.bars if bar.is_label_outside]
    return max((text_width(label, size.small) + 8 for label in (*lines, *bars)), default=0.0)


def _frame_labels(
    chart: Chart, size: Size, x: Scale, y: Scale, frame: Box, marks: Sequence[PlacedMark]
) -> tuple[list[Label], list[Leader]]:
    """Labels of marks first, the last series' before all, then those of guides."""
    boxes = [placed.box for placed in marks] + [_guide_box(guide, x, y, frame) for guide in chart.guides]
    boxes += [placed.interval for placed in marks if placed.interval is not None]
    found: list[Label] = []
    leaders: list[Leader] = []

    def add(tried: Sequence[Label]) -> Label | None:
        taken = [label.box for label in found]
        label = best_place(tried, inside=frame, taken=taken, marks=boxes)
        found.extend([label] if label is not None else [])
        return label

    for placed in reversed(marks):
        if text := placed.mark.label:
            point, style = placed.point, placed.series.style
            tried = [
                label
                for shown in dict.fromkeys((text, placed.mark.short_label or text))
                for label in beside(shown, point.x, point.y, half=point.half, size=size.font, style=style)
            ]
            leader = _leader(placed, add(tried))
            leaders += [leader] if leader is not None else []
    for guide in chart.guides:
        if not guide.label:
            continue
        look = {"frame": frame, "size": size.small, "style": guide.style}
        if guide.side == "y":
            add(list(along_line(guide.label, y.pixel(guide.at), **look)))  # type: ignore[arg-type]
        else:
            add(list(beside_line(guide.label, x.pixel(guide.at), **look)))  # type: ignore[arg-type]
    return found, leaders


def _leader(placed: PlacedMark, label: Label | None) -> Leader | None:
    if label is None:
        return None
    point, box = placed.point, label.box
    x, y = min(max(point.x, box.left), box.right), min(max(point.y, box.top), box.bottom)
    away = math.hypot(x - point.x, y - point.y)
    if away < point.half + _APART:
        return None
    share = point.half / away
    start = point.x + share * (x - point.x), point.y + share * (y - point.y)
    return Leader(start=start, end=(x, y), style=placed.series.style)


def _guide_box(guide: Guide, x: Scale, y: Scale, frame: Box) -> Box:
    if guide.side == "x":
        at = x.pixel(guide.at)
        return Box(left=at - 2, top=frame.top, right=at + 2, bottom=frame.bottom)
    at = y.pixel(guide.at)
    return Box(left=frame.left, top=at - 2, right=frame.right, bottom=at + 2)


def _end_labels(chart: Chart, size: Size, y: Scale, frame: Box) -> list[Label]:
    """Right of the frame, each at the end of its line as far as its neighbors allow."""
    ends = [
        (y.clipped(line.points[-1][1]), line.label, series.style)
        for series in chart.series
        for line in series.lines
        if line.label and line.points
    ]
    ends.sort(key=lambda end: end[0])
    step = 1.3 * size.small
    heights = moved_apart([end[0] for end in ends], step=step, low=frame.top + step / 2, high=frame.bottom)
    return [
        Label(text=text, x=frame.right + 6, y=at + 0.35 * size.small, size=size.small, style=style)
        for at, (_, text, style) in zip(heights, ends, strict=True)
    ]


def _notes(chart: Chart, size: Size, x: Scale, y: Scale) -> list[Label]:
    """Below their points; those at an end of the axis reach inwards."""
    found = []
    for note in chart.notes:
        at, base = x.pixel(note.x), y.pixel(note.y) + size.small + 4
        half = text_width(note.text, size.small) / 2
        middle = min(max(at, x.start + half - 4), x.end - half + 4)
        found.append(Label(text=note.text, x=middle, y=base, size=size.small, anchor="middle", style="soft"))
    return found
