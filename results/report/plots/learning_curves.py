"""Learning curves, with a mark where a trial stopped early."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from files_and_text.numbers import loss, plural
from results.report.blocks import Plot, Section, Table, text_section
from results.report.colors_and_marks import GREEN, INK, OUTCOME_STYLES, readable
from results.report.facts import EARLY, ReportFacts
from results.report.plots.figure_parts import (
    LOSS_AXIS,
    PERCENT_AXIS,
    escaped,
    loss_range,
    outcome_markers,
    plain_figure,
)
from results.sweep_result import TrialResult

_ORDER = ("complete", *EARLY, "running")


def learning_curves_section(facts: ReportFacts) -> Section:
    title = "Learning curves"
    trials = [t for t in facts.sweep.trials if facts.curves.get(t.number)]
    if not trials:
        return text_section("curves", title, "No trial has reported a loss yet.")
    return Section(id="curves", title=title, blocks=[_plot(facts, trials)])


def _plot(facts: ReportFacts, trials: Sequence[TrialResult]) -> Plot:
    base = facts.sweep.base_eval_loss
    seen = [value for t in trials for _, value in facts.curves[t.number]]
    span = loss_range([*seen, base] if base is not None else seen) or (0.0, 1.0)
    traces: list[object] = []
    for outcome in _ORDER:
        if chosen := [t for t in trials if t.outcome == outcome]:
            traces.append(_lines(facts, chosen, outcome))
    for outcome in _ORDER[1:]:
        if chosen := [t for t in trials if t.outcome == outcome]:
            traces.append(_ends(facts, chosen, outcome, span[1]))
    traces += _best_and_default(facts)
    beyond = sum(1 for t in trials if max(v for _, v in facts.curves[t.number]) > span[1])
    stopped = sum(1 for t in trials if t.outcome in EARLY)
    parts = ["One line per trial; a mark at its end says how a trial ended early."]
    parts.append(f"{plural(stopped, 'trial')} stopped early." if stopped else "No trial stopped early.")
    if base is not None:
        parts.append("All lines start at the untouched base.")
    if beyond:
        parts.append(f"{plural(beyond, 'curve')} leave the range shown; their marks are on its upper edge.")
    axis: dict[str, object] = {"title": {"text": PERCENT_AXIS}}
    if base is not None:
        axis["range"] = [0, 102]
    return Plot(
        id="plot-curves",
        label="Evaluation loss of every trial over its training budget",
        caption=" ".join(parts),
        spec=plain_figure(traces, xaxis=axis, yaxis={"title": {"text": LOSS_AXIS}, "range": list(span)}),
        table=_table(facts, trials),
        height=440,
    )


def _points(facts: ReportFacts, trial: TrialResult) -> list[tuple[int, float]]:
    base = facts.sweep.base_eval_loss
    start = [] if base is None else [(0, base)]
    return [*start, *facts.curves[trial.number]]


def _lines(facts: ReportFacts, trials: Sequence[TrialResult], outcome: str) -> object:
    """All trials of one outcome in one trace with gaps between them: hundreds of traces would draw slowly."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        points = _points(facts, trial)
        x += [*(percent for percent, _ in points), None]
        y += [*(value for _, value in points), None]
        text += [f"trial {trial.number}, {percent}%: {loss(value)}" for percent, value in points] + [""]
    color = OUTCOME_STYLES[outcome][0]
    many = len(trials) > 60
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=readable(outcome),
        line={
            "color": color,
            "width": 1 if many else 1.5 if outcome == "complete" else 2,
            "dash": "solid" if outcome == "complete" else "dot",
        },
        opacity=0.35 if many else 0.65 if outcome == "complete" else 0.9,
        hoverinfo="text",
        hovertext=text,
        connectgaps=False,
        showlegend=outcome == "complete",
    )


def _ends(facts: ReportFacts, trials: Sequence[TrialResult], outcome: str, top: float) -> object:
    ends = [facts.curves[t.number][-1] for t in trials]
    return outcome_markers(
        [percent for percent, _ in ends],
        [min(value, top) for _, value in ends],
        outcome,
        hovertext=[
            f"<b>trial {t.number}</b> {readable(outcome)} at {percent}%: {loss(value)}"
            f"<br>{escaped(t.stop_reason[:120])}"
            for t, (percent, value) in zip(trials, ends, strict=True)
        ],
        cliponaxis=False,
    )


def _best_and_default(facts: ReportFacts) -> list[object]:
    """Thick lines for the best and the guideline default, drawn on top."""
    found = []
    best, default = facts.sweep.best, facts.sweep.guideline_default
    same = best is not None and default is not None and best.number == default.number
    for trial, name, color, dash in (
        (None if same else default, "guideline default", INK, "dash"),
        (best, "best", GREEN, "solid"),
    ):
        if trial is not None and facts.curves.get(trial.number):
            points = _points(facts, trial)
            found.append(
                go.Scatter(
                    x=[percent for percent, _ in points],
                    y=[value for _, value in points],
                    mode="lines",
                    name=name,
                    line={"color": color, "width": 3.5, "dash": dash},
                    hoverinfo="text",
                    hovertext=[f"<b>{name}</b>, {percent}%: {loss(value)}" for percent, value in points],
                )
            )
    return found


def _table(facts: ReportFacts, trials: Sequence[TrialResult]) -> Table:
    percents = sorted({percent for t in trials for percent, _ in facts.curves[t.number]})
    rows = []
    for trial in trials:
        seen = dict(facts.curves[trial.number])
        losses = [loss(seen[percent]) if percent in seen else "" for percent in percents]
        rows.append((str(trial.number), readable(trial.outcome), *losses))
    return Table(
        caption="Loss (nats per token) of every trial at each share of its budget, as a table",
        header=("trial", "outcome", *(f"{percent}%" for percent in percents)),
        rows=rows,
        folded=True,
    )
