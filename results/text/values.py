"""Values and ranges of hyperparameters as a person writes them."""

from __future__ import annotations

from collections.abc import Sequence

from files_and_text.numbers import number, number_range
from search_spaces import Dimension, GuidelineRow


def shown_range(row: GuidelineRow) -> str:
    """The row's own value, range or names."""
    if row.choices:
        return " or ".join(row.choices)
    if row.low is None or row.high is None:
        return "no value"
    return number_range(row.low, row.high)


def searched_range(dimension: Dimension | None) -> str:
    """What was searched in a dimension, for a reason; "" when unknown."""
    if dimension is None or dimension.low is None or dimension.high is None:
        return ""
    return f"; {dimension.name} was searched from {number(dimension.low)} to {number(dimension.high)}"


def conjunction(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def about(seconds: float) -> str:
    """`about 20 s`, `about 4 min`, `about 2.5 h`."""
    if seconds < 55:
        return f"about {max(10, 10 * round(seconds / 10))} s"
    if seconds < 5400:
        return f"about {max(1, round(seconds / 60))} min"
    return f"about {f'{seconds / 3600:.1f}'.removesuffix('.0')} h"
