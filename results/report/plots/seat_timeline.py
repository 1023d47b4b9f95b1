"""A timeline with a lane per seat and a bar per trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import plotly.graph_objects as go

from files_and_text.numbers import duration, plural
from results.report.blocks import Plot, Section, Table, text_section
from results.report.colors_and_marks import GREY, OUTCOME_STYLES, readable
from results.report.facts import ReportFacts, SeatUse
from results.report.plots.figure_parts import plain_figure

_PAUSE_SHARE = 0.05
"""A time without any trial is cut out as a pause when it is longer than this share of the busy time."""


@dataclass(frozen=True, kw_only=True)
class TimelineBar:
    """A trial on its lane, in seconds since the first trial without the pauses."""

    seat_use: SeatUse
    begin: float
    length: float


@dataclass(frozen=True, kw_only=True)
class CutPause:
    at: float
    seconds: float


def timeline_section(facts: ReportFacts) -> Section:
    title = "What each seat did when"
    if not facts.seat_uses:
        return text_section("timeline", title, "No trial has had a seat, so there is no timeline.")
    bars, pauses = timeline_bars(facts.seat_uses)
    return Section(id="timeline", title=title, blocks=[_plot(facts, bars, pauses)])


def timeline_bars(seat_uses: Sequence[SeatUse]) -> tuple[list[TimelineBar], list[CutPause]]:
    """Bars that do not overlap on their lane, and the pauses between them.

    A prefetched trial starts in Optuna while its seat is still taken, so its bar begins at the later of its
    start and the time its seat became free. The bar of a running trial ends at the last time in the study.
    """
    now = max(time for seat_use in seat_uses for time in (seat_use.start, seat_use.end) if time is not None)
    free: dict[tuple[int, int], datetime] = {}
    spans = []
    for seat_use in sorted(seat_uses, key=lambda s: (s.end or now, s.start, s.number)):
        lane = (seat_use.worker, seat_use.seat)
        end = max(seat_use.end or now, seat_use.start)
        begin = min(max(seat_use.start, free.get(lane, seat_use.start)), end)
        free[lane] = end
        spans.append((seat_use, begin, end))
    pauses = _pauses([(begin, end) for _, begin, end in spans])
    first = min(begin for _, begin, _ in spans)

    def seconds(time: datetime) -> float:
        lost = sum((end - start for start, end in pauses if end <= time), timedelta())
        return (time - first - lost).total_seconds()

    bars = [
        TimelineBar(seat_use=seat_use, begin=seconds(begin), length=seconds(end) - seconds(begin))
        for seat_use, begin, end in spans
    ]
    marks = [CutPause(at=seconds(end), seconds=(end - start).total_seconds()) for start, end in pauses]
    return bars, marks


def _pauses(busy: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """The long times in which no trial had a seat."""
    gaps, covered, reach = [], timedelta(), None
    for begin, end in sorted(busy):
        if reach is None or begin >= reach:
            if reach is not None:
                gaps.append((reach, begin))
            covered += end - begin
            reach = end
        elif end > reach:
            covered += end - reach
            reach = end
    return [(start, end) for start, end in gaps if end - start > _PAUSE_SHARE * covered]


def _plot(facts: ReportFacts, bars: Sequence[TimelineBar], pauses: Sequence[CutPause]) -> Plot:
    lanes = sorted({(bar.seat_use.worker, bar.seat_use.seat) for bar in bars})
    total = max(bar.begin + bar.length for bar in bars)
    unit, size = next(
        (u, s) for u, s in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if total >= 2 * s or s == 1
    )
    traces = [
        _bars([bar for bar in bars if bar.seat_use.outcome == outcome], outcome, size)
        for outcome in OUTCOME_STYLES
        if any(bar.seat_use.outcome == outcome for bar in bars)
    ]
    parts = [
        "One lane per seat, one bar per trial; the pattern says how it ended. A bar begins when the trial "
        "was drawn or its seat became free, whichever is later."
    ]
    if pauses:
        parts.append(
            f"{plural(len(pauses), 'pause')} without any trial cut out (dashed): "
            f"{', '.join(duration(p.seconds, decimals=1) for p in pauses)}."
        )
    if facts.seat_busy_share is not None:
        parts.append(f"In the latest run seats were busy {facts.seat_busy_share:.1%} of the time.")
    line = {"color": GREY, "width": 1.5, "dash": "dash"}
    layout = {
        "barmode": "overlay",
        "bargap": 0.25,
        "uniformtext": {"minsize": 9, "mode": "hide"},
        "xaxis": {"title": {"text": f"time since the first trial began ({unit})"}, "rangemode": "tozero"},
        "yaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [_lane(*lane) for lane in reversed(lanes)],
            "automargin": True,
            "title": {"text": "worker.seat"},
        },
        "shapes": [
            {"type": "line", "x0": p.at / size, "x1": p.at / size, "y0": 0, "y1": 1, "yref": "paper"}
            | {"line": line}
            for p in pauses
        ],
    }
    return Plot(
        id="plot-timeline",
        label="Which trial sat on which seat when",
        caption=" ".join(parts),
        spec=plain_figure(traces, **layout),
        table=_table(bars),
        height=170 + 30 * len(lanes),
    )


def _lane(worker: int, seat: int) -> str:
    return f"{worker}.{seat}"


def _bars(bars: Sequence[TimelineBar], outcome: str, size: float) -> object:
    color, _, pattern = OUTCOME_STYLES[outcome]
    return go.Bar(
        orientation="h",
        name=readable(outcome),
        y=[_lane(bar.seat_use.worker, bar.seat_use.seat) for bar in bars],
        x=[bar.length / size for bar in bars],
        base=[bar.begin / size for bar in bars],
        text=[str(bar.seat_use.number) for bar in bars],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"size": 10},
        marker={
            "color": color,
            "opacity": 0.85,
            "line": {"width": 1 if len(bars) < 100 else 0.3, "color": "rgba(128,128,128,0.9)"},
            "pattern": {"shape": pattern, "solidity": 0.25, "fillmode": "overlay"},
        },
        hoverinfo="text",
        hovertext=[
            f"<b>trial {bar.seat_use.number}</b> {readable(outcome)}"
            f"<br>worker {bar.seat_use.worker}, seat {bar.seat_use.seat}"
            f"<br>{duration(bar.length, decimals=1)}"
            for bar in bars
        ],
    )


def _table(bars: Sequence[TimelineBar]) -> Table:
    return Table(
        caption="Seats and times of every trial, as a table",
        header=("trial", "worker", "seat", "outcome", "began after", "took", "drawn at (UTC)"),
        rows=[
            (
                str(bar.seat_use.number),
                str(bar.seat_use.worker),
                str(bar.seat_use.seat),
                readable(bar.seat_use.outcome),
                duration(bar.begin, decimals=1),
                duration(bar.length, decimals=1),
                f"{bar.seat_use.start:%Y-%m-%d %H:%M:%S}",
            )
            for bar in sorted(bars, key=lambda b: b.seat_use.number)
        ],
        folded=True,
    )
