"""Loss against learning rate, with the guidelines' rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from files_and_text.numbers import loss, number, plural, value_text
from files_and_text.plain_values import finite
from results.report.blocks import Plot, Section, Table, text_section
from results.report.colors_and_marks import BLUE, CATEGORY_STYLES, GREEN, GREY, INK, readable
from results.report.facts import EARLY, ReportFacts
from results.report.plots.figure_parts import (
    LOSS_AXIS,
    escaped,
    hover_text,
    log_axis,
    loss_range,
    markers,
    needs_log_scale,
    outcome_markers,
    plain_figure,
)
from results.sweep_result import TrialResult
from results.text.values import shown_range
from search_spaces import GuidelineRow

RATE, SCHEDULER = "learning_rate", "lr_scheduler_type"
_PIXELS_PER_ROW = 22
_SHARE_PER_LETTER = 0.02
"""Width of a letter as a share of the axis on a phone."""
_Group = tuple[float, float, list[GuidelineRow]]
"""Lowest and highest rate, and the rows that name them."""


def learning_rates_section(facts: ReportFacts) -> Section:
    title = "Loss against learning rate"
    trials = [t for t in facts.sweep.started if (finite(t.values.get(RATE)) or 0) > 0]
    if not any(t.eval_loss is not None for t in trials):
        return text_section(
            "rates", title, "No finished trial has a learning rate, so there is nothing to draw."
        )
    return Section(id="rates", title=title, blocks=[_plot(facts, trials)])


def rows_of_rate(facts: ReportFacts) -> list[GuidelineRow]:
    """The tested rows that name a learning rate or a range of it."""
    if facts.verdict is None:
        return []
    return [
        r.row
        for r in facts.verdict.rows
        if r.is_tested
        and r.row.parameter == RATE
        and r.row.topic != "stability"
        and r.row.low is not None
        and r.row.high is not None
        and r.row.low > 0
    ]


def _plot(facts: ReportFacts, trials: Sequence[TrialResult]) -> Plot:
    finished = sorted((t for t in trials if t.eval_loss is not None), key=lambda t: t.number)
    losses = [t.eval_loss for t in finished if t.eval_loss is not None]
    base = facts.sweep.base_eval_loss
    low, high = loss_range(losses) or (0.0, 1.0)
    beyond = [t for t in finished if (t.eval_loss or 0) > high]
    early = [t for t in trials if t.outcome in EARLY]
    rows = rows_of_rate(facts)
    names = list(facts.sweep.dimensions)
    traces = [*_finished(finished, names), *_rings(facts, names), *_stopped_early(early, names)]
    groups = _groups(rows)
    values = [float(t.values[RATE]) for t in trials]
    reach = [*values, *(end for low_end, high_end, _ in groups for end in (low_end, high_end))]
    span = (min(reach), max(reach))
    traces += [_row_bar(group, y) for y, group in enumerate(reversed(groups))]
    height = 430 + _PIXELS_PER_ROW * len(groups)
    strip = _PIXELS_PER_ROW * len(groups) / height
    # D1 labels every digit: over less than a factor of 4, labels at 1, 2 and 5 would be too few.
    axis = log_axis(
        "learning rate (peak, per optimizer step)", **({} if needs_log_scale(reach) else {"dtick": "D1"})
    )
    shapes = _guideline_band(facts)
    notes: list[dict[str, object]] = []
    if base is not None and low <= base <= high:
        line = {"color": GREY, "width": 1.5, "dash": "dash"}
        shapes.append(
            {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": base, "y1": base, "line": line}
        )
        position = {"x": 1, "xref": "paper", "xanchor": "right", "y": base, "yanchor": "bottom"}
        notes.append({"text": "untouched base", "showarrow": False, "font": {"size": 11}, **position})
    layout = {
        "xaxis": axis | {"anchor": "y2" if rows else "y"},
        "yaxis": {
            "title": {"text": LOSS_AXIS},
            "range": [low, high],
            "domain": [strip + 0.04 * bool(rows), 0.92],
        },
        "yaxis3": {"domain": [0.93, 1.0], "range": [0, 1], "visible": False, "fixedrange": True},
        "shapes": shapes,
        "annotations": [
            *notes,
            *(_row_name(group, y, span) for y, group in enumerate(reversed(groups))),
        ],
    }
    if rows:
        layout["yaxis2"] = {
            "domain": [0.0, strip],
            "range": [-0.6, len(groups) - 0.4],
            "visible": False,
            "fixedrange": True,
        }
    return Plot(
        id="plot-rates",
        label="Evaluation loss of every trial against its learning rate, with the guideline's rates",
        caption=_caption(facts, rows, early, beyond),
        spec=plain_figure(traces, **layout),
        table=_table(trials),
        height=height,
    )


def _finished(trials: Sequence[TrialResult], names: Sequence[str]) -> list[object]:
    """A color and a mark for each scheduler, in alphabetical order."""
    kinds = sorted({str(t.values.get(SCHEDULER, "")) for t in trials})
    traces = []
    for i, kind in enumerate(kinds):
        color, symbol = CATEGORY_STYLES[i % len(CATEGORY_STYLES)]
        chosen = [t for t in trials if str(t.values.get(SCHEDULER, "")) == kind]
        traces.append(
            markers(
                [t.values[RATE] for t in chosen],
                [t.eval_loss for t in chosen],
                name=escaped(kind or "finished trial"),
                color=color,
                symbol=symbol,
                hovertext=[hover_text(t, names=names) for t in chosen],
            )
        )
    return traces


def _rings(facts: ReportFacts, names: Sequence[str]) -> list[object]:
    """Large marks around the best and the guideline default."""
    found = []
    for trial, name, color, symbol in (
        (facts.sweep.guideline_default, "guideline default", INK, "square-open"),
        (facts.sweep.best, "best", GREEN, "star"),
    ):
        if trial is not None and trial.eval_loss is not None and RATE in trial.values:
            found.append(
                markers(
                    [trial.values[RATE]],
                    [trial.eval_loss],
                    name=name,
                    color=color,
                    symbol=symbol,
                    size=17,
                    marker={"opacity": 1, "line": {"width": 2, "color": INK}},
                    hovertext=[f"<b>{name}</b><br>{hover_text(trial, names=names)}"],
                )
            )
    return found


def _stopped_early(trials: Sequence[TrialResult], names: Sequence[str]) -> list[object]:
    """Along the top edge, since their last loss belongs to a smaller budget."""
    return [
        outcome_markers(
            [t.values[RATE] for t in chosen],
            [0.5] * len(chosen),
            outcome,
            yaxis="y3",
            hovertext=[hover_text(t, names=names) for t in chosen],
        )
        for outcome in EARLY
        if (chosen := [t for t in trials if t.outcome == outcome])
    ]


def _groups(rows: Sequence[GuidelineRow]) -> list[_Group]:
    """Rows grouped by their rates; many name 2e-4."""
    found: dict[tuple[float, float], list[GuidelineRow]] = {}
    for row in rows:
        if row.low is not None and row.high is not None:
            found.setdefault((row.low, row.high), []).append(row)
    return [(low, high, same) for (low, high), same in sorted(found.items())]


def _row_bar(group: _Group, y: int) -> object:
    """The rows' rates as a bar or a point in the strip below the losses."""
    low, high, rows = group
    is_point = low == high
    return go.Scatter(
        x=[low] if is_point else [low, high],
        y=[y] if is_point else [y, y],
        yaxis="y2",
        mode="markers+lines",
        marker={"symbol": "diamond" if is_point else "line-ns-open", "size": 9, "color": BLUE},
        line={"color": BLUE, "width": 5},
        hoverinfo="text",
        hovertext="<br>".join(
            escaped(f"{row.id}: {shown_range(row)} ({row.condition[:60]})") for row in rows
        ),
        name=_row_label(rows),
        showlegend=False,
    )


def _row_label(rows: Sequence[GuidelineRow]) -> str:
    named = rows[0].id if len(rows) == 1 else plural(len(rows), "row")
    return f"{named}: {shown_range(rows[0])}"


def _row_name(group: _Group, y: int, span: tuple[float, float]) -> dict[str, object]:
    """Beside the bar, on the side with more room; without enough room inside the bar, or shortened."""
    low, high, rows = group
    whole = math.log(span[1] / span[0]) or 1.0
    left, right = math.log(low / span[0]) / whole, math.log(span[1] / high) / whole
    text = _row_label(rows)
    needed = _SHARE_PER_LETTER * len(text)
    label = {"y": y, "yref": "y2", "showarrow": False, "borderpad": 0, "font": {"size": 10}}
    if max(left, right) < needed:
        if math.log(high / low) / whole > needed:
            return label | {"text": escaped(text), "x": math.log10(low * high) / 2}
        text = text.split(":")[0]
    if right >= left:
        return label | {"text": escaped(text), "x": math.log10(high), "xanchor": "left", "xshift": 8}
    return label | {"text": escaped(text), "x": math.log10(low), "xanchor": "right", "xshift": -8}


def _guideline_band(facts: ReportFacts) -> list[dict[str, object]]:
    dimension = facts.sweep.dimensions.get(RATE)
    if dimension is None or not dimension.guideline_low or not dimension.guideline_high:
        return []
    low, high = dimension.guideline_low, dimension.guideline_high
    edges = {"x0": low, "x1": high, "y0": 0, "y1": 1, "yref": "paper", "layer": "below"}
    return [{"type": "rect", "fillcolor": BLUE, "opacity": 0.14, "line": {"width": 0}, **edges}]


def _caption(
    facts: ReportFacts,
    rows: Sequence[GuidelineRow],
    early: Sequence[TrialResult],
    beyond: Sequence[TrialResult],
) -> str:
    parts = ["Each mark is a trial at its full budget; lower is better."]
    dimension = facts.sweep.dimensions.get(RATE)
    if dimension is not None and dimension.guideline_low and dimension.guideline_high:
        span = f"{number(dimension.guideline_low)} to {number(dimension.guideline_high)}"
        parts.append(f"The shaded band spans the tables' own rates for this run, {span}.")
    if rows:
        parts.append("The strip below shows each row's own rate or range.")
    if early:
        parts.append(
            f"{plural(len(early), 'trial')} stopped early are on the top edge: their last loss belongs to "
            "a smaller budget and is not comparable."
        )
    if beyond:
        parts.append(f"{plural(len(beyond), 'finished trial')} above the range shown; the table has them.")
    base = facts.sweep.base_eval_loss
    if base is not None:
        parts.append(f"The untouched base has {loss(base)}.")
    return " ".join(parts)


def _table(trials: Sequence[TrialResult]) -> Table:
    ordered = sorted(trials, key=lambda t: float(t.values[RATE]))
    return Table(
        caption="Learning rate and loss of every trial, as a table",
        header=("trial", "learning rate", "scheduler", "outcome", "evaluation loss (nats per token)"),
        rows=[
            (
                str(t.number),
                value_text(t.values[RATE]),
                str(t.values.get(SCHEDULER, "")),
                readable(t.outcome),
                "" if t.eval_loss is None else loss(t.eval_loss),
            )
            for t in ordered
        ],
        folded=True,
    )
