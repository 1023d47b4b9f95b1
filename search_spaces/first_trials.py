"""The rows' own values as trials: the guideline default, then one difference from it at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from files_and_text.numbers import value_text
from search_spaces.dimension import Value
from search_spaces.from_rows.sourced_dimension import RowValue, SourcedDimension
from search_spaces.search_space import FirstTrial
from search_spaces.telling_order import most_telling_first

DEFAULT_LABEL = "guideline default"
MOVED_LABEL = "guideline default, moved into the given ranges"
OUTSIDE = "lies outside the range given by the user"


def first_trials(dimensions: Sequence[SourcedDimension]) -> tuple[list[FirstTrial], list[str]]:
    """First trials without duplicates, and a sentence for each row's value that the user's ranges exclude.

    The default comes first, then the values that the user wants tried. Then every other value that a row
    gives, the most telling first, each in a trial of its own: only a difference in one dimension tells
    whether the row is right about it.
    """
    dropped: list[str] = []
    moved = False
    for each in dimensions:
        # A default that no row gives is no guideline, so moving it excludes nothing.
        if not each.default_rows or each.final.contains(each.from_rows.default):
            continue
        moved = True
        dropped.append(
            f"{_named(each, each.from_rows.default, each.default_rows)} {OUTSIDE};"
            f" the first trial takes {each.final.default!r}"
        )
    base = {each.final.name: each.final.default for each in dimensions}
    base_rows = {
        each.final.name: each.default_rows if each.final.default == each.from_rows.default else ()
        for each in dimensions
    }
    label = MOVED_LABEL if moved else DEFAULT_LABEL
    trials = [_trial(dimensions, base, base_rows, label)]
    wanted = _wanted(dimensions, base, base_rows)
    seen = [trials[0].params, *(trial.params for trial in wanted)]
    for each in dimensions:
        name = each.final.name
        for row_value in each.row_values:
            if not each.final.contains(row_value.value):
                if row_value.value != each.from_rows.default:
                    text = f"{_named(each, row_value.value, row_value.rows)} {OUTSIDE}"
                    dropped.extend([text] if text not in dropped else [])
                continue
            if row_value.value == base[name]:
                continue
            difference = f"{name} {value_text(row_value.value)} of {', '.join(row_value.rows)}"
            trial = _differing(dimensions, base, base_rows, name, row_value, difference)
            # Equal also when the differing dimension does not exist under the default's scheduler.
            if trial.params not in seen:
                seen.append(trial.params)
                trials.append(trial)
    default, *rows = most_telling_first(trials, dimensions)
    return [default, *wanted, *rows], dropped


def _wanted(
    dimensions: Sequence[SourcedDimension],
    base: Mapping[str, Value],
    base_rows: Mapping[str, tuple[str, ...]],
) -> list[FirstTrial]:
    """The values that the user wants tried, everything else at the default."""
    found = []
    for each in dimensions:
        name = each.final.name
        rows = {row_value.value: row_value.rows for row_value in each.row_values}
        for value in each.tried_first:
            if value != base[name]:
                wanted = RowValue(value=value, rows=rows.get(value, ()))
                label = f"{name} {value_text(value)}, named in the sweep file"
                found.append(_differing(dimensions, base, base_rows, name, wanted, label))
    return found


def _differing(
    dimensions: Sequence[SourcedDimension],
    base: Mapping[str, Value],
    base_rows: Mapping[str, tuple[str, ...]],
    name: str,
    row_value: RowValue,
    label: str,
) -> FirstTrial:
    """The default with another value in one dimension."""
    values = {**base, name: row_value.value}
    rows = {**base_rows, name: row_value.rows}
    if name == "learning_rate":
        _keep_embedding_rate(dimensions, values, rows)
    return _trial(dimensions, values, rows, label)


def _keep_embedding_rate(
    dimensions: Sequence[SourcedDimension], values: dict[str, Value], rows: dict[str, tuple[str, ...]]
) -> None:
    """Under another main rate the embedding rate stays as the documents give it, where the space allows."""
    main_rate = values["learning_rate"]
    for each in dimensions:
        name = each.final.name
        if name != "embedding_lr_ratio" or each.embedding_rate is None or isinstance(main_rate, str):
            continue
        ratio = each.embedding_rate / main_rate
        if each.final.contains(ratio):
            values[name], rows[name] = ratio, each.default_rows
        else:
            rows[name] = ()


def _trial(
    dimensions: Sequence[SourcedDimension],
    values: dict[str, Value],
    rows: dict[str, tuple[str, ...]],
    label: str,
) -> FirstTrial:
    params: dict[str, Value] = {}
    for each in dimensions:
        if each.final.is_active(params):
            params[each.final.name] = values[each.final.name]
    ids = dict.fromkeys(row for name in params for row in rows[name])
    return FirstTrial(params=params, rows=tuple(ids), label=label)


def _named(dimension: SourcedDimension, value: Value, rows: tuple[str, ...]) -> str:
    return f"{dimension.final.name} {value_text(value)}" + (f" ({', '.join(rows)})" if rows else "")
