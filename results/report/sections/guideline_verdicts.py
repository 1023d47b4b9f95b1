"""Every guideline row by itself, with its source and conditions, and what was run again on new seeds."""

from __future__ import annotations

from collections.abc import Sequence

from files_and_text.numbers import value_text
from results.report.blocks import Block, Fold, Paragraph, Table
from results.report.facts import ReportFacts
from results.report.sections import row_cells
from results.text.conditions import ShownCondition, shown_conditions
from results.text.parameters import times_text
from results.text.row_counts import counts_text
from results.text.rows import early_ends, evidence, reason_not_tested
from results.text.values import shown_range
from results.verdict.arm_comparisons import ArmComparisons
from results.verdict.row_verdict import RowVerdict


def rows_fold(facts: ReportFacts) -> Fold | None:
    """The verdict on every row, and why others were not tested; None where the study names no rows."""
    verdict = facts.verdict
    if verdict is None or not verdict.rows:
        return None
    tested = [row for row in verdict.rows if row.is_tested and row.row.topic != "stability"]
    untested = [row for row in verdict.rows if not row.is_tested]
    blocks: list[Block] = [_conditions(tested, verdict.margin), _table(tested)] if tested else []
    if untested:
        blocks.append(_untested(untested))
    return Fold(summary=f"{counts_text(verdict.rows)}; one by one", blocks=blocks)


def arms_fold(facts: ReportFacts) -> Fold | None:
    """What was run again, arm by arm; None before a confirmation."""
    found = None if facts.verdict is None else facts.verdict.replicates
    if found is None or facts.verdict is None:
        return None
    runs = _replicates(found, is_of_best=found.is_of(facts.verdict.best))
    return Fold(summary=f"Runs on new seeds ({len(found.arms)} configurations)", blocks=[runs])


def _conditions(rows: Sequence[RowVerdict], margin: float) -> Paragraph:
    """The sweep's own conditions, the same for every row."""
    known = [
        _shown(c) for c in shown_conditions(rows[0].measurement.conditions) if c.here and c.name != "task"
    ]
    return Paragraph(
        text=f"This sweep: {', '.join(known) or 'its conditions were not recorded'}. Differences up to "
        f"{100 * margin:g}% of the best's loss do not count."
    )


def _shown(condition: ShownCondition) -> str:
    match condition.name:
        case "model size":
            return f"{condition.here} parameters"
        case "steps":
            return condition.here
        case "base":
            return f"{condition.here} weights"
        case "alpha":
            return f"adapters scaled by {condition.here}"
        case "embeddings trained":
            return f"embeddings {'trained' if condition.here == 'yes' else 'frozen'}"
    return f"{condition.name} {condition.here}"


def _table(rows: Sequence[RowVerdict]) -> Table:
    return Table(
        caption="Tested rows. Cost: loss above the best's, in nats per token.",
        header=("row", "it says", "verdict", "best here", "its cost", "as good as the best", "for", "source"),
        rows=[
            (
                row.row.id,
                _row_values(row),
                row_cells.badge(row.word),
                _best(row),
                "; ".join([row_cells.effect(row), *([evidence(row)] if row.measurement.cost else [])]),
                row_cells.band(row),
                row_cells.conditions(row),
                str(row.row.source),
            )
            for row in rows
        ],
        stacked=True,
    )


def _row_values(row: RowVerdict) -> str:
    has_value = bool(row.row.choices) or row.row.low is not None
    return " ".join(filter(None, (row.row.parameter, shown_range(row.row) if has_value else "")))


def _best(row: RowVerdict) -> str:
    """The best value and where it lies relative to the row's."""
    found = row.measurement
    if found.best_value is None:
        return ""
    if not found.distance_log10:
        return f"{value_text(found.best_value)}, {found.position}"
    side = "higher" if found.position == "above" else "lower"
    return f"{value_text(found.best_value)}, {times_text(10**found.distance_log10)} {side}"


def _replicates(found: ArmComparisons, *, is_of_best: bool) -> Table:
    state = "no more seeds are needed" if found.clear else "more seeds can still change a verdict"
    if not is_of_best:
        state = "the best here is an earlier one, and trials were added since"
    return Table(
        caption=f"Loss in nats per token, over the same seeds; {state}",
        header=("configuration", "role", "finished", "mean loss", "spread of a run", "its cost", "interval"),
        rows=row_cells.arm_cells(found),
        stacked=True,
    )


def _untested(rows: Sequence[RowVerdict]) -> Table:
    return Table(
        caption=f"Rows not tested ({len(rows)}), and why",
        header=("row", "value", "why not"),
        rows=[
            (row.row.id, shown_range(row.row), "; ".join([reason_not_tested(row), *early_ends(row)]))
            for row in rows
        ],
        folded=True,
        stacked=True,
    )
