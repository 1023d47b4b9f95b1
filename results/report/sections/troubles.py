"""Stability signs, and trials that ended early with their reasons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from files_and_text.numbers import loss, number, plural
from files_and_text.plain_values import finite
from results.report.blocks import Block, Cell, Paragraph, Section, Table
from results.report.facts import Facts
from results.report.palette import spoken
from results.sweep_result import TrialResult
from results.text.rows import description

_SHOWN_NUMBERS = 12
_TROUBLES = ("failed", "out_of_memory", "diverged")


def signs(facts: Facts) -> Section:
    """What was seen in training that tells of a rate too high or too low."""
    title = "Signs of instability"
    showing: dict[str, list[TrialResult]] = defaultdict(list)
    for trial in facts.sweep.trials:
        for sign in trial.signs:
            showing[sign].append(trial)
    if not showing:
        why = "No trial showed any of the signs that the guidelines name."
        return Section(id="signs", title=title, blocks=[Paragraph(text=why)])
    rows = [_sign(facts, sign, trials) for sign, trials in sorted(showing.items(), key=lambda i: -len(i[1]))]
    blocks: list[Block] = [
        Table(
            caption="Signs of a learning rate too high or too low, and the rates (median) they showed at",
            header=("sign", "trials", "rate of these", "rate of the others", "seen in"),
            rows=rows,
            stacked=True,
        ),
        *_meanings(facts),
        _details(facts),
    ]
    return Section(id="signs", title=title, blocks=blocks)


def _sign(facts: Facts, sign: str, trials: Sequence[TrialResult]) -> tuple[Cell, ...]:
    others = [t for t in facts.sweep.started if sign not in t.signs]
    numbers = [str(t.number) for t in trials]
    more = f" and {len(numbers) - _SHOWN_NUMBERS} more" if len(numbers) > _SHOWN_NUMBERS else ""
    return (
        spoken(sign),
        f"{len(trials)} of {len(facts.sweep.started)}",
        _median_rate(trials),
        _median_rate(others),
        "trial " + ", ".join(numbers[:_SHOWN_NUMBERS]) + more,
    )


def _median_rate(trials: Sequence[TrialResult]) -> str:
    rates = [rate for t in trials if (rate := finite(t.values.get("learning_rate"))) is not None]
    return number(median(rates)) if rates else ""


def _meanings(facts: Facts) -> list[Block]:
    """The tables' own rows on signs, as this sweep saw them."""
    rows = [] if facts.verdict is None else [r for r in facts.verdict.rows if r.row.topic == "stability"]
    tested = [row for row in rows if row.is_tested]
    if not tested:
        return []
    return [
        Table(
            caption="What the tables say the signs mean, against what was seen",
            header=("row", "the text says", "here"),
            rows=[
                (
                    row.row.id,
                    f"{row.row.condition} ({spoken(row.row.direction or '')})",
                    description(row),
                )
                for row in tested
            ],
            stacked=True,
        )
    ]


def _details(facts: Facts) -> Table:
    return Table(
        caption="Every sign with its figures",
        header=("trial", "sign", "step", "figures"),
        rows=[
            (
                str(trial),
                spoken(str(sign.get("sign", ""))),
                "" if sign.get("step") is None else str(sign["step"]),
                str(sign.get("detail") or ""),
            )
            for trial, found in sorted(facts.sign_details.items())
            for sign in found
        ],
        folded=True,
        stacked=True,
    )


def failures(facts: Facts) -> Section:
    """Trials that ended before their full budget, the unwanted ends first."""
    title = "Trials that ended early"
    if not facts.ended_early:
        why = "No trial ended before its full budget."
        return Section(id="failures", title=title, blocks=[Paragraph(text=why)])
    troubles = [t for name in _TROUBLES for t in facts.ended_early if t.outcome == name]
    pruned = [t for t in facts.ended_early if t.outcome == "pruned"]
    blocks: list[Block] = []
    if troubles:
        caption = f"{plural(len(troubles), 'trial')} that failed, diverged or ran out of memory"
        blocks.append(_ends(troubles, caption, folded=False))
        if any(t.outcome == "failed" for t in troubles):
            where = "The whole error of a failed trial stands in error.txt in its folder."
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
                spoken(t.outcome),
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
