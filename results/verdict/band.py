"""Which values of one hyperparameter came within the margin of the best, and where that ends."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from files_and_text.numbers import number
from files_and_text.plain_values import finite
from results.verdict.statistics import MARGIN
from search_spaces.dimension import Value

RATES = ("learning_rate", "embedding_learning_rate", "embedding_lr_ratio")
"""Hyperparameters with a flat side and a cliff: too much of them costs more than too little."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """The values tried whose loss is within the margin of the lowest."""

    parameter: str
    margin: float
    low: float | None
    high: float | None
    """Least and greatest value within; None for names."""
    names: tuple[str, ...]
    """Names within, the best first; empty for numbers."""
    beyond_low: float | None
    beyond_high: float | None
    """Nearest tried values outside: the band ends between `low` and `beyond_low`. None when nothing was tried
    there (or nothing that noise leaves clearly outside): the band is open on that side."""
    best: Value
    num_within: int
    num_trials: int

    @property
    def advice(self) -> str:
        """Which end to take: of a rate the lower one, from the best down; "" where the ends are alike."""
        if self.parameter not in RATES or self.low is None or finite(self.best) is None:
            return ""
        best = float(self.best)
        if self.low == best:
            return f"take {number(best)}, the low end of the band"
        return f"take {number(self.low)} to {number(best)}, not more: above the band the loss is a cliff"

    def to_dict(self) -> dict[str, Any]:
        """Builtins only, with the advice."""
        return asdict(self) | {"names": list(self.names), "advice": self.advice}


def band_of(
    parameter: str, points: Iterable[tuple[Value, float]], *, margin: float = MARGIN, noise: float = 0.0
) -> Band | None:
    """The band of `parameter` from (value, loss) of full-budget trials, whatever else they differed in.

    No curve is fitted: the loss is flat on one side and steep on the other, and a smooth curve through both
    invents an optimum. The hull of the values within the margin is what was seen; with its neighbours outside
    it brackets where the band ends, if the best loss at each value falls and then rises. `margin` is a share
    of the lowest loss, `noise` the standard deviation of a run in nats (0: not known): a neighbour counts as
    outside only when two runs' noise (2 sqrt(2) noise) does not explain it. None without a point.
    """
    found = [(value, loss) for value, loss in points if math.isfinite(loss)]
    if not found:
        return None
    best, lowest = min(found, key=lambda point: point[1])
    bound = lowest + margin * abs(lowest)
    within = [(value, loss) for value, loss in found if loss <= bound]
    numbers = [number for value, _ in within if (number := finite(value)) is not None]
    low = high = beyond_low = beyond_high = None
    names: tuple[str, ...] = ()
    if len(numbers) == len(within):
        low, high = min(numbers), max(numbers)
        clear = bound + 2 * math.sqrt(2) * noise
        outside = [x for value, loss in found if loss > clear and (x := finite(value)) is not None]
        beyond_low = max((x for x in outside if x < low), default=None)
        beyond_high = min((x for x in outside if x > high), default=None)
    else:
        ordered = sorted(within, key=lambda point: point[1])
        names = tuple(dict.fromkeys(str(value) for value, _ in ordered))
    return Band(
        parameter=parameter,
        margin=margin,
        low=low,
        high=high,
        names=names,
        beyond_low=beyond_low,
        beyond_high=beyond_high,
        best=best,
        num_within=len(within),
        num_trials=len(found),
    )


def band_text(band: Band) -> str:
    """`1e-4 to 3e-4 (outside: 5e-5 and 1e-3)`, or the names."""
    if band.names:
        return " or ".join(band.names)
    low, high = number(band.low), number(band.high)
    ends = [number(end) for end in (band.beyond_low, band.beyond_high) if end is not None]
    open_sides = [
        side for side, end in (("below", band.beyond_low), ("above", band.beyond_high)) if end is None
    ]
    notes = ([f"outside: {' and '.join(ends)}"] if ends else []) + (
        [f"open {' and '.join(open_sides)}"] if open_sides else []
    )
    return (low if low == high else f"{low} to {high}") + f" ({'; '.join(notes)})"
