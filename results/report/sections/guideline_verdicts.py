"""The verdict on every guideline row, with its source and conditions."""

from __future__ import annotations

from collections.abc import Sequence

from files_and_text.numbers import value_text
from results.report.blocks import Block, Fold, Paragraph, Table
from results.report.facts import ReportFacts
from results.report.sections import row_cells
from results.text.conditions import shown_conditions
from results.text.rows import early_ends, evidence, reason_not_tested
from results.text.values import shown_range
from results.verdict.arm_comparisons import ArmComparisons
from results.verdict.row_verdict import RowVerdict


def rows_fold(facts: ReportFacts) -> Fold | None:
    """The verdict on every row, with its source and conditions; None where the study names no rows."""
    verdict = facts.verdict
    if verdict is None or not verdict.rows:
        return None
    tested = [row for row in verdict.rows if row.is_tested and row.row.topic != "stability"]
    untested = [row for row in verdict.rows if not row.is_tested]
    blocks: list[Block] = []
    if tested:
        blocks += [
            _sweep_conditions(tested, verdict.margin),
            _table(tested),
            _sentences(tested, verdict.margin),
        ]
    if untested:
        blocks.append(_untested(untested))
    return Fold(summary=f"Guideline rows, one by one ({len(tested) + len(untested)})", blocks=blocks)


def arms_fold(facts: ReportFacts) -> Fold | None:
    """What was run again, arm by arm; None before a confirmation."""
    found = None if facts.verdict is None else facts.verdict.replicates
    if found is None:
        return None
    return Fold(summary=f"Runs on new seeds ({len(found.arms)} configurations)", blocks=[_replicates(found)])


def _table(rows: Sequence[RowVerdict]) -> Table:
    return Table(
        caption="Guideline rows that this sweep tested. Loss in nats per token, against the best: positive "
        "when the row's value is worse.",
        header=(
            "row",
            "the row says",
            "verdict",
            "best here",
            "loss of the row",
            "values within the margin",
            "conditions of the row",
            "source",
        ),
        rows=[
            (
                row.row.id,
                _row_values(row),
                row_cells.badge(row.word),
                _best(row),
                row_cells.effect(row),
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
    """The best value and its position relative to the row's."""
    found = row.measurement
    if found.best_value is None:
        return ""
    if not found.distance_log10:
        return f"{value_text(found.best_value)}: {found.position}"
    factor = 10 ** (found.distance_log10 if found.position == "above" else -found.distance_log10)
    return f"{value_text(found.best_value)}: {found.position}, {float(f'{factor:.2g}'):g} times the row's"


def _sweep_conditions(rows: Sequence[RowVerdict], margin: float) -> Paragraph:
    """The sweep's own conditions, the same for every row."""
    conditions = shown_conditions(rows[0].measurement.conditions) if rows else []
    known = [
        c.here if c.name in c.here else f"{c.name} {c.here}"
        for c in conditions
        if c.here and c.name != "task"
    ]
    return Paragraph(
        text=f"Conditions of this sweep: {', '.join(known) or 'none recorded'}. What a row's own conditions "
        f"leave out, the tables do not say. The margin is {100 * margin:g}% of the best's loss."
    )


def _sentences(rows: Sequence[RowVerdict], margin: float) -> Table:
    return Table(
        caption="The same in words, with the trials it rests on",
        header=("row", "judgement", "evidence"),
        rows=[(row.row.id, row_cells.sentence(row, margin), evidence(row)) for row in rows],
        folded=True,
        stacked=True,
    )


def _replicates(found: ArmComparisons) -> Table:
    state = "the stopping rule is met" if found.clear else "more seeds can still change a word"
    return Table(
        caption=f"Configs run again on common seeds ({state}). Loss in nats per token.",
        header=("config", "role", "finished", "mean loss", "spread of a run", "against the best", "interval"),
        rows=row_cells.arm_cells(found),
        stacked=True,
    )


def _untested(rows: Sequence[RowVerdict]) -> Table:
    return Table(
        caption=f"Guideline rows not tested ({len(rows)}), and why",
        header=("row", "value", "why not"),
        rows=[
            (row.row.id, shown_range(row.row), "; ".join([reason_not_tested(row), *early_ends(row)]))
            for row in rows
        ],
        folded=True,
        stacked=True,
    )
