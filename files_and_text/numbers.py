"""Numbers as text for a reader."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """A number as a person writes a learning rate: 3 significant digits, 2e-4 rather than 0.0002.

    "unknown" for None, NaN and infinities.
    """
    if value is None or not math.isfinite(value):
        return "unknown"
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 100_000:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def number_range(low: float, high: float) -> str:
    """`2e-4`, or `1e-4 to 3e-4`."""
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def value_text(value: object) -> str:
    """A hyperparameter's value: floats as `number`, everything else as it is."""
    return number(value) if isinstance(value, float) else str(value)


def share_text(share: float) -> str:
    """A share of the steps: `37%`, `4.3%`; two significant digits, `<0.1%` below that."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "<0.1%"
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"


def warmup_text(share: float | None, steps: float) -> str:
    """`6 steps (15%)`; `1 step` alone, as a warmup of less than a step has that one too."""
    shown = plural(round(steps), "step")
    return shown if share is None or steps <= 1 else f"{shown} ({share_text(share)})"


def six_digits(value: float) -> float:
    """Six significant digits: 5e-05 / 5 is 1e-05 and not 1.0000000000000001e-05."""
    return float(f"{value:.6g}")


def loss(value: float | None) -> str:
    """A loss in nats per token with four decimals, as all tables here print it."""
    return "unknown" if value is None else f"{value:.4f}"


def plural(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def parameters(count: float) -> str:
    """A number of parameters: 8.03B, 5.05M."""
    for unit, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= factor:
            return f"{number(count / factor)}{unit}"
    return number(count)


def duration(seconds: float, *, decimals: int = 0) -> str:
    """`95` -> '1 min 35 s', hours once there are any; `decimals` only below a minute."""
    if decimals and seconds < 60:
        return f"{seconds:.{decimals}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
