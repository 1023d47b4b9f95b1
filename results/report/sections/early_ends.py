"""Trials that ended before their full budget, with their reasons."""

from __future__ import annotations

from collections.abc import Sequence

from files_and_text.numbers import loss, number, plural
from files_and_text.plain_values import finite
from results.report.blocks import Block, Fold, Paragraph, Section, Table
from results.report.facts import ReportFacts
from results.sweep_result import TrialResult

_UNWANTED = ("failed", "out_of_memory", "diverged")


def early_ends_section(facts: ReportFacts) -> Section | None:
    """Failed, out-of-memory and diverged trials; None where there are none."""
    found = [trial for name in _UNWANTED for trial in facts.sweep.trials if trial.outcome == name]
    if not found:
        return None
    caption = f"{plural(len(found), 'trial')} that failed, diverged or ran out of memory"
    blocks: list[Block] = [_ends(found, caption)]
    if any(trial.outcome == "failed" for trial in found):
        blocks.append(Paragraph(text="The whole error is in error.txt in the trial's folder."))
    return Section(id="early", title="Trials that failed or diverged", blocks=blocks)


def pruned_fold(facts: ReportFacts) -> Fold | None:
    """What the pruner stopped, the normal course; None where it stopped nothing."""
    pruned = [trial for trial in facts.sweep.trials if trial.outcome == "pruned"]
    if not pruned:
        return None
    caption = "Why each was stopped"
    return Fold(summary=f"Stopped early by the pruner ({len(pruned)})", blocks=[_ends(pruned, caption)])


def _ends(trials: Sequence[TrialResult], caption: str) -> Table:
    return Table(
        caption=caption,
        header=("trial", "outcome", "learning rate", "at", "last loss", "reason", "folder"),
        rows=[
            (
                str(t.number),
                t.outcome.replace("_", " "),
                number(rate) if (rate := finite(t.values.get("learning_rate"))) is not None else "",
                "" if t.percent is None else f"{t.percent}%",
                "" if t.last_eval_loss is None else loss(t.last_eval_loss),
                t.stop_reason or "none was recorded",
                t.folder,
            )
            for t in trials
        ],
        stacked=True,
    )
