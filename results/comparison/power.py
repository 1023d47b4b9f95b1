"""What a confirmation can see before it runs: power, the smallest effect, the seeds that one needs.

Effects, noise and margin are shares of the best's loss; the noise is the standard deviation of one run once
its seed is accounted for. A run of the best and one of an arm make a pair; it has sqrt(2) of that noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from results.comparison.constants import ALPHA, MARGIN, MIN_PAIRS, MOST_SEEDS
from results.comparison.noise import degrees_added, typical_variance
from results.comparison.quantiles import t_quantile
from results.comparison.thresholds import look_level

POWER = 0.8
"""The probability with which an effect counts as seen."""
MOST_SEEDS_NEEDED = 32
"""Seeds beyond which `seeds_needed` does not look."""
_LOOKED_AT = 4
"""Times the design's seeds beyond which further looks, whose thresholds rise, are left out of the power."""
_POINTS = 40
"""Of each of the two variances over which the power of the first look is averaged."""


def power(
    effect: float,
    *,
    noise: float,
    comparisons: int,
    seeds: int = MOST_SEEDS,
    most_seeds: int | None = None,
    margin: float = MARGIN,
    alpha: float = ALPHA,
) -> float:
    """The probability that an arm worse by `effect` is called worse within `seeds` seeds.

    `comparisons` is the number of arms beside the best, `most_seeds` that of seeds for which the thresholds
    are made; `seeds` if None. From the noncentral t distribution of the most powerful look, the last one up
    to `most_seeds`: what the others add is left out, at most 0.02 where the last look is that of the design
    (`tests/results/comparison/test_power.py`).
    """
    if seeds < MIN_PAIRS:
        return 0.0
    looks = _looks(comparisons, seeds, most_seeds or seeds, alpha)
    return _power(effect - margin, noise, looks)


def smallest_effect(
    *,
    noise: float,
    comparisons: int,
    seeds: int = MOST_SEEDS,
    most_seeds: int | None = None,
    margin: float = MARGIN,
    wanted: float = POWER,
    alpha: float = ALPHA,
) -> float:
    """The smallest effect that is called worse with probability `wanted`; infinite below three seeds.

    `most_seeds` as for `power`; with the same, more seeds never need a larger effect.
    """
    if seeds < MIN_PAIRS:
        return math.inf
    looks = _looks(comparisons, seeds, most_seeds or seeds, alpha)
    low, high = 0.0, max(noise, 1e-9)
    while _power(high, noise, looks) < wanted:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, noise, looks) >= wanted else (middle, high)
    return margin + high


def seeds_needed(
    effect: float,
    *,
    noise: float,
    comparisons: int,
    design: Callable[[int], int] = lambda seeds: seeds,
    margin: float = MARGIN,
    wanted: float = POWER,
    alpha: float = ALPHA,
) -> int | None:
    """The fewest seeds that see `effect` with probability `wanted`; None above MOST_SEEDS_NEEDED.

    `design` gives the seeds for which the thresholds are made when each arm has so many. The whole
    confirmation then takes at most `seeds * (comparisons + 1)` runs: fewer, as decided arms stop.
    """

    def found(seeds: int) -> float:
        looks = _looks(comparisons, seeds, design(seeds), alpha)
        return _power(effect - margin, noise, looks)

    few, many = MIN_PAIRS - 1, MOST_SEEDS_NEEDED
    if found(many) < wanted:
        return None
    while many - few > 1:
        seeds = (few + many) // 2
        few, many = (few, seeds) if found(seeds) >= wanted else (seeds, many)
    return many


@dataclass(frozen=True)
class _Look:
    pairs: int
    comparisons: int
    threshold: float

    def power(self, shift: float) -> float:
        """The probability of crossing; `shift`: the mean over its standard error."""
        from scipy.special import nctdtr

        if shift > self.threshold + 12:  # beyond this nctdtr may return nan
            return 1.0
        added = degrees_added(self.comparisons)
        if added and self.pairs == MIN_PAIRS:
            return self._power_of_first(shift, added)
        return 1 - float(nctdtr(self.pairs - 1 + added, shift, self.threshold))

    def _power_of_first(self, shift: float, added: int) -> float:
        """As `power`; the noncentral t would say up to 0.07 too much here.

        A variance is only ever moved up towards the median of the arms. Later looks make up for that by those
        before them. The median is taken as that of independent arms, so that up to 0.04 too much is left.
        """
        import numpy as np
        from scipy.special import betaincinv, chdtri, ndtr

        degrees = self.pairs - 1
        probabilities = (np.arange(_POINTS) + 0.5) / _POINTS
        own = chdtri(degrees, probabilities)[:, None] / degrees
        below = (self.comparisons + 1) // 2  # the lower of the middle two
        ranks = betaincinv(below, self.comparisons + 1 - below, probabilities)
        typical = typical_variance([(1.0, degrees)]) * chdtri(degrees, 1 - ranks)[None] / degrees
        variance = np.maximum(own, (added * typical + degrees * own) / (added + degrees))
        return float(ndtr(shift - self.threshold * np.sqrt(variance)).mean())


def _looks(comparisons: int, seeds: int, most_seeds: int, alpha: float) -> list[_Look]:
    """The last look up to `most_seeds` and those beyond it."""
    found = []
    for pairs in range(min(seeds, most_seeds), min(seeds, _LOOKED_AT * most_seeds) + 1):
        level = look_level(pairs, comparisons, most_seeds, alpha)
        threshold = t_quantile(2 * level, pairs - 1 + degrees_added(comparisons))
        found.append(_Look(pairs, comparisons, threshold))
    return found


def _power(beyond: float, noise: float, looks: list[_Look]) -> float:
    """The most that one of the looks has against an effect so far `beyond` the margin."""
    if noise <= 0:
        return float(beyond > 0)
    return max(look.power(beyond / (math.sqrt(2) * noise) * math.sqrt(look.pairs)) for look in looks)
