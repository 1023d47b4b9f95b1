"""A bar chart of the hyperparameters' importance."""

from __future__ import annotations

import plotly.graph_objects as go

from results.report.blocks import Plot, Section, Table, text_section
from results.report.colors_and_marks import BLUE
from results.report.facts import ReportFacts
from results.report.plots.figure_parts import escaped, plain_figure


def importance_section(facts: ReportFacts) -> Section:
    found, title = facts.importance, "What mattered"
    if not found.shares:
        return text_section("importance", title, found.reason)
    names = list(found.shares)
    shares = [100 * found.shares[name] for name in names]
    bars = go.Bar(
        x=shares,
        y=[escaped(name) for name in names],
        orientation="h",
        marker={"color": BLUE},
        text=[f"{share:.0f}%" for share in shares],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="none",
        showlegend=False,
    )
    plot = Plot(
        id="plot-importance",
        label="Share of importance of each hyperparameter",
        caption="Optuna's importance (PED-ANOVA): how much each hyperparameter decides whether a trial is "
        "among the best tenth. The shares sum to 100% and say nothing of the direction.",
        spec=plain_figure(
            [bars],
            xaxis={"title": {"text": "share of importance (%)"}, "range": [0, max(shares) * 1.15]},
            yaxis={"autorange": "reversed", "automargin": True, "ticks": ""},
        ),
        table=Table(
            caption="Importances as a table",
            header=("hyperparameter", "share"),
            rows=[(name, f"{100 * share:.1f}%") for name, share in found.shares.items()],
            folded=True,
        ),
        height=130 + 38 * len(names),
    )
    return Section(id="importance", title=title, blocks=[plot])
