"""The variance of an arm's paired differences, guarded against the luck of few pairs and against a cliff."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_low

from results.comparison.constants import MOST_SEEDS, PRIOR_DEGREES

NOISY = 4.0
"""An arm whose variance is above the typical one by this factor may lie near the cliff."""
STRETCH = 1.12
"""Factor on the half-width at the upper end of an arm that may lie near the cliff."""
STRETCH_OF_FEW_ARMS = {1: 1.5, 2: 1.2}
"""For so many arms: they have few others beside them to show that noise is larger than in their own pairs."""
FURTHER_STRETCH = 0.1
"""Added above MOST_SEEDS pairs: rare large losses then decide between ends that lie closer to the mean."""


def degrees_added(arms: int) -> int:
    """Degrees of freedom that the arms' median adds to the variance of each, for so many arms with one.

    The median of few is as uncertain as one of them: with more, three or four arms are wrong in above 5%.
    """
    return 0 if arms < 3 else 1 if arms < 5 else PRIOR_DEGREES


def typical_variance(variances: Sequence[tuple[float, int]]) -> float:
    """The median of the arms' variances, each with its degrees of freedom.

    Of an even number of arms the lower of the middle two, so that noisy arms hide less about the quiet ones.
    """
    return median_low(_unbiased(variances))


def noisier_variance(variances: Sequence[tuple[float, int]]) -> float:
    """The least variance in the noisier half of the arms, the middle one of an odd number not counted in."""
    found = sorted(_unbiased(variances))
    return found[min((len(found) + 1) // 2, len(found) - 1)]


def _unbiased(variances: Sequence[tuple[float, int]]) -> list[float]:
    """Each divided by the median of chi-squared over its degrees (Wilson and Hilferty), which is below 1."""
    return [found / (1 - 2 / (9 * degrees)) ** 3 for found, degrees in variances]


def guarded_variance(own: float, degrees: int, typical: float, added: int) -> float:
    """An arm's variance, moved up towards the typical one, with weight `added`, where it is below it.

    Never down: an arm noisier than the others keeps all of its noise.
    """
    return max(own, (added * typical + degrees * own) / (added + degrees)) if added else own


def cautious_half(variance: float, noisier: float, pairs: int, comparisons: int, quantile: float) -> float:
    """The half-width at the upper end of an arm that may lie near the cliff.

    Near a cliff most runs are alike and a few far worse. Until one of these is seen, mean and spread are both
    too low, and a plain upper end would call such an arm as good as the best in up to a fifth of
    confirmations. Its own pairs do not show that; those of other arms do, of which rarely all are lucky.
    """
    stretch = STRETCH_OF_FEW_ARMS.get(comparisons, STRETCH)
    if pairs > MOST_SEEDS:
        stretch += FURTHER_STRETCH
    return stretch * half_width(max(variance, noisier), pairs, quantile)


def half_width(variance: float, pairs: int, quantile: float) -> float:
    """The plain half-width of an interval for the mean."""
    return quantile * math.sqrt(variance / pairs)
