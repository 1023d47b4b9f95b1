"""What each seat did when: a lane for each seat and a bar for each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from files_and_text.numbers import duration, plural
from results.answer.answer import Answer
from results.charts.builders.trial_marks import EARLY
from results.charts.chart import Axis, Bar, Chart, Guide, Series, Tick
from results.sweep_result import Stay, SweepResult, TrialResult

_PAUSE_SHARE = 0.05
"""A time without any trial is cut out as a pause when it is longer than this share of the busy time."""
_LANE = 30
"""Pixels."""
_UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


@dataclass(frozen=True, kw_only=True)
class SeatTime:
    """A trial on its seat, in seconds since the first trial began, without the pauses."""

    trial: TrialResult
    lane: tuple[int, int]
    """Worker and seat."""
    begin: float
    end: float


@dataclass(frozen=True, kw_only=True)
class CutPause:
    at: float
    """Seconds, as in `SeatTime`."""
    seconds: float


def timeline_chart(sweep: SweepResult, answer: Answer) -> Chart | None:
    """None before the first trial had a seat."""
    times, pauses = seat_times(sweep.trials)
    if not times:
        return None
    lanes = sorted({time.lane for time in times})
    total = max(time.end for time in times)
    unit, size = next(((unit, size) for unit, size in _UNITS if total >= 2 * size), _UNITS[-1])
    best = None if answer.best is None else answer.best.trial
    groups = [
        ("trial", "complete", [t for t in times if t.trial.outcome == "complete" and t.trial.number != best])
    ]
    groups += [
        (name, name.replace("_", " "), [t for t in times if t.trial.outcome == name])
        for name in (*EARLY, "running")
    ]
    groups.append(("best", "best", [t for t in times if t.trial.number == best]))
    return Chart(
        id="chart-timeline",
        title="What each seat did when",
        label="Which trial ran on which seat when",
        caption=_caption(pauses),
        x=Axis(title=f"{unit} since the first trial began", low=0.0, high=max(total, 1.0) / size),
        y=Axis(
            title="",
            low=-0.5,
            high=len(lanes) - 0.5,
            is_reversed=True,
            ticks=tuple(
                Tick(at=float(index), text=_lane_name(lane, lanes)) for index, lane in enumerate(lanes)
            ),
            has_grid=False,
        ),
        series=tuple(
            Series(
                style=style,
                name=name,
                bars=tuple(_bar(time, lanes.index(time.lane), size) for time in chosen),
            )
            for style, name, chosen in groups
            if chosen
        ),
        guides=tuple(
            Guide(side="x", at=pause.at / size, style="rung", text=f"pause of {duration(pause.seconds)}")
            for pause in pauses
        ),
        height=_LANE * len(lanes) + 8,
    )


def seat_times(trials: Sequence[TrialResult]) -> tuple[list[SeatTime], list[CutPause]]:
    """Times that do not overlap on their seat, and the pauses between them.

    A trial drawn ahead starts in Optuna while its seat is still taken, so it begins at the later of its start
    and the time its seat became free. A running trial ends at the last time in the study. A trial that was
    frozen has a time for each stay on a seat.
    """
    seated = [
        t
        for t in trials
        if t.worker is not None and t.seat is not None and t.started is not None and t.outcome != "waiting"
    ]
    if not seated:
        return [], []
    stays = [(trial, stay) for trial in seated for stay in _stays(trial)]
    now = max(
        time
        for trial, stay in stays
        for time in (trial.started, trial.ended, stay.began, stay.left)
        if time is not None
    )
    times = [
        (stay.left or trial.ended or now, stay.began or trial.started or now, trial, (stay.worker, stay.seat))
        for trial, stay in stays
    ]
    free: dict[tuple[int, int], datetime] = {}
    spans: list[tuple[TrialResult, tuple[int, int], datetime, datetime]] = []
    for left, start, trial, lane in sorted(times, key=lambda t: (*t[:2], t[2].number)):
        end = max(left, start)
        begin = min(max(start, free.get(lane, start)), end)
        free[lane] = end
        spans.append((trial, lane, begin, end))
    pauses = _pauses([(begin, end) for *_, begin, end in spans])
    first = min(begin for *_, begin, _ in spans)

    def seconds(time: datetime) -> float:
        lost = sum((end - start for start, end in pauses if end <= time), timedelta())
        return (time - first - lost).total_seconds()

    placed = [
        SeatTime(trial=trial, lane=lane, begin=seconds(begin), end=seconds(end))
        for trial, lane, begin, end in spans
    ]
    return placed, [CutPause(at=seconds(end), seconds=(end - start).total_seconds()) for start, end in pauses]


def _stays(trial: TrialResult) -> tuple[Stay, ...]:
    assert trial.worker is not None
    assert trial.seat is not None
    return trial.stays or (Stay(worker=trial.worker, seat=trial.seat),)


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
    least = max(_PAUSE_SHARE * covered, timedelta(seconds=1))
    return [(start, end) for start, end in gaps if end - start > least]


def _lane_name(lane: tuple[int, int], lanes: Sequence[tuple[int, int]]) -> str:
    """The worker only where there are several."""
    return (
        f"worker {lane[0]}, seat {lane[1]}" if len({worker for worker, _ in lanes}) > 1 else f"seat {lane[1]}"
    )


def _bar(time: SeatTime, lane: int, size: float) -> Bar:
    trial = time.trial
    lines = (
        f"trial {trial.number}, {trial.outcome.replace('_', ' ')}",
        f"worker {time.lane[0]}, seat {time.lane[1]}",
        duration(time.end - time.begin, decimals=1),
    )
    return Bar(
        low=time.begin / size,
        high=time.end / size,
        y=float(lane),
        text="\n".join(lines),
        label=str(trial.number),
    )


def _caption(pauses: Sequence[CutPause]) -> str:
    text = "One bar for each trial, with its number."
    if not pauses:
        return text
    lengths = ", ".join(duration(pause.seconds) for pause in pauses[:6])
    more = ", ..." if len(pauses) > 6 else ""
    return f"{text} {plural(len(pauses), 'pause')} cut out at the dotted lines: {lengths}{more}."
