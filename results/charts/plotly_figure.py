"""A chart as a plotly figure, for Python and notebooks; only here is plotly imported, when asked for."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from results.charts.chart import Axis, Chart, Mark, Series
from results.charts.layout.scales import ticks_of
from results.charts.styles import SHADES_LIGHT, STYLES, Style

_SYMBOLS = {
    "circle": "circle",
    "square": "square",
    "diamond": "diamond",
    "triangle_up": "triangle-up",
    "triangle_down": "triangle-down",
    "pentagon": "pentagon",
    "hexagon": "hexagon",
    "plus": "cross",
    "cross": "x-thin",
    "arrow": "arrow-up",
    "star": "star",
}
_FRAME_TOP = 0.9
"""Where the frame ends below the marks of the top edge, as a share of the picture's height."""
_MOST_TICKS = 9
_WIDTHS = {"faint": 1.0, "light": 1.0, "normal": 1.6, "strong": 3.0}


def figure(chart: Chart) -> Any:
    """A `plotly.graph_objects.Figure` of the chart. All text of the study is escaped: plotly reads HTML."""
    import plotly.graph_objects as go

    made = go.Figure()
    for trace in _traces(chart, go):
        made.add_trace(trace)
    made.update_layout(
        title={"text": _escaped(chart.title)},
        template="plotly_white",
        barmode="overlay",
        hovermode="closest",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        height=chart.height + 200 + 22 * len(chart.strip),
        xaxis=_axis(chart.x) | {"anchor": "y2" if chart.strip else "y"},
        yaxis=_axis(chart.y) | {"domain": [_strip_share(chart), _FRAME_TOP if chart.edge else 1.0]},
        shapes=list(_shapes(chart)),
        annotations=list(_annotations(chart)),
    )
    if any(line.label for series in chart.series for line in series.lines):
        made.update_layout(margin={"r": 110})
    if chart.edge:
        made.update_layout(
            yaxis3={"visible": False, "fixedrange": True, "range": [0, 1], "domain": [_FRAME_TOP + 0.01, 1.0]}
        )
    if chart.strip:
        rows = len(chart.strip)
        hidden = {"visible": False, "fixedrange": True, "range": [rows - 0.4, -0.6]}
        made.update_layout(yaxis2=hidden | {"domain": [0.0, _strip_share(chart) - 0.03]})
    return made


def _escaped(text: str) -> str:
    return html.escape(text, quote=False).replace("\n", "<br>")


def _strip_share(chart: Chart) -> float:
    strip = 22 * len(chart.strip)
    return strip / (chart.height + strip) + 0.03 if strip else 0.0


def _axis(axis: Axis) -> dict[str, Any]:
    ends = [math.log10(axis.low), math.log10(axis.high)] if axis.is_log else [axis.low, axis.high]
    found: dict[str, Any] = {
        "title": {"text": _escaped(axis.title)},
        "type": "log" if axis.is_log else "linear",
        "range": ends[::-1] if axis.is_reversed else ends,
        "zeroline": False,
        "showgrid": axis.has_grid,
    }
    if axis.ticks is not None or axis.is_log:
        ticks = ticks_of(axis, _MOST_TICKS)
        found |= {
            "tickvals": [tick.at for tick in ticks],
            "ticktext": [_escaped(tick.text) for tick in ticks],
        }
    return found


def _traces(chart: Chart, go: Any) -> Iterator[Any]:
    for series in chart.series:
        if series.bars:
            yield _bars(series, go)
        if series.lines:
            yield _lines(series, go)
        if series.marks:
            yield _marks(series, go, chart)
    seen: Counter[float] = Counter()
    for series in chart.edge:
        # Below each other where several have the same value.
        heights = [0.9 - 0.2 * (seen.update([mark.x]) or (seen[mark.x] - 1) % 5) for mark in series.marks]
        yield _marks(series, go, chart, y=heights, yaxis="y3")
    for index, row in enumerate(chart.strip):
        style = STYLES[row.style]
        is_point = row.low == row.high
        yield go.Scatter(
            x=[row.low] if is_point else [row.low, row.high],
            y=[index] if is_point else [index, index],
            yaxis="y2",
            mode="markers+text" if is_point else "lines+text",
            text=[f"  {_escaped(row.label)}"] if is_point else ["", f"  {_escaped(row.label)}"],
            textposition="middle right",
            textfont={"color": style.light},
            marker={"color": style.light, "symbol": _SYMBOLS[style.symbol], "size": 9},
            line={"color": style.light, "width": 5},
            hoverinfo="text",
            hovertext=_escaped(row.text),
            showlegend=False,
            cliponaxis=False,
        )


def _named(series: Series) -> dict[str, Any]:
    return {"name": _escaped(series.name), "showlegend": bool(series.name), "hoverinfo": "text"}


def _marks(
    series: Series, go: Any, chart: Chart, *, y: Sequence[float] | None = None, yaxis: str = "y"
) -> Any:
    style, marks = STYLES[series.style], series.marks
    return go.Scatter(
        x=[mark.x for mark in marks],
        y=[mark.y for mark in marks] if y is None else y,
        yaxis=yaxis,
        mode="markers+text",
        text=[f"  {_escaped(mark.label)}  " if mark.label else "" for mark in marks],
        textposition=[_side(mark, chart.x) for mark in marks],
        textfont={"color": style.light},
        hovertext=[_escaped(mark.text) for mark in marks],
        marker=_marker(style, marks, chart.shade_key),
        error_y=_intervals(marks),
        cliponaxis=False,
        **_named(series),
    )


def _side(mark: Mark, axis: Axis) -> str:
    """Labels reach towards the middle of the figure."""
    ends = (mark.x, axis.low, axis.high)
    x, low, high = (math.log(end) for end in ends) if axis.is_log else ends
    return "middle right" if x < (low + high) / 2 else "middle left"


def _marker(style: Style, marks: tuple[Mark, ...], shade_key: str) -> dict[str, Any]:
    shades = [mark.shade for mark in marks if mark.shade is not None]
    found: dict[str, Any] = {
        "symbol": _SYMBOLS[style.symbol] + ("-open" if style.is_open or style.symbol == "cross" else ""),
        "size": 2 * style.size,
        "color": style.light,
        "line": {"width": 1.5 if style.kind == "o" else 0.5},
    }
    if len(shades) == len(marks) and shades:
        scale = [[index / (len(SHADES_LIGHT) - 1), color] for index, color in enumerate(SHADES_LIGHT)]
        bar = {
            "title": {"text": _escaped(shade_key), "side": "right"},
            "showticklabels": False,
            "thickness": 12,
        }
        found |= {"color": shades, "colorscale": scale, "cmin": 0, "cmax": 1, "colorbar": bar}
    return found


def _intervals(marks: tuple[Mark, ...]) -> dict[str, Any] | None:
    if all(mark.low is None or mark.high is None for mark in marks):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if mark.high is None else mark.high - mark.y for mark in marks],
        "arrayminus": [0 if mark.low is None else mark.y - mark.low for mark in marks],
    }


def _lines(series: Series, go: Any) -> Any:
    """All lines in one trace with gaps between them: hundreds of traces would draw slowly."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for line in series.lines:
        x += [*(point[0] for point in line.points), None]
        y += [*(point[1] for point in line.points), None]
        text += [_escaped(line.text)] * len(line.points) + [""]
    style = STYLES[series.style]
    dash = {"color": style.light, "width": _WIDTHS[series.weight], "dash": "dash" if style.dash else "solid"}
    opacity = {"faint": 0.25, "light": 0.55}.get(series.weight, 1.0)
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line=dash,
        opacity=opacity,
        hovertext=text,
        connectgaps=False,
        **_named(series),
    )


def _bars(series: Series, go: Any) -> Any:
    bars = series.bars
    return go.Bar(
        orientation="h",
        x=[bar.high - bar.low for bar in bars],
        base=[bar.low for bar in bars],
        y=[bar.y for bar in bars],
        width=0.72,
        text=[_escaped(bar.label) for bar in bars],
        textposition=["outside" if bar.is_label_outside else "inside" for bar in bars],
        insidetextanchor="middle",
        marker={"color": STYLES[series.style].light},
        hovertext=[_escaped(bar.text) for bar in bars],
        cliponaxis=False,
        **_named(series),
    )


def _shapes(chart: Chart) -> Iterator[dict[str, Any]]:
    for band in chart.bands:
        color = STYLES[band.style].light
        is_box = band.y_low is not None and band.y_high is not None
        ends = {"y0": band.y_low, "y1": band.y_high} if is_box else {"y0": 0, "y1": 1, "yref": "y domain"}
        line = {"width": 1.5 if is_box else 0, "dash": "dash", "color": color}
        fill = f"rgba({', '.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))}, 0.12)"
        look = {"type": "rect", "layer": "below", "fillcolor": fill, "line": line}
        yield look | {"x0": band.low, "x1": band.high} | ends
    for guide in chart.guides:
        dash = "dash" if STYLES[guide.style].dash else "solid"
        line = {"color": STYLES[guide.style].light, "width": 1.3, "dash": dash}
        across = {"x0": 0, "x1": 1, "xref": "x domain", "y0": guide.at, "y1": guide.at}
        along = {"y0": 0, "y1": 1, "yref": "y domain", "x0": guide.at, "x1": guide.at}
        yield {"type": "line", "layer": "below", "line": line} | (across if guide.side == "y" else along)


def _annotations(chart: Chart) -> Iterator[dict[str, Any]]:
    plain = {"showarrow": False, "font": {"size": 11}}
    for guide in chart.guides:
        if not guide.label:
            continue
        text = plain | {"text": _escaped(guide.label)}
        if guide.side == "y":
            yield text | {"x": 1, "xref": "x domain", "xanchor": "right", "y": guide.at, "yanchor": "bottom"}
        else:
            x = math.log10(guide.at) if chart.x.is_log else guide.at
            yield text | {"x": x, "xanchor": "left", "y": 0, "yref": "y domain", "yanchor": "bottom"}
    for note in chart.notes:
        x = math.log10(note.x) if chart.x.is_log else note.x
        yield plain | {"text": _escaped(note.text), "x": x, "y": note.y, "yanchor": "top"}
    for series in chart.series:
        for line in series.lines:
            if line.label:
                y = line.points[-1][1]
                look = {
                    "text": f" {_escaped(line.label)}",
                    "font": {"size": 12, "color": STYLES[series.style].light},
                }
                yield (
                    plain
                    | look
                    | {"x": 1, "xref": "x domain", "xanchor": "left", "y": y, "yanchor": "middle"}
                )
