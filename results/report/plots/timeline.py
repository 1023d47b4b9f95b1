"""What each seat did when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import plotly.graph_objects as go

from files_and_text.numbers import duration, plural
from results.report.blocks import Paragraph, Plot, Section, Table
from results.report.facts import Facts, Stay
from results.report.palette import GREY, OUTCOMES, spoken
from results.report.plots.figures import spec

_PAUSE_SHARE = 0.05
"""A time without any trial counts as a pause, and is cut out, when longer than this share of the rest."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A trial on its lane, in seconds since the first trial, pauses left out."""

    stay: Stay
    begin: float
    length: float


@dataclass(frozen=True, kw_only=True)
class Pause:
    at: float
    seconds: float


def timeline(facts: Facts) -> Section:
    title = "What each seat did when"
    if not facts.stays:
        why = "No trial has had a seat, so there is no timeline."
        return Section(id="timeline", title=title, blocks=[Paragraph(text=why)])
    bars, pauses = lay_out(facts.stays)
    return Section(id="timeline", title=title, blocks=[_plot(facts, bars, pauses)])


def lay_out(stays: Sequence[Stay]) -> tuple[list[Bar], list[Pause]]:
    """Bars that do not overlap on their lane, and the pauses between them.

    A trial may be drawn while its seat is still taken, so its bar begins when it was drawn or when the seat
    became free, whichever is later. One that still runs reaches to the last time the study knows of.
    """
    now = max(time for stay in stays for time in (stay.start, stay.end) if time is not None)
    free: dict[tuple[int, int], datetime] = {}
    placed = []
    for stay in sorted(stays, key=lambda s: (s.end or now, s.start, s.number)):
        lane = (stay.worker, stay.seat)
        end = max(stay.end or now, stay.start)
        begin = min(max(stay.start, free.get(lane, stay.start)), end)
        free[lane] = end
        placed.append((stay, begin, end))
    pauses = _pauses([(begin, end) for _, begin, end in placed])
    first = min(begin for _, begin, _ in placed)

    def seconds(time: datetime) -> float:
        lost = sum((end - start for start, end in pauses if end <= time), timedelta())
        return (time - first - lost).total_seconds()

    bars = [
        Bar(stay=stay, begin=seconds(begin), length=seconds(end) - seconds(begin))
        for stay, begin, end in placed
    ]
    marks = [Pause(at=seconds(end), seconds=(end - start).total_seconds()) for start, end in pauses]
    return bars, marks


def _pauses(busy: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Times in which no trial had a seat, the long ones alone."""
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


def _plot(facts: Facts, bars: Sequence[Bar], pauses: Sequence[Pause]) -> Plot:
    lanes = sorted({(bar.stay.worker, bar.stay.seat) for bar in bars})
    total = max(bar.begin + bar.length for bar in bars)
    unit, size = next(
        (u, s) for u, s in (("h", 3600.0), ("min", 60.0), ("s", 1.0)) if total >= 2 * s or s == 1
    )
    traces = [
        _bars([bar for bar in bars if bar.stay.outcome == outcome], outcome, size)
        for outcome in OUTCOMES
        if any(bar.stay.outcome == outcome for bar in bars)
    ]
    parts = ["One lane per seat, one bar per trial; the pattern says how it ended."]
    parts.append("A bar begins when the trial was drawn or its seat became free, whichever is later.")
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
        spec=spec(traces, **layout),
        table=_table(bars),
        height=170 + 30 * len(lanes),
    )


def _lane(worker: int, seat: int) -> str:
    return f"{worker}.{seat}"


def _bars(bars: Sequence[Bar], outcome: str, size: float) -> object:
    colour, _, pattern = OUTCOMES[outcome]
    return go.Bar(
        orientation="h",
        name=spoken(outcome),
        y=[_lane(bar.stay.worker, bar.stay.seat) for bar in bars],
        x=[bar.length / size for bar in bars],
        base=[bar.begin / size for bar in bars],
        text=[str(bar.stay.number) for bar in bars],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"size": 10},
        marker={
            "color": colour,
            "opacity": 0.85,
            "line": {"width": 1 if len(bars) < 100 else 0.3, "color": "rgba(128,128,128,0.9)"},
            "pattern": {"shape": pattern, "solidity": 0.25, "fillmode": "overlay"},
        },
        hoverinfo="text",
        hovertext=[
            f"<b>trial {bar.stay.number}</b> {spoken(outcome)}"
            f"<br>worker {bar.stay.worker}, seat {bar.stay.seat}<br>{duration(bar.length, decimals=1)}"
            for bar in bars
        ],
    )


def _table(bars: Sequence[Bar]) -> Table:
    return Table(
        caption="Seats and times of every trial, as a table",
        header=("trial", "worker", "seat", "outcome", "began after", "took", "drawn at (UTC)"),
        rows=[
            (
                str(bar.stay.number),
                str(bar.stay.worker),
                str(bar.stay.seat),
                spoken(bar.stay.outcome),
                duration(bar.begin, decimals=1),
                duration(bar.length, decimals=1),
                f"{bar.stay.start:%Y-%m-%d %H:%M:%S}",
            )
            for bar in sorted(bars, key=lambda b: b.stay.number)
        ],
        folded=True,
    )
