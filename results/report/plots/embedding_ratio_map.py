"""Loss by learning rate and embedding ratio."""

from __future__ import annotations

from collections.abc import Sequence

from files_and_text.numbers import loss, value_text
from files_and_text.plain_values import finite
from results.report.blocks import Plot, Section, Table, text_section
from results.report.colors_and_marks import BLUE, COLOR_SCALE, INK
from results.report.facts import EARLY, ReportFacts
from results.report.plots.figure_parts import (
    LOSS_AXIS,
    axis_title,
    hover_text,
    log_axis,
    markers,
    needs_log_scale,
    outcome_markers,
    plain_figure,
)
from results.sweep_result import TrialResult

RATE, RATIO = "learning_rate", "embedding_lr_ratio"


def embedding_ratio_section(facts: ReportFacts) -> Section:
    title = "Embedding ratio and learning rate together"
    trials = [
        t
        for t in facts.sweep.started
        if (finite(t.values.get(RATE)) or 0) > 0 and (finite(t.values.get(RATIO)) or 0) > 0
    ]
    finished = sorted((t for t in trials if t.eval_loss is not None), key=lambda t: t.number)
    if not finished:
        trained = facts.sweep.context.get("train_embeddings")
        why = (
            "No finished trial has an embedding rate, so there is no map."
            if trained
            else "This sweep does not train embeddings, so there is no embedding rate to map."
        )
        return text_section("ratio", title, why)
    return Section(id="ratio", title=title, blocks=[_plot(facts, trials, finished)])


def _plot(facts: ReportFacts, trials: Sequence[TrialResult], finished: Sequence[TrialResult]) -> Plot:
    names = list(facts.sweep.dimensions)
    traces = []
    for outcome in EARLY:
        if chosen := [t for t in trials if t.outcome == outcome]:
            hovers = [hover_text(t, names=names) for t in chosen]
            x, y = _coordinates(chosen)
            traces.append(outcome_markers(x, y, outcome, hovertext=hovers, marker={"opacity": 0.6}))
    traces.append(_colored_by_rank(finished, names))
    best = facts.sweep.best
    if best is not None and best in finished:
        x, y = _coordinates([best])
        ring = {"line": {"width": 2.5, "color": INK}, "opacity": 1}
        traces.append(
            markers(
                x,
                y,
                name="best",
                color=INK,
                symbol="star-open",
                size=22,
                marker=ring,
                hovertext=[f"<b>best</b><br>{hover_text(best, names=names)}"],
            )
        )
    rates, ratios = _coordinates(trials)
    layout = {
        "xaxis": _axis("learning rate (peak, per optimizer step)", rates),
        "yaxis": _axis(axis_title(RATIO), ratios),
        "shapes": _box(facts),
    }
    return Plot(
        id="plot-ratio",
        label="Loss of every trial by learning rate and embedding ratio",
        caption=_caption(facts),
        spec=plain_figure(traces, **layout),
        table=_table(finished),
        height=460,
    )


def _coordinates(trials: Sequence[TrialResult]) -> tuple[list[float], list[float]]:
    return [float(t.values[RATE]) for t in trials], [float(t.values[RATIO]) for t in trials]


def _axis(title: str, values: Sequence[float]) -> dict[str, object]:
    return log_axis(title) if needs_log_scale(values) else {"title": {"text": title}}


def _colored_by_rank(finished: Sequence[TrialResult], names: Sequence[str]) -> object:
    """Colored by rank: by loss, one diverged trial would leave one color for all others."""
    order = sorted(finished, key=lambda t: (t.eval_loss, t.number))
    ranks = {t.number: rank for rank, t in enumerate(order, start=1)}
    x, y = _coordinates(finished)
    last = len(order)
    ticks = sorted({1, (1 + last) // 2, last})
    return markers(
        x,
        y,
        name="finished trial",
        color=INK,
        symbol="circle",
        size=13,
        hovertext=[f"{hover_text(t, names=names)}<br>rank {ranks[t.number]} of {last}" for t in finished],
        marker={
            "color": [ranks[t.number] for t in finished],
            "colorscale": COLOR_SCALE,
            "reversescale": True,
            "cmin": 1,
            "cmax": max(last, 2),
            "opacity": 1,
            "line": {"width": 1, "color": INK},
            "colorbar": {
                "title": {"text": LOSS_AXIS, "side": "right", "font": {"size": 12}},
                "tickvals": ticks,
                "ticktext": [loss(order[tick - 1].eval_loss) for tick in ticks],
                "thickness": 14,
                "outlinewidth": 0,
            },
        },
    )


def _box(facts: ReportFacts) -> list[dict[str, object]]:
    """The guidelines' ranges of both rates."""
    rate, ratio = (facts.sweep.dimensions.get(name) for name in (RATE, RATIO))
    if rate is None or ratio is None:
        return []
    x0, x1, y0, y1 = rate.guideline_low, rate.guideline_high, ratio.guideline_low, ratio.guideline_high
    if not (x0 and x1 and y0 and y1):
        return []
    line = {"color": BLUE, "width": 2, "dash": "dash"}
    return [
        {"type": "rect", "layer": "below", "fillcolor": "rgba(0,114,178,0.10)", "line": line}
        | {"x0": x0, "x1": x1, "y0": y0, "y1": y1}
    ]


def _caption(facts: ReportFacts) -> str:
    parts = [
        "Each circle is a finished trial, coloured by its rank: yellow for the lowest loss, dark blue for "
        "the highest; the bar gives the loss at its ranks. The star rings the best."
    ]
    if _box(facts):
        parts.append("The dashed box spans what the tables say of both rates.")
    parts.append("Trials stopped early have the marks of the legend and no colour of their own.")
    return " ".join(parts)


def _table(finished: Sequence[TrialResult]) -> Table:
    return Table(
        caption="Both rates and the loss of every finished trial, as a table, best first",
        header=("trial", "learning rate", "embedding ratio", "evaluation loss (nats per token)"),
        rows=[
            (str(t.number), value_text(t.values[RATE]), value_text(t.values[RATIO]), loss(t.eval_loss))
            for t in sorted(finished, key=lambda t: (t.eval_loss, t.number))
        ],
        folded=True,
    )
