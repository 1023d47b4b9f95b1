"""Parallel coordinates: one line per trial through all searched dimensions.

Drawn as plain lines: plotly's own parallel coordinates need WebGL, which printing and many phones lack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from files_and_text.numbers import loss, number, value_text
from files_and_text.plain_values import finite
from results.report.blocks import Plot, Section, Table, text_section
from results.report.colors_and_marks import BLUE, GREEN, GREY, ORANGE, readable
from results.report.facts import ReportFacts
from results.report.plots.figure_parts import escaped, plain_figure
from results.sweep_result import TrialResult
from search_spaces import Dimension

_MIN_TRIALS = 2
_NONE = -0.2
"""Height on an axis of trials without that hyperparameter."""
_LOSS = "evaluation loss"


@dataclass(frozen=True, kw_only=True)
class _Axis:
    name: str
    height: Callable[[TrialResult], float | None]
    """Height of a trial, from 0 (bottom) to 1 (top); None when it has no value."""
    ticks: Sequence[tuple[float, str]]
    """(height, text)."""

    def has_gaps(self, trials: Sequence[TrialResult]) -> bool:
        return any(self.height(trial) is None for trial in trials)


def parallel_coordinates_section(facts: ReportFacts) -> Section:
    title = "All hyperparameters at once"
    trials = [t for t in facts.sweep.started if t.params]
    axes = [_axis(d) for d in facts.sweep.dimensions.values() if not d.fixed]
    finished = facts.sweep.finished
    if len(finished) < _MIN_TRIALS or not axes:
        return text_section(
            "parallel",
            title,
            f"Fewer than {_MIN_TRIALS} finished trials, or nothing searched: no lines to compare.",
        )
    return Section(id="parallel", title=title, blocks=[_plot(facts, trials, [*axes, _loss_axis(finished)])])


def _plot(facts: ReportFacts, trials: Sequence[TrialResult], axes: Sequence[_Axis]) -> Plot:
    finished = facts.sweep.finished
    leading = finished[: max(1, math.ceil(len(finished) / 10))]
    rest = finished[len(leading) :]
    early = [t for t in trials if t.eval_loss is None]
    thick = 3.5 if len(leading) < 10 else 1.8
    best_name = "best tenth" if len(leading) > 1 else "best"
    traces = [
        _lines(early, axes, name="stopped early", color=ORANGE, dash="dot", width=1, opacity=0.45),
        _lines(rest, axes, name="other finished trials", color=GREY, dash="solid", width=1.2, opacity=0.55),
        _lines(leading, axes, name=best_name, color=GREEN, dash="solid", width=thick, opacity=0.9),
    ]
    gaps = [x for x, axis in enumerate(axes[:-1]) if axis.has_gaps(trials)]
    layout = {
        "margin": {"l": 16, "r": 16, "t": 16, "b": 64},
        "xaxis": {"range": [-0.45, len(axes) - 0.55], "visible": False, "fixedrange": True},
        "yaxis": {"visible": False, "range": [(_NONE if gaps else 0) - 0.1, 1.1], "fixedrange": True},
        "shapes": [
            {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": {"color": BLUE, "width": 1}}
            for x in range(len(axes))
        ],
        "annotations": [
            *(_axis_label(x, axis.name) for x, axis in enumerate(axes)),
            *(_tick(x, y, text) for x, axis in enumerate(axes) for y, text in axis.ticks),
            *(_tick(x, _NONE, "none") for x in gaps),
        ],
    }
    return Plot(
        id="plot-parallel",
        label="Parallel coordinates of all trials",
        caption="Each line is a trial; follow the thick ones to see which values the best share. The loss is "
        "at the right, the lowest at the bottom; lines that end before it were stopped early.",
        spec=plain_figure([t for t in traces if t is not None], **layout),
        table=_table(facts, trials),
        height=440,
    )


def _axis_label(x: int, name: str) -> dict[str, object]:
    """Below its axis, on several lines so that neighbors do not overlap on a phone."""
    broken = (
        escaped(name).replace("_", "_<br>").replace(" (", "<br>(").replace("evaluation ", "evaluation<br>")
    )
    where = {"x": x, "y": 0, "yref": "paper", "yanchor": "top"}
    return {
        "text": broken.replace("per token", "per<br>token"),
        "showarrow": False,
        "font": {"size": 10},
        **where,
    }


def _tick(x: int, y: float, text: str) -> dict[str, object]:
    """Above or below the ends of an axis, otherwise beside it."""
    where: dict[str, object] = {"x": x, "y": y}
    if y in (0.0, 1.0):
        where["yanchor"] = "top" if y == 0.0 else "bottom"
    else:
        where |= {"xanchor": "left", "xshift": 5}
    return {"text": escaped(text), "showarrow": False, "borderpad": 0, "font": {"size": 10}, **where}


def _lines(
    trials: Sequence[TrialResult],
    axes: Sequence[_Axis],
    *,
    name: str,
    color: str,
    dash: str,
    width: float,
    opacity: float,
) -> Any | None:
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        x += [*range(len(axes)), None]
        # Without a hyperparameter the line goes through _NONE, so that it reaches its loss.
        heights = [axis.height(trial) for axis in axes]
        y += [*(_NONE if height is None else height for height in heights[:-1]), heights[-1], None]
        # Short, since it is repeated on every axis; the table has the values.
        text += [f"trial {trial.number} {readable(trial.outcome)} {_short_loss(trial)}"] * len(axes) + [""]
    if not x:
        return None
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name=name,
        line={"color": color, "width": width, "dash": dash},
        marker={"size": 4 + width, "color": color},
        opacity=opacity,
        hoverinfo="text",
        hovertext=text,
        connectgaps=False,
    )


def _short_loss(trial: TrialResult) -> str:
    return "" if trial.eval_loss is None else loss(trial.eval_loss)


def _axis(dimension: Dimension) -> _Axis:
    low, high, name = dimension.low, dimension.high, dimension.name
    if dimension.choices is not None or low is None or high is None:
        choices = list(dimension.choices or ())
        heights = {c: (i + 0.5) / len(choices) for i, c in enumerate(choices)}
        return _Axis(
            name=name,
            height=lambda t: heights.get(t.params[name]) if name in t.params else None,
            ticks=[(y, str(choice)) for choice, y in heights.items()],
        )
    to_share = _scale(low, high, log=dimension.log)
    return _Axis(
        name=name + (" (log)" if dimension.log else ""),
        height=lambda t: to_share(finite(t.params.get(name))),
        ticks=[(0.0, number(low)), (1.0, number(high))],
    )


def _loss_axis(finished: Sequence[TrialResult]) -> _Axis:
    """On a log scale when the losses differ by more than a factor of 4."""
    losses = [t.eval_loss for t in finished if t.eval_loss is not None]
    low, high = min(losses), max(losses)
    log = low > 0 and high / low > 4
    to_share = _scale(low, high, log=log)
    return _Axis(
        name=f"{_LOSS} (nats per token{', log' if log else ''})",
        height=lambda t: to_share(t.eval_loss),
        ticks=[(0.0, loss(low)), (1.0, loss(high))] if high > low else [(0.5, loss(low))],
    )


def _scale(low: float, high: float, *, log: bool) -> Callable[[float | None], float | None]:
    def share(value: float | None) -> float | None:
        if value is None:
            return None
        if high == low:
            return 0.5
        if log:
            return math.log(value / low) / math.log(high / low) if value > 0 else None
        return (value - low) / (high - low)

    return share


def _table(facts: ReportFacts, trials: Sequence[TrialResult]) -> Table:
    names = [d.name for d in facts.sweep.dimensions.values() if not d.fixed]
    ordered = sorted(trials, key=lambda t: (t.eval_loss is None, t.eval_loss or 0.0, t.number))
    return Table(
        caption="All trials and their hyperparameters, as a table, best first",
        header=("trial", "outcome", f"{_LOSS} (nats per token)", *names),
        rows=[
            (
                str(t.number),
                readable(t.outcome),
                "" if t.eval_loss is None else loss(t.eval_loss),
                *(value_text(t.params[name]) if name in t.params else "" for name in names),
            )
            for t in ordered
        ],
        folded=True,
    )
