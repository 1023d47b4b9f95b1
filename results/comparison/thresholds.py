"""Thresholds of the repeated intervals: one-sided levels, look by look, for a number of arms and of seeds.

A comparison is looked at after 3, 4, 5, ... pairs. Over the looks up to the design's most seeds N the error
of one end of one arm is spent as (n / N) ** SPENDING_POWER; a RESERVE is left for seeds beyond N, half of it
for those up to 2 N, a quarter up to 4 N, and so on. All of that depends on the number of arms and on N alone,
both of which are fixed before the first run: no budget, however often raised, changes a threshold.

The level of a look follows by recursive numerical integration (Armitage, McPherson and Rowe 1969) for sums of
normal differences, and is then used with t quantiles ("significance level approach": Jennison and Turnbull,
Group Sequential Methods, 2000). Simulations in `tests/results/comparison` show what that costs at few pairs.
"""

from __future__ import annotations

import math
from typing import Any

from results.comparison.constants import (
    ALPHA,
    INTERVAL_SHARE,
    MIN_PAIRS,
    MOST_SEEDS,
    RESERVE,
    SPENDING_POWER,
)

_POINTS = 401
"""Grid points of the integration: a level is off by less than half a percent of itself."""
_FAR = 8.0
"""Standard deviations below zero at which the grid starts."""


def look_level(pairs: int, comparisons: int = 1, most_seeds: int = MOST_SEEDS, alpha: float = ALPHA) -> float:
    """The one-sided level of one end of one arm's interval at the look after so many pairs."""
    if pairs < MIN_PAIRS:
        raise ValueError(f"the first look is at {MIN_PAIRS} pairs; got {pairs}")
    key = (comparisons, most_seeds, alpha)
    if key not in _LOOKS:
        _LOOKS[key] = _Looks(end_share(comparisons, alpha), most_seeds)
    return _LOOKS[key].level(pairs)


def end_share(comparisons: int, alpha: float = ALPHA) -> float:
    """The error of one end of one arm's interval over all looks, by Bonferroni over the arms.

    One end, not both: at most one of them can be wrong about a difference that is not within the margin, and
    `relation` keeps both from being wrong about one that is.
    """
    return alpha * INTERVAL_SHARE / comparisons


def spent(pairs: int, most_seeds: int) -> float:
    """The share of an end's error that is spent at looks up to so many pairs."""
    if pairs <= most_seeds:
        return float((1 - RESERVE) * (pairs / most_seeds) ** SPENDING_POWER)
    total, part, start = 1 - RESERVE, RESERVE / 2, most_seeds
    while pairs > 2 * start:
        total, part, start = total + part, part / 2, 2 * start
    low, high = start**SPENDING_POWER, (2 * start) ** SPENDING_POWER
    return float(total + part * (pairs**SPENDING_POWER - low) / (high - low))


class _Looks:
    """Levels of successive looks: the recursion keeps the density of sums that have not crossed so far."""

    def __init__(self, error: float, most_seeds: int) -> None:
        self._error, self._most_seeds = error, most_seeds
        self._levels: list[float] = []
        self._grid: Any = None
        self._mass: Any = None

    def level(self, pairs: int) -> float:
        while len(self._levels) <= pairs - MIN_PAIRS:
            self._levels.append(self._next(MIN_PAIRS + len(self._levels)))
        return self._levels[pairs - MIN_PAIRS]

    def _next(self, pairs: int) -> float:
        import numpy as np
        from scipy.optimize import brentq
        from scipy.special import ndtr, ndtri

        root = math.sqrt(pairs)
        before = spent(pairs - 1, self._most_seeds) if self._levels else 0.0
        error = self._error * (spent(pairs, self._most_seeds) - before)
        if self._grid is None:
            bound = -float(ndtri(error))
        else:

            def excess(bound: float) -> float:
                return float(self._mass @ ndtr(self._grid - bound * root)) / error - 1

            bound = float(brentq(excess, 0.0, 40.0, xtol=1e-9))
        grid = np.linspace(-_FAR * root, bound * root, _POINTS)
        if self._grid is None:
            density = np.exp(-(grid**2) / (2 * pairs)) / math.sqrt(2 * math.pi * pairs)
        else:
            steps = grid[:, None] - self._grid[None, :]
            density = np.exp(-(steps**2) / 2) @ self._mass / math.sqrt(2 * math.pi)
        weights = np.full(_POINTS, grid[1] - grid[0])
        weights[[0, -1]] /= 2
        self._grid, self._mass = grid, density * weights
        return float(ndtr(-bound))


_LOOKS: dict[tuple[int, int, float], _Looks] = {}
