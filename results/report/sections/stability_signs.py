"""Stability signs that were seen, and at which learning rates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from files_and_text.numbers import number
from files_and_text.plain_values import finite
from results.report.blocks import Block, Cell, Fold, Section, Table
from results.report.facts import ReportFacts
from results.sweep_result import TrialResult
from results.text.rows import description
from search_spaces import GuidelineRow

_SHOWN_NUMBERS = 12


def signs_section(facts: ReportFacts) -> Section | None:
    """Signs in training of a learning rate that is too high or too low; None where none was seen."""
    showing: dict[str, list[TrialResult]] = defaultdict(list)
    for trial in facts.sweep.trials:
        for sign in trial.signs:
            showing[sign].append(trial)
    if not showing:
        return None
    rows = [_sign(facts, sign, trials) for sign, trials in sorted(showing.items(), key=lambda i: -len(i[1]))]
    blocks: list[Block] = [
        Table(
            caption="Signs of a learning rate too high or too low, and the rates (median) they showed at",
            header=("sign", "trials", "rate of these", "rate of the others", "seen in"),
            rows=rows,
            stacked=True,
        ),
        Fold(summary="What the signs mean, and their figures", blocks=[*_meanings(facts), _details(facts)]),
    ]
    return Section(id="signs", title="Signs of instability", blocks=blocks)


def _sign(facts: ReportFacts, sign: str, trials: Sequence[TrialResult]) -> tuple[Cell, ...]:
    others = [t for t in facts.sweep.started if sign not in t.signs]
    numbers = [str(t.number) for t in trials]
    more = f" and {len(numbers) - _SHOWN_NUMBERS} more" if len(numbers) > _SHOWN_NUMBERS else ""
    return (
        sign.replace("_", " "),
        f"{len(trials)} of {len(facts.sweep.started)}",
        _median_rate(trials),
        _median_rate(others),
        "trial " + ", ".join(numbers[:_SHOWN_NUMBERS]) + more,
    )


def _median_rate(trials: Sequence[TrialResult]) -> str:
    rates = [rate for t in trials if (rate := finite(t.values.get("learning_rate"))) is not None]
    return number(median(rates)) if rates else ""


def _meanings(facts: ReportFacts) -> list[Block]:
    """The guideline rows on signs, beside what this sweep saw."""
    rows = [] if facts.verdict is None else [r for r in facts.verdict.rows if r.row.topic == "stability"]
    tested = [row for row in rows if row.is_tested]
    if not tested:
        return []
    return [
        Table(
            caption="What the tables say the signs mean, against what was seen",
            header=("row", "the text says", "here"),
            rows=[(row.row.id, _text_says(row.row), description(row)) for row in tested],
            stacked=True,
        )
    ]


def _text_says(row: GuidelineRow) -> str:
    return f"{row.condition} ({(row.direction or '').replace('_', ' ')})"


def _details(facts: ReportFacts) -> Table:
    return Table(
        caption="Every sign with its figures",
        header=("trial", "sign", "step", "figures"),
        rows=[
            (
                str(trial),
                str(sign.get("sign", "")).replace("_", " "),
                "" if sign.get("step") is None else str(sign["step"]),
                str(sign.get("detail") or ""),
            )
            for trial, found in sorted(facts.sign_details.items())
            for sign in found
        ],
        stacked=True,
    )
