"""Trials that ended before their full budget, with their reasons."""

from __future__ import annotations

from collections.abc import Sequence

from files_and_text.numbers import loss, number, plural
from files_and_text.plain_values import finite
from results.report.blocks import Block, Paragraph, Section, Table, text_section
from results.report.colors_and_marks import readable
from results.report.facts import ReportFacts
from results.sweep_result import TrialResult

_UNWANTED = ("failed", "out_of_memory", "diverged")


def early_ends_section(facts: ReportFacts) -> Section:
    """Failed, out-of-memory and diverged trials first, then pruned ones."""
    title = "Trials that ended early"
    if not facts.ended_early:
        return text_section("failures", title, "No trial ended before its full budget.")
    unwanted = [t for name in _UNWANTED for t in facts.ended_early if t.outcome == name]
    pruned = [t for t in facts.ended_early if t.outcome == "pruned"]
    blocks: list[Block] = []
    if unwanted:
        caption = f"{plural(len(unwanted), 'trial')} that failed, diverged or ran out of memory"
        blocks.append(_ends(unwanted, caption, folded=False))
        if any(t.outcome == "failed" for t in unwanted):
            where = "The whole error of a failed trial is in error.txt in its folder."
            blocks.append(Paragraph(text=where))
    else:
        blocks.append(Paragraph(text="No trial failed, diverged or ran out of memory."))
    if pruned:
        caption = f"{plural(len(pruned), 'trial')} stopped by the pruner, the normal course"
        blocks.append(_ends(pruned, caption, folded=True))
    return Section(id="failures", title=title, blocks=blocks)


def _ends(trials: Sequence[TrialResult], caption: str, *, folded: bool) -> Table:
    return Table(
        caption=caption,
        header=("trial", "outcome", "learning rate", "at", "last loss", "reason", "folder"),
        rows=[
            (
                str(t.number),
                readable(t.outcome),
                number(rate) if (rate := finite(t.values.get("learning_rate"))) is not None else "",
                "" if t.percent is None else f"{t.percent}%",
                "" if t.last_eval_loss is None else loss(t.last_eval_loss),
                t.stop_reason or "none was recorded",
                t.folder,
            )
            for t in trials
        ],
        folded=folded,
        stacked=True,
    )
