"""Embedding ratio x learning rate: which pairs of rates gave a low loss."""

from __future__ import annotations

from collections.abc import Sequence

from files_and_text.numbers import loss, value_text
from files_and_text.plain_values import finite
from results.report.blocks import Paragraph, Plot, Section, Table
from results.report.facts import Facts
from results.report.palette import BLUE, COLOUR_SCALE, INK
from results.report.plots.figures import (
    LOSS_AXIS,
    axis_title,
    hover,
    is_log,
    log_axis,
    marks,
    outcome_marks,
    spec,
)
from results.sweep_result import TrialResult

RATE, RATIO = "learning_rate", "embedding_lr_ratio"
_EARLY = ("pruned", "diverged", "out_of_memory", "failed")


def ratio_map(facts: Facts) -> Section:
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
        return Section(id="ratio", title=title, blocks=[Paragraph(text=why)])
    return Section(id="ratio", title=title, blocks=[_plot(facts, trials, finished)])


def _plot(facts: Facts, trials: Sequence[TrialResult], finished: Sequence[TrialResult]) -> Plot:
    names = list(facts.sweep.dimensions)
    traces = []
    for outcome in _EARLY:
        if chosen := [t for t in trials if t.outcome == outcome]:
            hovers = [hover(t, names=names) for t in chosen]
            x, y = _place(chosen)
            traces.append(outcome_marks(x, y, outcome, hovertext=hovers, marker={"opacity": 0.6}))
    traces.append(_coloured(finished, names))
    best = facts.sweep.best
    if best is not None and best in finished:
        x, y = _place([best])
        ring = {"line": {"width": 2.5, "color": INK}, "opacity": 1}
        traces.append(
            marks(
                x,
                y,
                name="best",
                colour=INK,
                symbol="star-open",
                size=22,
                marker=ring,
                hovertext=[f"<b>best</b><br>{hover(best, names=names)}"],
            )
        )
    rates, ratios = _place(trials)
    layout = {
        "xaxis": _axis("learning rate (peak, per optimizer step)", rates),
        "yaxis": _axis(axis_title(RATIO), ratios),
        "shapes": _box(facts),
    }
    return Plot(
        id="plot-ratio",
        label="Loss of every trial by learning rate and embedding ratio",
        caption=_caption(facts),
        spec=spec(traces, **layout),
        table=_table(finished),
        height=460,
    )


def _place(trials: Sequence[TrialResult]) -> tuple[list[float], list[float]]:
    return [float(t.values[RATE]) for t in trials], [float(t.values[RATIO]) for t in trials]


def _axis(title: str, values: Sequence[float]) -> dict[str, object]:
    return log_axis(title) if is_log(values) else {"title": {"text": title}}


def _coloured(finished: Sequence[TrialResult], names: Sequence[str]) -> object:
    """Colour by rank, not by loss: one trial that blew up would leave one colour for all others."""
    order = sorted(finished, key=lambda t: (t.eval_loss, t.number))
    ranks = {t.number: place for place, t in enumerate(order, start=1)}
    x, y = _place(finished)
    last = len(order)
    ticks = sorted({1, (1 + last) // 2, last})
    return marks(
        x,
        y,
        name="finished trial",
        colour=INK,
        symbol="circle",
        size=13,
        hovertext=[f"{hover(t, names=names)}<br>rank {ranks[t.number]} of {last}" for t in finished],
        marker={
            "color": [ranks[t.number] for t in finished],
            "colorscale": COLOUR_SCALE,
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


def _box(facts: Facts) -> list[dict[str, object]]:
    """What the tables say of both rates at once."""
    rate, ratio = (facts.sweep.dimensions.get(name) for name in (RATE, RATIO))
    if rate is None or ratio is None:
        return []
    if (
        not rate.guideline_low
        or not rate.guideline_high
        or not ratio.guideline_low
        or not ratio.guideline_high
    ):
        return []
    ends = {
        "x0": rate.guideline_low,
        "x1": rate.guideline_high,
        "y0": ratio.guideline_low,
        "y1": ratio.guideline_high,
    }
    line = {"color": BLUE, "width": 2, "dash": "dash"}
    return [{"type": "rect", "layer": "below", "fillcolor": "rgba(0,114,178,0.10)", "line": line, **ends}]


def _caption(facts: Facts) -> str:
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
