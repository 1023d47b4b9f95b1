"""One line for each hyperparameter: the best here, what the tables say, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence

from results.answer.answer import Answer, ParameterAnswer
from results.report.blocks import Block, Cell, Command, Commands, Paragraph, Section, Table
from results.report.facts import ReportFacts
from results.report.sections.row_cells import badge
from results.text.parameters import best_text, parameter_title, shared_cost, table_lines, together

_HEADER = ("hyperparameter", "best here", "the tables say", "comparison", "its cost", "verdict")


def parameters_section(facts: ReportFacts) -> Section | None:
    """None before the first trial, and where no guideline row speaks of what was searched."""
    parameters = [parameter for parameter in facts.answer.parameters if parameter.tables]
    if not parameters:
        return None
    rows = [_rows(parameter, facts.answer) for parameter in parameters]
    others = [row for found in rows for row in found[1:]]
    caption = "What the tables' values cost: loss above the best's, in percent of the best's loss"
    blocks: list[Block] = [
        Table(caption=caption, header=_HEADER, rows=[found[0] for found in rows], stacked=True)
    ]
    if note := shared_cost(facts.answer):
        blocks.append(Paragraph(text=note))
    if open_cost := together(facts.answer):
        why, command = open_cost
        blocks += [Paragraph(text=why), Commands(commands=[Command(text=command, why="")])]
    if others:
        folded = f"Other values in the tables ({len(others)})"
        blocks.append(Table(caption=folded, header=_HEADER, rows=others, folded=True, stacked=True))
    return Section(id="parameters", title="Against the guideline tables", blocks=blocks)


def _rows(parameter: ParameterAnswer, answer: Answer) -> list[Sequence[Cell]]:
    """One for each value in the tables: the guideline default's own, or the most named, first."""
    return [
        (
            parameter_title(parameter.parameter),
            best_text(parameter, answer),
            f"{line.value} ({line.rows})",
            line.position,
            line.cost,
            badge(value.word),
        )
        for value, line in zip(parameter.tables, table_lines(parameter, answer), strict=True)
    ]
