"""What a confirmation can see before it runs: power, the smallest effect, the seeds that one needs.

Effects, noise and margin are shares of the best's loss; the noise is the standard deviation of one run once
its seed is accounted for. A run of the best and one of an arm make a pair; it has sqrt(2) of that noise.
"""

from __future__ import annotations

import math

from results.comparison.constants import ALPHA, MARGIN, MIN_PAIRS, MOST_SEEDS
from results.comparison.noise import degrees_added
from results.comparison.quantiles import t_quantile
from results.comparison.thresholds import look_level

POWER = 0.8
"""The probability with which an effect counts as seen."""
MOST_SEEDS_NEEDED = 32
"""Seeds beyond which `seeds_needed` does not look."""


def power(
    effect: float,
    *,
    noise: float,
    comparisons: int,
    seeds: int = MOST_SEEDS,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> float:
    """The probability that an arm worse by `effect` is called worse within `seeds` seeds.

    `comparisons` is the number of arms beside the best. From the noncentral t distribution of the last look:
    what earlier looks add is left out, at most 0.02 (`tests/results/comparison/test_power.py`).
    """
    if seeds < MIN_PAIRS:
        return 0.0
    if noise <= 0:
        return float(effect > margin)
    from scipy.special import nctdtr

    degrees = seeds - 1 + degrees_added(comparisons)
    threshold = t_quantile(2 * look_level(seeds, comparisons, seeds, alpha), degrees)
    shift = (effect - margin) / (math.sqrt(2) * noise) * math.sqrt(seeds)
    if shift > threshold + 12:  # beyond this nctdtr may return nan
        return 1.0
    return 1 - float(nctdtr(degrees, shift, threshold))


def smallest_effect(
    *,
    noise: float,
    comparisons: int,
    seeds: int = MOST_SEEDS,
    margin: float = MARGIN,
    wanted: float = POWER,
    alpha: float = ALPHA,
) -> float:
    """The smallest effect that is called worse with probability `wanted`; infinite below three seeds."""
    if seeds < MIN_PAIRS:
        return math.inf
    low, high = margin, margin + max(noise, 1e-9)

    def found(effect: float) -> float:
        return power(effect, noise=noise, comparisons=comparisons, seeds=seeds, margin=margin, alpha=alpha)

    while found(high) < wanted:
        low, high = high, margin + 2 * (high - margin)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) >= wanted else (middle, high)
    return high


def seeds_needed(
    effect: float,
    *,
    noise: float,
    comparisons: int,
    margin: float = MARGIN,
    wanted: float = POWER,
    alpha: float = ALPHA,
) -> int | None:
    """The fewest seeds of a design that sees `effect` with probability `wanted`; None above
    MOST_SEEDS_NEEDED.

    The whole confirmation then takes at most `seeds * (comparisons + 1)` runs: fewer, as decided arms stop.
    """
    few, many = MIN_PAIRS - 1, MOST_SEEDS_NEEDED
    if power(effect, noise=noise, comparisons=comparisons, seeds=many, margin=margin, alpha=alpha) < wanted:
        return None
    while many - few > 1:
        seeds = (few + many) // 2
        found = power(effect, noise=noise, comparisons=comparisons, seeds=seeds, margin=margin, alpha=alpha)
        few, many = (few, seeds) if found >= wanted else (seeds, many)
    return many
