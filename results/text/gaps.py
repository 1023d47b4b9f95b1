"""Losses and gaps as text: one form for each, everywhere."""

from __future__ import annotations

import math

from files_and_text.numbers import plural
from results.answer.answer import Gap, Loss

CONTRADICTED = "later seeds contradict it"
"""Behind an interval that stands although a later look excludes it."""


def short_loss(value: float | None) -> str:
    """`5.432`, `0.8431`: three decimals, four below 1."""
    if value is None or not math.isfinite(value):
        return "unknown"
    return f"{value:.{_loss_decimals(value)}f}"


def loss_text(loss: Loss) -> str:
    """`5.432`, or `5.432 (5.41 to 5.45, 3 seeds)`."""
    if not loss.seeds:
        return short_loss(loss.value)
    shown, notes = short_loss(loss.value), [plural(loss.seeds, "seed")]
    if loss.low is not None and loss.high is not None:
        own, digits = _loss_decimals(loss.value), _decimals(loss.high - loss.low)
        while digits > own and f"{loss.low:.{digits - 1}f}" != f"{loss.high:.{digits - 1}f}":
            digits -= 1
        notes.insert(0, f"{loss.low:.{digits}f} to {loss.high:.{digits}f}")
        shown = f"{loss.value:.{max(own, digits)}f}"
    return f"{shown} ({', '.join(notes)})"


def percent_text(percent: float, *, plus: bool = True) -> str:
    """`+25.7%`, `+0.45%`, `-3.1%`; `25.7%` without `plus`."""
    return f"{percent:{'+' if plus else ''}.{_percent_decimals(percent)}f}%"


def gap_text(gap: Gap, *, with_seeds: bool = True, source: str = "") -> str:
    """`+25.7%`, or `+25.7% (20.1 to 31.0%, 3 seeds)`: the cost against the best, in percent of its loss.

    Without `with_seeds` their number is left out beside an interval. `source` says what ran, last.
    """
    notes = [text] if (text := interval_text(gap)) else []
    notes += [CONTRADICTED] if gap.contradicted else []
    notes += [plural(gap.seeds, "seed")] if gap.seeds and (with_seeds or not notes) else []
    notes += [source] if source else []
    shown = f"{gap.nats:+.4f} nats" if gap.percent is None else percent_text(gap.percent)
    return shown + (f" ({', '.join(notes)})" if notes else "")


def interval_text(gap: Gap) -> str:
    """`20.1 to 31.0%`; "" without an interval."""
    low, high = gap.low_percent, gap.high_percent
    if low is None or high is None:
        if gap.low is None or gap.high is None:
            return ""
        return f"{gap.low:.4f} to {gap.high:.4f} nats"
    return percents_text(low, high)


def percents_text(low: float, high: float) -> str:
    """`20.1 to 31.0%`."""
    digits = (
        2 if high - low < 0.1 or max(abs(low), abs(high)) < 1 else 0 if min(abs(low), abs(high)) >= 100 else 1
    )
    shown = [f"{end:.{digits}f}" for end in (low, high)]
    return f"{' to '.join(_unsigned_zero(end) for end in shown)}%"


def cost_words(gap: Gap) -> str:
    """`costs 8.8%`, `costs 8.8% (8.0 to 9.6%, 3 seeds)`, `is 0.4% better`, `costs nothing`."""
    if gap.nats == 0:
        return "costs nothing"
    positive = gap.nats > 0
    text = gap_text(gap).lstrip("+-")
    if positive or gap.percent is None:
        return f"costs {gap_text(gap).lstrip('+')}"
    size, _, rest = text.partition(" ")
    return f"is {size} better" + (f" {rest}" if rest else "")


def _unsigned_zero(text: str) -> str:
    return text.removeprefix("-") if not float(text) else text


def _percent_decimals(percent: float) -> int:
    size = abs(percent)
    return 0 if size >= 100 else 1 if size >= 1 or size == 0 else 2


def _loss_decimals(value: float) -> int:
    return 3 if abs(value) >= 1 else 4


def _decimals(width: float) -> int:
    """So many that both ends of an interval differ."""
    if width <= 0:
        return 4
    return min(max(2, math.ceil(-math.log10(width)) + (width < 0.01)), 5)
