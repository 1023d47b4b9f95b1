"""Where a value lies against a row's range, and whether two values are the same."""

from __future__ import annotations

import math
from typing import Literal

from files_and_text.plain_values import finite
from results.words.words import Side
from search_spaces import GuidelineRow
from search_spaces.dimension import Value

Position = Literal["inside", "below", "above", "outside", "unused", "not_tested"]
"""unused: the best trial has no value of the row's parameter, as no warmup beside `constant`."""

TOLERANCE = 1e-6
"""Relative: a derived rate is the product of two searched values."""

BASE_DIMENSION = {"embedding_learning_rate": "embedding_lr_ratio", "warmup_steps": "warmup_ratio"}
"""Derived quantity -> the dimension that is searched for it."""


def dimension_name(row: GuidelineRow) -> str:
    """The searched dimension that the row's parameter is, or is derived from; "" without a parameter."""
    return BASE_DIMENSION.get(row.parameter or "", row.parameter or "")


def holds_value(row: GuidelineRow, value: Value | None) -> bool:
    """Whether a value is one of the row's choices, or inside its range (ends included)."""
    return position_of(row, value) == "inside"


def is_beyond(row: GuidelineRow, value: Value | None) -> bool:
    """Whether a value is at or past the one that a boundary row calls too high or too low."""
    found = finite(value)
    if found is None or row.low is None:
        return False
    if row.direction == "too_low":
        return found <= row.low * (1 + TOLERANCE)
    return found >= row.low * (1 - TOLERANCE)


def has_value_of(row: GuidelineRow, value: Value | None) -> bool:
    """Whether a value is the row's, of a boundary one at or past it."""
    return is_beyond(row, value) if row.topic == "boundary" else holds_value(row, value)


def position_of(row: GuidelineRow, value: Value | None) -> Position:
    """Where a value lies: inside | below | above a range, inside | outside choices, else not_tested."""
    if row.choices:
        return "inside" if value in row.choices else "outside"
    found = finite(value)
    if found is None or row.low is None or row.high is None:
        return "not_tested"
    if found < row.low * (1 - TOLERANCE):
        return "below"
    return "above" if found > row.high * (1 + TOLERANCE) else "inside"


def distances(row: GuidelineRow, value: Value) -> tuple[float | None, float | None]:
    """log10 distance to the nearest end and signed offset from the geometric centre; None where one is 0."""
    found = finite(value)
    if row.choices or found is None or row.low is None or row.high is None:
        return None, None
    offset = None
    if found > 0 and row.low > 0:
        offset = math.log10(found) - (math.log10(row.low) + math.log10(row.high)) / 2
    position = position_of(row, value)
    end = row.low if position == "below" else row.high
    if position == "inside":
        return 0.0, offset
    return (abs(math.log10(found / end)) if found > 0 and end > 0 else None), offset


def side_of(value: Value, best: Value) -> Side:
    """Where a value lies against the best's."""
    a, b = finite(value), finite(best)
    if a is None or b is None:
        return "equal" if value == best else "other"
    if is_close(a, b):
        return "equal"
    return "above" if a > b else "below"


def is_close(one: Value | None, other: Value | None) -> bool:
    """Whether two values are the same within TOLERANCE; None equals nothing."""
    a, b = finite(one), finite(other)
    if a is None or b is None:
        return one is not None and one == other
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))
