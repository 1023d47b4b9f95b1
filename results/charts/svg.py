"""A chart as SVG inside of a page: no script is needed, and light, dark and print have their own colors."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markupsafe import Markup, escape

from results.charts.chart import Chart, Series
from results.charts.layout.bars import PlacedBar
from results.charts.layout.clip import clipped_parts
from results.charts.layout.labels import Label
from results.charts.layout.legend import SHADE_WIDTH, LegendEntry
from results.charts.layout.marks import PlacedMark
from results.charts.layout.place import Layout, place
from results.charts.layout.sizes import NARROW, WIDE, Size
from results.charts.layout.symbols import short, symbol_path
from results.charts.styles import SHADES, STYLES

_TITLE = re.compile(r"><title>[^<]*</title></\w+>")
"""The second picture says where a text belongs, not the text again; `hover.js` takes it from the first."""


def svg(chart: Chart) -> Markup:
    """The chart at both widths, of which `page_parts.chart_css` shows the one that fits.

    The same chart gives the same bytes. All of its text is escaped.
    """
    pictures = "".join(_picture(chart, size) for size in (WIDE, NARROW))
    return Markup(f'<div class="chart" id="{escape(chart.id)}">{pictures}</div>')


def _picture(chart: Chart, size: Size) -> str:
    layout = place(chart, size)
    width, height = short(size.width), short(layout.height)
    label = escape(f"{chart.label}. {chart.caption}" if chart.caption else chart.label)
    head = f'<svg class="{size.name}" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = "".join(_parts(layout))
    shown = parts if size is WIDE else _TITLE.sub(' data-t=""/>', parts)
    return f'{head} role="img" tabindex="0" aria-label="{label}">{shown}</svg>'


def _parts(layout: Layout) -> Iterator[str]:
    """From the back to the front."""
    if layout.edge is not None:
        edge = layout.edge
        yield _shape("rect", "edge", x=edge.left, y=edge.top, width=edge.width, height=edge.height)
    yield from _bands(layout)
    yield from _axes(layout)
    yield from _guides(layout)
    yield from _strip(layout)
    for series in layout.chart.series:
        yield from _lines(layout, series)
    for bar in layout.bars:
        yield from _bar(bar)
    for leader in layout.leaders:
        yield _line(*leader.start, *leader.end, f"leader k-{leader.style}")
    for placed in (*layout.edge_marks, *layout.marks):
        yield from _mark(placed)
    for entry in layout.legend:
        yield from _entry(entry)
    names = [tick.label for tick in layout.y_ticks if tick.label is not None]
    yield from (_text(label, "halo ") for label in (*names, *layout.labels))


def _shape(name: str, kind: str, text: str = "", **attributes: float | str) -> str:
    """One element; `text` is what a pointer on it shows."""
    written = " ".join(f'{k}="{v if isinstance(v, str) else short(v)}"' for k, v in attributes.items())
    inside = f"><title>{escape(text)}</title></{name}>" if text else "/>"
    return f'<{name} class="{kind}" {written}{inside}'


def _text(label: Label, kind: str = "") -> str:
    anchor = "" if label.anchor == "start" else f' text-anchor="{label.anchor}"'
    where = f'x="{short(label.x)}" y="{short(label.y)}" font-size="{short(label.size)}"{anchor}'
    return f'<text class="{kind}t k-{label.style}" {where}>{escape(label.text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return _shape("path", kind, d=f"M{short(x1)} {short(y1)}L{short(x2)} {short(y2)}")


def _bands(layout: Layout) -> Iterator[str]:
    frame = layout.frame
    for band in layout.chart.bands:
        left, right = layout.x.clipped(band.low), layout.x.clipped(band.high)
        top = frame.top if band.y_high is None else layout.y.clipped(band.y_high)
        bottom = frame.bottom if band.y_low is None else layout.y.clipped(band.y_low)
        kind = f"{'band' if band.y_low is None else 'band box'} k-{band.style}"
        yield _shape("rect", kind, band.text, x=left, y=top, width=right - left, height=bottom - top)


def _axes(layout: Layout) -> Iterator[str]:
    frame, bottom = layout.frame, layout.bottom
    for tick in layout.y_ticks:
        if layout.chart.y.has_grid:
            yield _line(frame.left, tick.at, frame.right, tick.at, "grid")
    for tick in layout.x_ticks:
        if layout.chart.x.has_grid:
            yield _line(tick.at, frame.top, tick.at, frame.bottom, "grid")
        yield _line(tick.at, bottom, tick.at, bottom + (5 if tick.label else 3), "axis")
        if tick.label is not None:
            yield _text(tick.label)
    if layout.x_ticks:
        yield _line(frame.left, bottom, frame.right, bottom, "axis")
        yield _line(frame.left, frame.top, frame.left, frame.bottom, "axis")
    if layout.strip:
        yield _line(frame.left, frame.bottom, frame.right, frame.bottom, "grid")


def _guides(layout: Layout) -> Iterator[str]:
    """Through the frame; down to the strip's row of the same value, where there is one."""
    frame = layout.frame
    for guide in layout.chart.guides:
        if guide.side == "y":
            path = f"M{short(frame.left)} {short(layout.y.pixel(guide.at))}H{short(frame.right)}"
        else:
            placed = layout.strip.rows if layout.strip else ()
            rows = (row.y for row in placed if row.row.low == row.row.high == guide.at)
            at, below = layout.x.pixel(guide.at), next(rows, frame.bottom)
            path = f"M{short(at)} {short(frame.top)}V{short(below)}"
        yield _shape("path", f"guide k-{guide.style}", guide.text, d=path)


def _strip(layout: Layout) -> Iterator[str]:
    if layout.strip is None:
        return
    if layout.strip.title is not None:
        yield _text(layout.strip.title, "halo ")
    for placed in layout.strip.rows:
        row, width = placed.row, placed.right - placed.left
        if width < 1:
            path = symbol_path(STYLES[row.style].symbol, placed.left, placed.y, STYLES[row.style].size)
            yield _shape("path", f"m k-{row.style}", row.text, d=path)
        else:
            kind, top = f"m k-{row.style}", placed.y - 3
            yield _shape("rect", kind, row.text, x=placed.left, y=top, width=width, height=6.0, rx=3.0)
        yield _text(placed.label, "halo ")


def _lines(layout: Layout, series: Series) -> Iterator[str]:
    """Cut where they leave the frame."""
    ends = layout.chart.y.low, layout.chart.y.high
    for line in series.lines:
        parts = [
            "L".join(f"{short(layout.x.clipped(x))} {short(layout.y.pixel(y))}" for x, y in part)
            for part in clipped_parts(line.points, *ends)
        ]
        if parts:
            path = "".join(f"M{part}" for part in parts)
            yield _shape("path", f"line {series.weight} k-{series.style}", line.text, d=path)


def _bar(placed: PlacedBar) -> Iterator[str]:
    box, kind = placed.box, f"bar k-{placed.series.style}"
    yield _shape("rect", kind, placed.bar.text, x=box.left, y=box.top, width=box.width, height=box.height)
    if placed.label is not None:
        yield _text(placed.label)


def _mark(placed: PlacedMark) -> Iterator[str]:
    mark, point, style = placed.mark, placed.point, STYLES[placed.series.style]
    if (box := placed.interval) is not None:
        caps = "".join(f"M{short(box.left)} {short(end)}h{short(box.width)}" for end in (box.top, box.bottom))
        path = f"M{short(point.x)} {short(box.top)}V{short(box.bottom)}{caps}"
        yield _shape("path", f"interval k-{placed.series.style}", d=path)
    shade = "" if mark.shade is None else f" s{min(int(mark.shade * SHADES), SHADES - 1)}"
    path = symbol_path(style.symbol, point.x, point.y, point.half)
    yield _shape("path", f"{style.kind} k-{placed.series.style}{shade}", mark.text, d=path)


def _entry(entry: LegendEntry) -> Iterator[str]:
    style, x, y = STYLES[entry.style], entry.x + 7, entry.y
    if entry.kind == "shades":
        for index in range(SHADES):
            at = entry.x + index * SHADE_WIDTH
            yield _shape("rect", f"shade s{index}", x=at, y=y - 5, width=float(SHADE_WIDTH), height=10.0)
    elif entry.kind == "line":
        yield _shape("path", f"line k-{entry.style}", d=f"M{short(x - 7)} {short(y)}h14")
    elif entry.kind == "bar":
        yield _shape("rect", f"bar k-{entry.style}", x=x - 6, y=y - 5, width=12.0, height=10.0)
    else:
        path = symbol_path(style.symbol, x, y, min(style.size, 7))
        yield _shape("path", f"{style.kind} k-{entry.style}", d=path)
    yield _text(Label(text=entry.text, x=entry.text_x, y=y + 4, size=entry.size, style="ink"))
