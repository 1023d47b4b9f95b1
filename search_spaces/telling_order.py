"""The order of the first trials: a sweep that has room for few of them runs those that tell the most."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.dimension import Value
from search_spaces.from_rows.sourced_dimension import SourcedDimension
from search_spaces.search_space import FirstTrial

RATES = ("learning_rate", "embedding_lr_ratio")


def most_telling_first(
    trials: Sequence[FirstTrial], dimensions: Sequence[SourcedDimension]
) -> list[FirstTrial]:
    """The guideline default, then always the trial that separates the most rows which none before it did.

    A trial separates a row from the default when one of the two has the row's value and the other has not:
    their losses then speak for the row or against it. Of equals, rates come before names and these before the
    rest, and a dimension of which less has been tried before one of which more has.
    """
    if not trials:
        return []
    default, rest = trials[0], list(trials[1:])
    ordered, told, tried = [default], set[str](), dict.fromkeys((d.final.name for d in dimensions), 0)
    by_trial = {id(trial): _differing(trial, default, dimensions) for trial in rest}

    def value_of(trial: FirstTrial) -> tuple[int, int, int, int]:
        dimension, separated = by_trial[id(trial)]
        name = dimension.final.name
        kind = 0 if name in RATES else 1 if dimension.final.kind == "categorical" else 2
        return -len(separated - told), tried[name], kind, -len(separated)

    while rest:
        chosen = min(rest, key=value_of)
        rest.remove(chosen)
        ordered.append(chosen)
        dimension, separated = by_trial[id(chosen)]
        told |= separated
        tried[dimension.final.name] += 1
    return ordered


def _differing(
    trial: FirstTrial, default: FirstTrial, dimensions: Sequence[SourcedDimension]
) -> tuple[SourcedDimension, set[str]]:
    """The dimension in which a trial differs from the default, and the rows that this separates.

    Another main rate moves the embeddings' ratio with it, and another scheduler may end the warmup: the first
    dimension that differs is the one that the trial is about.
    """
    differing = [
        each
        for each in dimensions
        if trial.params.get(each.final.name) != default.params.get(each.final.name)
    ]
    first = differing[0]
    value, before = (run.params[first.final.name] for run in (trial, default))
    return first, _rows_with(first, value) ^ _rows_with(first, before)


def _rows_with(dimension: SourcedDimension, value: Value) -> set[str]:
    """The rows about a dimension that have this value among theirs."""
    given: dict[str, list[Value]] = {}
    for row_value in dimension.row_values:
        for row in row_value.rows:
            given.setdefault(row, []).append(row_value.value)
    found = {row for row, values in given.items() if _is_among(value, values)}
    least = {row for each in dimension.row_minimums if _reaches(value, each.value) for row in each.rows}
    return found | least


def _is_among(value: Value, values: Sequence[Value]) -> bool:
    """Whether it is one of a row's names, or within the ends of its range."""
    numbers = [each for each in values if not isinstance(each, str)]
    if isinstance(value, str) or not numbers:
        return value in values
    return min(numbers) <= value <= max(numbers)


def _reaches(value: Value, least: Value) -> bool:
    return not isinstance(value, str) and not isinstance(least, str) and value >= least
