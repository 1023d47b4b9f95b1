"""A verdict for the terminal: the answer, one line for each value of the tables, and what to bear in mind."""

from __future__ import annotations

import textwrap

from rich.console import Console
from rich.text import Text

from files_and_text.numbers import plural, value_text
from results.answer.answer import Answer, ParameterAnswer
from results.answer.parameters import gap_of, gap_of_effect
from results.render.answer_block import answer_block
from results.render.grouped_table import Group, grouped_table
from results.render.markdown import ROWS_FILE
from results.text.answer import default_sentence, table_lines
from results.text.comparisons import WITH_ALL, is_joint, word_text
from results.text.conditions import shown_conditions
from results.text.gaps import gap_text
from results.text.limitations import notes
from results.text.parameters import best_text, parameter_title, shared_cost, together
from results.text.row_counts import counts_text
from results.text.rows import description
from results.text.values import shown_range
from results.verdict.measure import Cost, Measurement
from results.verdict.row_verdict import RowVerdict
from results.verdict.verdict import Verdict

_WORD_STYLES = {
    "supported": "green",
    "no worse": "green",
    "no difference": "green",
    "too high": "red",
    "too low": "yellow",
    "not supported": "yellow",
    "undecided": "dim",
}
_POSITION_STYLES = {"inside": "green", "below": "yellow", "above": "red", "outside": "yellow"}
"""Red for above: the loss is flat below the best rate and a cliff above it."""
_VALUE_HEADER = ("tables say", "rows", "the best is", "costs", "verdict")
_ROW_HEADER = ("says", "best", "position", "log10", "costs", "trial", "verdict", "run again")


def render(verdict: Verdict, answer: Answer, *, width: int = 80) -> list[Text]:
    """The answer, the tables' values by hyperparameter, notes, and where the single rows are."""
    lines = answer_block(answer, width=width, done=(), with_next=False)
    if default := default_sentence(answer):
        lines += [Text(), *_wrapped(default, width, style="dim")]
    if answer.parameters:
        lines += [Text(), *parameter_table(answer, width=width)]
        if note := shared_cost(answer):
            lines += _wrapped(note, width, style="dim")
        if open_cost := together(answer):
            sentence, command = open_cost
            lines += [Text(sentence, style="dim"), Text(f"      {command}", style="dim")]
    said = notes(verdict.limitations)
    lines += [Text()] if said else []
    for note in said:
        lines += _wrapped(f"- {note}", width)
    counted = _counted(verdict, answer)
    return [*lines, *([Text()] if counted else []), *counted]


def parameter_table(answer: Answer, *, width: int = 80) -> list[Text]:
    """One line for each value that the tables give; no word while nothing is decided, as Sure? says that."""
    decided = any(
        value.word not in ("undecided", "not_tested") for found in answer.parameters for value in found.tables
    )
    groups = []
    for found in answer.parameters:
        cells = [
            [
                (line.value, ""),
                (line.rows.partition(" ")[0], ""),
                (line.position, ""),
                (line.cost, ""),
                (line.word, _WORD_STYLES.get(line.word, "")) if decided or answer.seeds else ("", ""),
            ]
            for line in table_lines(found, answer)
        ]
        groups.append(Group(title=parameter_title(found.parameter), note=_best(found, answer), lines=cells))
    return grouped_table(_VALUE_HEADER, groups, width=width)


def render_rows(verdict: Verdict, *, width: int = 80) -> list[Text]:
    """The tested rows one by one, with ids and conditions; then the stability rows."""
    groups, said = [], []
    for row in verdict.rows:
        if not row.is_tested:
            continue
        if row.row.topic == "stability":
            said += _wrapped(f"{row.row.id}: {description(row)}", width, style="dim")
        else:
            groups.append(Group(title=row.row.id, note=_conditions(row), lines=[_cells(row)]))
    legend = _wrapped(_row_legend(verdict), width, style="dim") if groups else []
    return [*grouped_table(_ROW_HEADER, groups, width=width), *legend, *said]


def _row_legend(verdict: Verdict) -> str:
    """What the columns mean, as far as they are shown."""
    tested = [row for row in verdict.rows if row.is_tested and row.row.topic != "stability"]
    parts = []
    if any(row.measurement.distance_log10 is not None for row in tested):
        parts.append("log10: how far the best lies from the row's range, in powers of ten.")
    parts.append("costs: of the row's value by itself, in one trial (#) or by a model")
    if effect := next((row.measurement.effect for row in tested if row.measurement.effect), None):
        parts[-1] += f" of {plural(effect.trials, 'finished trial')} with its 95% interval"
    parts[-1] += "; ?: not known."
    if any(_effect(row) for row in tested):
        parts.append("run again: what the value costs on new seeds.")
    return " ".join(parts)


def print_verdict(
    verdict: Verdict, answer: Answer, console: Console | None = None, *, rows: bool = False
) -> None:
    """Print `render`, or with `rows` the single rows."""
    console = console or Console()
    width = console.width
    for line in render_rows(verdict, width=width) if rows else render(verdict, answer, width=width):
        console.print(line, highlight=False, soft_wrap=True)  # already as wide as fits; commands stay whole


def _wrapped(text: str, width: int, *, style: str = "") -> list[Text]:
    lines = textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    return [Text(line, style=style) for line in lines]


def _best(found: ParameterAnswer, answer: Answer) -> str:
    if found.unused_beside:
        return f"not used: the best scheduler, {found.unused_beside}, has none"
    edge = f", the {found.edge} end of what was searched" if found.edge else ""
    return f"best {best_text(found, answer)}{edge}"


def _counted(verdict: Verdict, answer: Answer) -> list[Text]:
    if not verdict.rows:
        return []
    counted = counts_text(verdict.rows)
    if not any(row.is_tested for row in verdict.rows):
        return [Text(f"{counted}; {ROWS_FILE} says why.", style="dim")]
    command = f"      sweeps verdict {answer.run.run_folder} --rows"
    return [Text(f"{counted}. One by one:", style="dim"), Text(command, style="dim")]


def _conditions(row: RowVerdict) -> str:
    differing = [
        f"{shown.name} {shown.here} here, {shown.row} there"
        for shown in shown_conditions(row.measurement.conditions)
        if shown.differs
    ]
    own = row.row.condition.rstrip(".")
    return f"{own}; differs: {'; '.join(differing)}" if differing else own


def _cells(row: RowVerdict) -> list[tuple[str, str]]:
    measured = row.measurement
    word = word_text(row)
    return [
        (shown_range(row.row), ""),
        ("" if measured.best_value is None else value_text(measured.best_value), ""),
        (measured.position.replace("not_tested", ""), _POSITION_STYLES.get(measured.position, "")),
        ("" if measured.distance_log10 is None else f"{measured.distance_log10:.2f}", ""),
        (_share(measured), ""),
        (_source(measured), ""),
        (word, _WORD_STYLES.get(word, "")),
        (_effect(row), ""),
    ]


def _effect(row: RowVerdict) -> str:
    gap = gap_of(row.comparison)
    if gap is None or is_joint(row):
        return ""
    return gap_text(gap, with_seeds=False, source=WITH_ALL if row.by_default else "")


def _share(measured: Measurement) -> str:
    """What the row's value costs by itself, in percent of the best loss; "?" where nothing tells."""
    cost = measured.cost if _holds_best(measured) else measured.by_itself
    if cost is None:
        return "?"
    if not isinstance(cost, Cost):
        return gap_text(gap_of_effect(cost))
    if _holds_best(measured):
        return "nothing"
    return f"{cost.difference:+.4f}" if cost.percent is None else f"{cost.percent:+.2f}%"


def _source(measured: Measurement) -> str:
    """`#4` for a trial, `model`."""
    cost = measured.cost if _holds_best(measured) else measured.by_itself
    return "" if cost is None else f"#{cost.trial}" if isinstance(cost, Cost) else "model"


def _holds_best(measured: Measurement) -> bool:
    return measured.cost is not None and measured.cost.difference == 0
