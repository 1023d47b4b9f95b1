"""Charts as blocks of the page, and the sections and folds that are a chart."""

from __future__ import annotations

from results.charts.catalog import BUILDERS
from results.charts.svg import svg
from results.report.blocks import Block, Fold, Paragraph, Picture, Section
from results.report.facts import ReportFacts


def pictures(facts: ReportFacts, name: str) -> list[Picture]:
    """One chart by its name in the catalog; empty where it has nothing to show."""
    chart = BUILDERS[name](facts.sweep, facts.answer, facts.importance)
    return [] if chart is None else [Picture(svg=svg(chart), caption=chart.caption)]


def curves_section(facts: ReportFacts) -> Section | None:
    found = pictures(facts, "curves")
    return Section(id="curves", title="Learning curves", blocks=found) if found else None


def embedding_section(facts: ReportFacts) -> Section | None:
    """None where embeddings are frozen, or have one ratio in all trials."""
    found = pictures(facts, "embedding_ratio")
    return Section(id="embedding", title="Embedding rate", blocks=found) if found else None


def importance_section(facts: ReportFacts) -> Section | None:
    """A sentence where there are too few trials to say it; None before the first finished one."""
    found = facts.importance
    if not found.num_trials:
        return None
    blocks: list[Block] = [*pictures(facts, "importance")] or [Paragraph(text=found.reason)]
    return Section(id="importance", title="What mattered", blocks=blocks)


def parallel_fold(facts: ReportFacts) -> Fold | None:
    found = pictures(facts, "parallel")
    return Fold(summary="All hyperparameters in one chart", blocks=found) if found else None


def timeline_fold(facts: ReportFacts) -> Fold | None:
    found = pictures(facts, "timeline")
    return Fold(summary="What ran where and when", blocks=found) if found else None
