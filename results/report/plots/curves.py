"""Learning curves, with the trials that were stopped early marked where they stopped."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from files_and_text.numbers import loss, plural
from results.report.blocks import Paragraph, Plot, Section, Table
from results.report.facts import Facts
from results.report.palette import GREEN, INK, OUTCOMES, spoken
from results.report.plots.figures import LOSS_AXIS, PERCENT_AXIS, drawn, loss_range, outcome_marks, spec
from results.sweep_result import TrialResult

_ORDER = ("complete", "pruned", "diverged", "out_of_memory", "failed", "running")
_ENDS = ("pruned", "diverged", "out_of_memory", "failed", "running")


def curves(facts: Facts) -> Section:
    title = "Learning curves"
    trials = [t for t in facts.sweep.trials if facts.curves.get(t.number)]
    if not trials:
        why = "No trial has reported a loss yet."
        return Section(id="curves", title=title, blocks=[Paragraph(text=why)])
    return Section(id="curves", title=title, blocks=[_plot(facts, trials)])


def _plot(facts: Facts, trials: Sequence[TrialResult]) -> Plot:
    base = facts.sweep.base_eval_loss
    seen = [value for t in trials for _, value in facts.curves[t.number]]
    span = loss_range([*seen, base] if base is not None else seen) or (0.0, 1.0)
    traces: list[object] = []
    for outcome in _ORDER:
        if chosen := [t for t in trials if t.outcome == outcome]:
            traces.append(_lines(facts, chosen, outcome))
    for outcome in _ENDS:
        if chosen := [t for t in trials if t.outcome == outcome]:
            traces.append(_ends(facts, chosen, outcome, span[1]))
    traces += _named(facts)
    beyond = sum(1 for t in trials if max(v for _, v in facts.curves[t.number]) > span[1])
    stopped = sum(1 for t in trials if t.outcome in _ENDS[:-1])
    parts = ["One line per trial; a mark at its end says how a trial ended early."]
    parts.append(f"{plural(stopped, 'trial')} stopped early." if stopped else "No trial stopped early.")
    if base is not None:
        parts.append("All lines start at the untouched base.")
    if beyond:
        parts.append(f"{plural(beyond, 'curve')} leave the range shown; their marks stand on its upper edge.")
    axis = {"title": {"text": PERCENT_AXIS}, "range": [0 if base is not None else None, 102]}
    if base is None:
        axis = {"title": {"text": PERCENT_AXIS}}
    return Plot(
        id="plot-curves",
        label="Evaluation loss of every trial over its training budget",
        caption=" ".join(parts),
        spec=spec(traces, xaxis=axis, yaxis={"title": {"text": LOSS_AXIS}, "range": list(span)}),
        table=_table(facts, trials),
        height=440,
    )


def _points(facts: Facts, trial: TrialResult) -> list[tuple[int, float]]:
    base = facts.sweep.base_eval_loss
    start = [] if base is None else [(0, base)]
    return [*start, *facts.curves[trial.number]]


def _lines(facts: Facts, trials: Sequence[TrialResult], outcome: str) -> object:
    """All trials of one outcome in one trace, parted by gaps: hundreds of traces would be slow to draw."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial in trials:
        points = _points(facts, trial)
        x += [*(percent for percent, _ in points), None]
        y += [*(value for _, value in points), None]
        text += [f"trial {trial.number}, {percent}%: {loss(value)}" for percent, value in points] + [""]
    colour = OUTCOMES[outcome][0]
    many = len(trials) > 60
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        name=spoken(outcome),
        line={
            "color": colour,
            "width": 1 if many else 1.5 if outcome == "complete" else 2,
            "dash": "solid" if outcome == "complete" else "dot",
        },
        opacity=0.35 if many else 0.65 if outcome == "complete" else 0.9,
        hoverinfo="text",
        hovertext=text,
        connectgaps=False,
        showlegend=outcome == "complete",
    )


def _ends(facts: Facts, trials: Sequence[TrialResult], outcome: str, top: float) -> object:
    ends = [facts.curves[t.number][-1] for t in trials]
    return outcome_marks(
        [percent for percent, _ in ends],
        [min(value, top) for _, value in ends],
        outcome,
        hovertext=[
            f"<b>trial {t.number}</b> {spoken(outcome)} at {percent}%: {loss(value)}"
            f"<br>{drawn(t.stop_reason[:120])}"
            for t, (percent, value) in zip(trials, ends, strict=True)
        ],
        cliponaxis=False,
    )


def _named(facts: Facts) -> list[object]:
    """The best and the guideline default, drawn last and thick."""
    found = []
    best, default = facts.sweep.best, facts.sweep.guideline_default
    same = best is not None and default is not None and best.number == default.number
    for trial, name, colour, dash in (
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
                    line={"color": colour, "width": 3.5, "dash": dash},
                    hoverinfo="text",
                    hovertext=[f"<b>{name}</b>, {percent}%: {loss(value)}" for percent, value in points],
                )
            )
    return found


def _table(facts: Facts, trials: Sequence[TrialResult]) -> Table:
    percents = sorted({percent for t in trials for percent, _ in facts.curves[t.number]})
    rows = []
    for trial in trials:
        seen = dict(facts.curves[trial.number])
        losses = [loss(seen[percent]) if percent in seen else "" for percent in percents]
        rows.append((str(trial.number), spoken(trial.outcome), *losses))
    return Table(
        caption="Loss (nats per token) of every trial at each share of its budget, as a table",
        header=("trial", "outcome", *(f"{percent}%" for percent in percents)),
        rows=rows,
        folded=True,
    )
