"""The verdict on every guideline row, with its source and conditions."""

from __future__ import annotations

from collections.abc import Sequence

from results.conditions import show, shown_range
from results.report import row_words
from results.report.blocks import Block, Cell, Paragraph, Section, Table
from results.report.facts import Facts
from results.row_verdict import RowVerdict
from results.weighing import Weighed


def verdicts(facts: Facts) -> Section:
    rows = [] if facts.verdict is None else list(facts.verdict.rows)
    tested = [row for row in rows if row.is_tested and row.row.topic != "stability"]
    untested = [row for row in rows if not row.is_tested]
    blocks: list[Block] = []
    if not rows:
        blocks.append(Paragraph(text="The study names no guideline rows, so none is judged."))
    elif not tested:
        blocks.append(Paragraph(text="This sweep tests no guideline row."))
    else:
        blocks += [_table(tested), _sentences(tested, facts.verdict.margin if facts.verdict else 0.0)]
    if facts.verdict is not None and facts.verdict.replicates is not None:
        blocks.append(_replicates(facts.verdict.replicates))
    if untested:
        blocks.append(_untested(untested))
    return Section(id="verdict", title="Where the guidelines held", blocks=blocks)


def _table(rows: Sequence[RowVerdict]) -> Table:
    """Columns that no row fills are left out: without replicates there are no words and intervals."""
    columns: dict[str, list[Cell]] = {
        "row": [row.row.id for row in rows],
        "the row says": [f"{row.row.parameter or ''} {shown_range(row.row)}".strip() for row in rows],
        "verdict": [row_words.badge(row.verdict) for row in rows],
        "best here": [_best(row) for row in rows],
        "the best lies": [
            "" if row.position == "not_tested" else row_words.badge(row.position) for row in rows
        ],
        "loss of the row": [row_words.effect(row) for row in rows],
        "interval": [row_words.interval(row.comparison) for row in rows],
        "band of good values": [row_words.band(row) for row in rows],
        "conditions": [row_words.conditions(row) for row in rows],
        "source": [str(row.row.source) for row in rows],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    return Table(
        caption="Guideline rows that this sweep tested. Loss in nats per token, against the best.",
        header=tuple(kept),
        rows=list(zip(*kept.values(), strict=True)),
        stacked=True,
    )


def _best(row: RowVerdict) -> str:
    if row.best_value is None:
        return ""
    if not row.distance_log10:
        return show(row.best_value)
    factor = 10 ** (row.distance_log10 if row.position == "above" else -row.distance_log10)
    return f"{show(row.best_value)}, {float(f'{factor:.2g}'):g} times the row's"


def _sentences(rows: Sequence[RowVerdict], margin: float) -> Table:
    return Table(
        caption="The same in words, with the trials it rests on",
        header=("row", "judgement", "evidence"),
        rows=[(row.row.id, row_words.sentence(row, margin), row.evidence) for row in rows],
        folded=True,
        stacked=True,
    )


def _replicates(weighed: Weighed) -> Table:
    state = "the stopping rule is met" if weighed.clear else "more seeds can still change a word"
    return Table(
        caption=f"Configs run again on common seeds ({state}). Loss in nats per token.",
        header=("config", "role", "finished", "mean loss", "spread of a run", "against the best", "interval"),
        rows=row_words.arm_cells(weighed),
        stacked=True,
    )


def _untested(rows: Sequence[RowVerdict]) -> Table:
    return Table(
        caption=f"Guideline rows not tested ({len(rows)}), and why",
        header=("row", "value", "why not"),
        rows=[(row.row.id, shown_range(row.row), "; ".join([row.reason, *row.stopped])) for row in rows],
        folded=True,
        stacked=True,
    )
