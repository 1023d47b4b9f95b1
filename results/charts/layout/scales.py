"""From values to pixels, and the round numbers that an axis names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from files_and_text.numbers import number
from results.charts.chart import Axis, Tick

_STEPS = (1.0, 2.0, 5.0, 10.0)
_ENOUGH = 6
"""With so many ticks a log axis needs no finer ones."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear or logarithmic map from an axis to pixels."""

    axis: Axis
    start: float
    """The pixel of `axis.low`."""
    end: float

    def pixel(self, value: float) -> float:
        """Outside of the axis as well; the caller clips."""
        low, high = self.axis.low, self.axis.high
        if self.axis.is_log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        share = 0.5 if high == low else (value - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def clipped(self, value: float) -> float:
        """The pixel of the value, or of the nearer end of the axis."""
        return self.pixel(min(max(value, self.axis.low), self.axis.high))


def ticks_of(axis: Axis, most: int) -> list[Tick]:
    """The axis's own ticks, or at most about `most` round numbers inside of it."""
    if axis.ticks is not None:
        return list(axis.ticks)
    return _log_ticks(axis, most) if axis.is_log else _linear_ticks(axis, most)


def _log_ticks(axis: Axis, most: int) -> list[Tick]:
    """Powers of ten, with 3, or with 2 and 5, or with more digits between them, where there is room."""
    first, last = math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high))
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        values = [float(f"{digit}e{power}") for power in range(first, last + 1) for digit in digits]
        inside = [value for value in values if axis.low <= value <= axis.high]
        if len(found) >= _ENOUGH or (found and len(inside) > most):
            break
        found = inside
    return [Tick(at=value, text=number(value)) for value in found]


def _linear_ticks(axis: Axis, most: int) -> list[Tick]:
    span = axis.high - axis.low
    if span <= 0:
        return [Tick(at=axis.low, text=number(axis.low))]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(step * power for step in _STEPS if span / (step * power) <= most + 1)
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    decimals = next(d for d in range(12) if abs(step * 10**d - round(step * 10**d)) < 1e-6 * step * 10**d)
    return [Tick(at=index * step, text=f"{index * step:.{decimals}f}") for index in range(first, last + 1)]
