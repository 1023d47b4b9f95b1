"""How many records the trials were trained and evaluated on, and what happened to the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from results.report.blocks import Block, Bullets, Fold, Paragraph, Section, Table
from results.report.facts import ReportFacts

_ROWS = {
    "num_records": "records read",
    "num_used": "used",
    "num_dropped": "dropped: nothing to learn lies within max_length",
    "num_empty": "empty: no answer to learn",
    "num_held_out": "held out for evaluation",
    "num_in_eval": "left out: a copy is in the evaluation set",
    "num_copies": "left out: there more than once",
    "num_not_drawn": "not drawn (max_train_examples, max_eval_examples)",
    "num_cut": "cut: used without the end of what they teach",
    "num_repeated": "copies of another, used as often as they are there",
    "num_sequences": "sequences made of the used records",
    "num_target_tokens": "tokens with loss",
    "num_lost_target_tokens": "tokens with loss beyond max_length",
}
"""Key in the study's `data_account` -> name on the page."""
_ALWAYS = ("num_records", "num_used", "num_sequences", "num_target_tokens")


def data_section(facts: ReportFacts) -> Section | None:
    """What was used in a sentence, and the counts of both sets that are not zero; None in older studies."""
    account = facts.sweep.context.get("data_account")
    if not isinstance(account, Mapping):
        return None
    train, evaluation = (account.get(name, {}) for name in ("train", "eval"))
    blocks: list[Block] = [
        Paragraph(
            text=f"{_used(train)} training records used, {train.get('num_target_tokens', 0):,} tokens with "
            f"loss; {_used(evaluation)} for evaluation, {evaluation.get('num_target_tokens', 0):,} tokens."
        ),
    ]
    counts = Table(
        caption="Records and tokens", header=("", "training", "evaluation"), rows=_rows(train, evaluation)
    )
    notices = [Bullets(items=list(found))] if (found := account.get("notices")) else []
    blocks.append(Fold(summary="What became of the records", blocks=[counts, *notices]))
    return Section(id="data", title="The data", blocks=blocks)


def _used(counts: Mapping[str, Any]) -> str:
    used, read = counts.get("num_used", 0), counts.get("num_records", 0)
    return f"{used:,}" if used == read else f"{used:,} of {read:,}"


def _rows(*sets: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = [
        (label, *(f"{counts.get(name, 0):,}" for counts in sets))
        for name, label in _ROWS.items()
        if name in _ALWAYS or any(counts.get(name) for counts in sets)
    ]
    if any(counts.get("num_lost_target_tokens") for counts in sets):
        rows.append(
            ("share of the tokens with loss that is lost", *(f"{c.get('lost_share', 0):.1%}" for c in sets))
        )
        rows.append(("max_length that loses nothing", *(f"{c.get('max_length_for_all', 0):,}" for c in sets)))
    return rows
