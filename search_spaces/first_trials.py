"""The tables' own values as trials: the guideline default, then one difference from it at a time."""

from __future__ import annotations

from collections.abc import Sequence

from files_and_text.numbers import value_text
from search_spaces.from_rows.dimension_draft import Draft, Proposal
from search_spaces.space import FirstTrial, Value

DEFAULT_LABEL = "guideline default"
MOVED_LABEL = "guideline default, moved into the given ranges"
OUTSIDE = "lies outside the range given by the user"


def propose(drafts: Sequence[Draft]) -> tuple[list[FirstTrial], list[str]]:
    """First trials without duplicates, and a sentence for each table value that the user's ranges drop.

    The default comes first. Then, one dimension at a time in the drafts' order, every other value that a row
    gives of its own: a difference in one dimension is what tells whether the row is right about it.
    """
    dropped: list[str] = []
    moved = False
    for draft in drafts:
        # A default that no row gives is no guideline, so moving it takes nothing from the tables.
        if not draft.default_rows or draft.final.contains(draft.tables.default):
            continue
        moved = True
        dropped.append(
            f"{_named(draft, draft.tables.default, draft.default_rows)} {OUTSIDE};"
            f" the first trial takes {draft.final.default!r}"
        )
    base = {draft.final.name: draft.final.default for draft in drafts}
    base_rows = {draft.final.name: _default_rows(draft) for draft in drafts}
    label = MOVED_LABEL if moved else DEFAULT_LABEL
    trials = [_trial(drafts, base, base_rows, label)]
    seen = [trials[0].params]
    for draft in drafts:
        name = draft.final.name
        for proposal in draft.proposals:
            if not draft.final.contains(proposal.value):
                if proposal.value != draft.tables.default:
                    text = f"{_named(draft, proposal.value, proposal.rows)} {OUTSIDE}"
                    dropped.extend([text] if text not in dropped else [])
                continue
            if proposal.value == base[name]:
                continue
            values, rows = base | {name: proposal.value}, base_rows | {name: proposal.rows}
            if name == "learning_rate":
                _keep_embedding_rate(drafts, values, rows)
            trial = _trial(drafts, values, rows, _label(name, proposal))
            # Equal also when the differing dimension does not exist under the default's scheduler.
            if trial.params not in seen:
                seen.append(trial.params)
                trials.append(trial)
    return trials, dropped


def _default_rows(draft: Draft) -> tuple[str, ...]:
    return draft.default_rows if draft.final.default == draft.tables.default else ()


def _keep_embedding_rate(
    drafts: Sequence[Draft], values: dict[str, Value], rows: dict[str, tuple[str, ...]]
) -> None:
    """Another main rate leaves the embedding rate where the documents put it, where the space allows."""
    main_rate = values["learning_rate"]
    for draft in drafts:
        name = draft.final.name
        if name != "embedding_lr_ratio" or draft.embedding_rate is None or isinstance(main_rate, str):
            continue
        ratio = draft.embedding_rate / main_rate
        if draft.final.contains(ratio):
            values[name], rows[name] = ratio, draft.default_rows
        else:
            rows[name] = ()


def _trial(
    drafts: Sequence[Draft], values: dict[str, Value], rows: dict[str, tuple[str, ...]], label: str
) -> FirstTrial:
    params: dict[str, Value] = {}
    for draft in drafts:
        if draft.final.is_active(params):
            params[draft.final.name] = values[draft.final.name]
    ids = dict.fromkeys(row for name in params for row in rows[name])
    return FirstTrial(params=params, rows=tuple(ids), label=label)


def _label(name: str, proposal: Proposal) -> str:
    return f"{name} {value_text(proposal.value)} of {', '.join(proposal.rows)}"


def _named(draft: Draft, value: Value, rows: tuple[str, ...]) -> str:
    return f"{draft.final.name} {value_text(value)}" + (f" ({', '.join(rows)})" if rows else "")
