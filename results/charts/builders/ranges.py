"""Ends of axes that show the differences that matter."""

from __future__ import annotations

import math
from collections.abc import Sequence

_PAD = 0.08
_FEW = 3
"""With fewer losses there are no differences that a far value could squeeze."""
_MOST_DECADES_BEYOND = 1.0
"""How far tables' values may stretch the axis beyond the trials', in powers of ten; farther ones are cut."""


def loss_ends(
    losses: Sequence[float], *, named: Sequence[float] = (), base: float | None = None
) -> tuple[float, float]:
    """From the lowest loss to the bulk of the others, so that one outlier does not squeeze the rest.

    `named` losses (the default's, ends of intervals) and the base's are included unless they lie so far above
    that the others would be one line. `losses` is not empty.
    """
    ordered = sorted(losses)
    low, bulk = min([ordered[0], *named]), ordered[math.ceil(0.8 * (len(ordered) - 1))]
    span = max(bulk - low, 0.01 * abs(low), 1e-6)
    top = min(ordered[-1], bulk + span)
    for value in sorted([*named, *([] if base is None else [base])]):
        if len(losses) < _FEW or value <= top + 2.5 * max(top - low, span):
            top = max(top, value)
    pad = _PAD * max(top - low, 0.01 * abs(low), 1e-6)
    return low - pad, top + pad


def log_ends(values: Sequence[float], *, reach: Sequence[float] = ()) -> tuple[float, float]:
    """From somewhat below the lowest to somewhat above the highest value; `reach` may stretch it."""
    low, high = min(values), max(values)
    near = [value for value in reach if abs(_decades(value, low, high)) <= _MOST_DECADES_BEYOND]
    low, high = min([low, *near]), max([high, *near])
    margin = max(1.15, (high / low) ** 0.04) if high > low else 2.0
    return low / margin, high * margin


def _decades(value: float, low: float, high: float) -> float:
    return math.log10(low / value) if value < low else math.log10(value / high) if value > high else 0.0
