"""Charts as blocks of the page, and the sections that are a chart."""

from __future__ import annotations

from results.charts.chart import Chart
from results.charts.svg import svg
from results.report.blocks import Block, Fold, Paragraph, Picture, Section
from results.report.facts import ReportFacts


def picture(chart: Chart) -> Picture:
    return Picture(svg=svg(chart), caption=chart.caption)


def importance_section(facts: ReportFacts) -> Section | None:
    """A sentence where there are too few trials to say it; None before the first finished one."""
    found = facts.importance
    if not found.num_trials:
        return None
    blocks: list[Block] = [] if found.shares else [Paragraph(text=found.reason)]
    return Section(id="importance", title="What mattered", blocks=blocks)


def timeline_fold(facts: ReportFacts) -> Fold | None:
    return None
