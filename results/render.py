"""A verdict for the terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from results.conditions import show, shown_range
from results.markdown import answer_lines, cost_text
from results.plain import plural
from results.row_verdict import RowVerdict
from results.verdict import Verdict

_STYLES = {"inside": "green", "below": "yellow", "above": "red", "outside": "yellow"}
"""Above stands out: the loss is flat to the left of the best rate and a cliff to its right."""


def render(verdict: Verdict) -> RenderableType:
    """The answer, the tested rows as a table, then the limits; untested rows are only counted."""
    parts: list[RenderableType] = [Text(line) for line in answer_lines(verdict)]
    tested = [row for row in verdict.rows if row.is_tested]
    if tested:
        parts.append(verdict_table(verdict))
    untested = len(verdict.rows) - len(tested)
    if untested:
        parts.append(
            Text(f"{plural(untested, 'guideline row')} not tested; verdict.md says why.", style="dim")
        )
    parts.extend(Text(f"- {caveat}", style="dim") for caveat in verdict.caveats)
    return Group(*parts)


def verdict_table(verdict: Verdict) -> Table:
    """One line per tested guideline row; distance in log10, cost in nats per token against the best."""
    table = Table(title=f"Guideline rows against sweep {verdict.study}", title_justify="left")
    for name in ("guideline row", "its value", "best", "position", "distance", "cost", "measured by"):
        table.add_column(name, justify="right" if name in ("best", "distance", "cost") else "left")
    for row in verdict.rows:
        if row.is_tested:
            table.add_row(
                row.row.id,
                "" if row.row.topic == "stability" else shown_range(row.row),
                "" if row.best_value is None else show(row.best_value),
                Text(row.position, style=_STYLES[row.position]),
                "" if row.distance_log10 is None else f"{row.distance_log10:.2f}",
                cost_text(row),
                _measured_by(row),
            )
    return table


def _measured_by(row: RowVerdict) -> str:
    """The evidence in few words; verdict.md has the sentence."""
    if row.row.topic in ("boundary", "stability"):
        return plural(len(row.details["trials"]), "trial")
    if row.cost is None:
        return ""
    return f"trial {row.cost.trial}" + ("" if row.cost.own_value else ", nearest")


def print_verdict(verdict: Verdict, console: Console | None = None) -> None:
    """Print `render` to the terminal."""
    (console or Console()).print(render(verdict))
