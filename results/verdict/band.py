"""Which values of a hyperparameter came within the margin of the best, and best values at an end of the
search."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from files_and_text.plain_values import finite
from results.comparison.constants import MARGIN
from results.sweep_result import SweepResult
from search_spaces.dimension import Value

EDGE_SHARE = 0.05
"""A best value is at the edge when it is this close to an end, as a share of the searched range."""


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


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The best value lies at an end of what was searched: the real best may lie beyond."""

    dimension: str
    side: Literal["low", "high"]
    value: float
    end: float


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


def find_edges(sweep: SweepResult) -> list[Edge]:
    """Searched ranges at whose end the best value lies; nothing lies beyond a low end of 0."""
    edges = []
    best = {} if sweep.best is None else sweep.best.values
    for name, dimension in sweep.dimensions.items():
        value, low, high = finite(best.get(name)), dimension.low, dimension.high
        if value is None or low is None or high is None or dimension.fixed:
            continue
        share = _share(value, low, high, dimension.log)
        if share <= EDGE_SHARE and low > 0:
            edges.append(Edge(dimension=name, side="low", value=value, end=low))
        elif share >= 1 - EDGE_SHARE:
            edges.append(Edge(dimension=name, side="high", value=value, end=high))
    return edges


def _share(value: float, low: float, high: float, log: bool) -> float:
    if log and min(value, low) > 0:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)
