"""Everything that only some readers need, folded: rows, seeds, trials, seats, and how to reproduce it."""

from __future__ import annotations

from results.report.blocks import Section
from results.report.facts import ReportFacts
from results.report.sections.charts import parallel_fold, timeline_fold
from results.report.sections.early_ends import pruned_fold
from results.report.sections.guideline_verdicts import arms_fold, rows_fold
from results.report.sections.reproduce import reproduce_fold
from results.report.sections.trials import trials_fold

_FOLDS = (arms_fold, rows_fold, trials_fold, pruned_fold, parallel_fold, timeline_fold, reproduce_fold)


def details_section(facts: ReportFacts) -> Section:
    folds = [fold for build in _FOLDS if (fold := build(facts)) is not None]
    return Section(id="details", title="Details", blocks=folds)
