"""A verdict as a Markdown page: the answer, what the tables' values cost, and what to bear in mind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from results.answer.answer import Answer
from results.text.answer import default_sentence, headline, loss_text, next_text, sure_text, table_lines
from results.text.gaps import gap_text, short_loss
from results.text.limitations import notes
from results.text.metric import metric_sentences
from results.text.parameters import best_text, parameter_title, shared_cost, together
from results.text.row_counts import counts_text
from results.verdict.verdict import Verdict

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
ROWS_FILE = "verdict-rows.md"
"""Holds the rows one by one, beside the page."""


def to_markdown(verdict: Verdict, answer: Answer) -> str:
    """One page; `ROWS_FILE` holds the rows one by one."""
    parts = [f"# Verdict of sweep {verdict.study}", literal(headline(answer))]
    if answer.best is not None:
        parts.append(table(("", "loss", "costs"), _losses(answer)))
        parts.append(f"How sure? {literal(sure_text(answer))}")
    if default := default_sentence(answer):
        parts.append(literal(default))
    if verdict.by_metric is not None:
        parts.append(literal(" ".join(metric_sentences(verdict.by_metric))))
    if answer.parameters:
        parts.append("## What the tables say\n\n" + _parameters(answer))
    said = notes(verdict.limitations)
    if said:
        parts.append("## Bear in mind\n\n" + bullets(said))
    if answer.next:
        steps = [f"`{step.command}`: {next_text(step)}" for step in answer.next]
        parts.append("## Next\n\n" + bullets(steps))
    parts.append(f"{counts_text(verdict.rows)}; each with its conditions: [{ROWS_FILE}]({ROWS_FILE}).")
    return "\n\n".join(parts) + "\n"


def _losses(answer: Answer) -> Iterator[tuple[str, str, str]]:
    """Nats per token."""
    best = answer.best
    assert best is not None
    yield f"best (trial {best.trial})", loss_text(best.loss), ""
    compared = (
        ("guideline default", answer.default),
        ("untouched base", answer.base),
        ("untouched base, not quantized", answer.unquantized_base),
    )
    for name, other in compared:
        if other is None or other.loss is None or other.trial == best.trial:
            continue
        trial = "" if other.trial is None else f" (trial {other.trial})"
        yield f"{name}{trial}", loss_text(other.loss), "" if other.gap is None else gap_text(other.gap)
    if (merged := answer.merged) is not None:
        cost = "" if merged.gap is None else gap_text(merged.gap)
        yield f"best merged in {merged.dtype}", short_loss(merged.loss), cost


def _parameters(answer: Answer) -> str:
    header = ("", "best here", "tables say", "from", "the best is", "costs", "verdict")
    cells = []
    for found in answer.parameters:
        names = [parameter_title(found.parameter), best_text(found, answer)]
        for line in table_lines(found, answer):
            cells.append([*names, line.value, line.rows, line.position, line.cost, line.word])
            names = ["", ""]
    said = [note] if (note := shared_cost(answer)) else []
    if open_cost := together(answer):
        sentence, command = open_cost
        said.append(f"{sentence} `{command}`")
    return "\n\n".join([table(header, cells), *said])


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list; tags in a line are shown as text."""
    return "\n".join(f"- {literal(line)}" for line in lines)


def literal(text: str) -> str:
    """Text with its tags escaped, since Markdown passes HTML through."""
    return _TAG.sub("&lt;", text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars and line breaks inside cells are escaped."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return literal(" ".join(text.split())).replace("|", "\\|")
