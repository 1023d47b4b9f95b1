"""Parallel coordinates: one line for each trial through all searched hyperparameters, from top to bottom.

The axes lie: their names and ends have room on a phone as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from files_and_text.numbers import number, value_text
from files_and_text.plain_values import finite
from results.answer.answer import Answer
from results.charts.builders.curves import SINGLE_RUNS
from results.charts.builders.trial_marks import searched, trial_text
from results.charts.chart import Axis, Chart, Guide, Line, Note, Series, Tick, Weight
from results.sweep_result import SweepResult, TrialResult
from results.text.gaps import short_loss
from results.text.parameters import parameter_title
from search_spaces import Dimension

_MIN_TRIALS = 3
_NONE = -0.1
"""Place on an axis of trials without that hyperparameter."""
_LANE = 62
"""Pixels."""
_CROWD = 40
"""More lines than this are drawn faint."""


@dataclass(frozen=True, kw_only=True)
class _Lane:
    title: str
    place: Callable[[TrialResult], float | None]
    """From 0 (left) to 1 (right); None without a value."""
    notes: Sequence[tuple[float, str]]
    """(place, text)."""


def parallel_chart(sweep: SweepResult, answer: Answer) -> Chart | None:
    """None with fewer than two searched hyperparameters or three finished trials."""
    finished = sweep.finished
    dimensions = [sweep.dimensions[name] for name in searched(sweep)]
    trials = [trial for trial in sweep.started if trial.params and trial.outcome != "running"]
    if len(finished) < _MIN_TRIALS or len(dimensions) < 2:
        return None
    lanes = [*(_lane(dimension) for dimension in dimensions), _loss_lane(finished)]
    gaps = [index for index, lane in enumerate(lanes[:-1]) if any(lane.place(t) is None for t in trials)]
    notes = [
        Note(x=x, y=float(index), text=text) for index, lane in enumerate(lanes) for x, text in lane.notes
    ]
    notes += [Note(x=_NONE, y=float(index), text="none") for index in gaps]
    return Chart(
        id="chart-parallel",
        title="All hyperparameters at once",
        label="A line for each trial through its values and its loss",
        caption="Each line is a trial, from its values down to its loss, the lowest at the left. Lines "
        "that do not reach it were stopped early." + (f" {SINGLE_RUNS}" if answer.seeds else ""),
        x=Axis(title="", low=_NONE - 0.04 if gaps else -0.04, high=1.04, ticks=()),
        y=Axis(
            title="",
            low=-0.5,
            high=len(lanes) - 0.5,
            is_reversed=True,
            ticks=tuple(Tick(at=float(index), text=lane.title) for index, lane in enumerate(lanes)),
            has_grid=False,
        ),
        series=tuple(_series(sweep, answer, trials, lanes)),
        guides=tuple(Guide(side="y", at=float(index), style="axis") for index in range(len(lanes))),
        notes=tuple(notes),
        height=_LANE * len(lanes),
    )


def _series(
    sweep: SweepResult, answer: Answer, trials: Sequence[TrialResult], lanes: Sequence[_Lane]
) -> list[Series]:
    """The best tenth stands out: what its trials share is what this chart is for."""
    names, finished = searched(sweep), sweep.finished
    best = None if answer.best is None else answer.best.trial
    default = None if answer.default.trial == best else answer.default.trial
    leading = {t.number for t in finished[: len(finished) // 10]} - {best, default}
    rest = [t for t in finished if t.number not in leading | {best, default}]
    groups: list[tuple[str, str, Weight, list[TrialResult]]] = [
        ("pruned", "stopped early", "light", [t for t in trials if t.eval_loss is None]),
        ("trial", "complete", "light", rest),
        ("best", "best tenth", "light", [t for t in finished if t.number in leading]),
        ("default", "guideline default", "strong", [t for t in finished if t.number == default]),
        ("best", "best", "strong", [t for t in finished if t.number == best]),
    ]
    return [
        Series(
            style=style,
            name=name,
            weight="faint" if weight == "light" and len(chosen) > _CROWD else weight,
            lines=tuple(Line(points=_points(t, lanes), text=trial_text(t, names)) for t in chosen),
        )
        for style, name, weight, chosen in groups
        if chosen
    ]


def _points(trial: TrialResult, lanes: Sequence[_Lane]) -> tuple[tuple[float, float], ...]:
    """Without a hyperparameter the line goes through "none", so that it reaches its loss."""
    places = [lane.place(trial) for lane in lanes]
    found = [(_NONE if at is None else at, float(index)) for index, at in enumerate(places[:-1])]
    return (*found, *(((places[-1], float(len(lanes) - 1)),) if places[-1] is not None else ()))


def _lane(dimension: Dimension) -> _Lane:
    name = dimension.name
    if dimension.choices is not None:
        choices = list(dimension.choices)
        places = {choice: (index + 0.5) / len(choices) for index, choice in enumerate(choices)}
        return _Lane(
            title=parameter_title(name),
            place=lambda trial: places.get(trial.params.get(name, "")),
            notes=[(at, value_text(choice)) for choice, at in places.items()],
        )
    low, high = dimension.bounds()
    to_share = _scale(low, high, is_log=dimension.log)
    return _Lane(
        title=parameter_title(name),
        place=lambda trial: to_share(finite(trial.params.get(name))),
        notes=[(0.0, number(low)), (1.0, number(high))],
    )


def _loss_lane(finished: Sequence[TrialResult]) -> _Lane:
    """On a log scale when the losses differ by more than a factor of 4."""
    losses = [trial.eval_loss for trial in finished if trial.eval_loss is not None]
    low, high = min(losses), max(losses)
    to_share = _scale(low, high, is_log=low > 0 and high / low > 4)
    ends = [(0.0, short_loss(low)), (1.0, short_loss(high))] if high > low else [(0.5, short_loss(low))]
    return _Lane(title="Loss", place=lambda trial: to_share(trial.eval_loss), notes=ends)


def _scale(low: float, high: float, *, is_log: bool) -> Callable[[float | None], float | None]:
    def share(value: float | None) -> float | None:
        if value is None or (is_log and value <= 0):
            return None
        if high == low:
            return 0.5
        if is_log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    return share
