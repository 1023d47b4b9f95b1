"""The variance of an arm's paired differences, guarded against the luck of few pairs and against a cliff."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_low

from results.comparison.constants import PRIOR_DEGREES

NOISY = 4.0
"""An arm whose variance is above the typical one by this factor may lie near the cliff."""
FEW_PAIRS = 6
"""Below it, a skewed arm's rare large losses have mostly not been seen yet."""


def degrees_added(arms: int) -> int:
    """Degrees of freedom that the arms' median adds to the variance of each, for so many arms with one.

    The median of few is as uncertain as one of them: with more, three or four arms are wrong in above 5%.
    """
    return 0 if arms < 3 else 1 if arms < 5 else PRIOR_DEGREES


def typical_variance(variances: Sequence[tuple[float, int]]) -> float:
    """The median of the arms' variances, each with its degrees of freedom.

    Each is divided by the median of chi-squared over its degrees (Wilson and Hilferty), which is below 1. Of
    an even number of arms the lower of the middle two, so that noisy arms hide less about the quiet ones.
    """
    return median_low(found / (1 - 2 / (9 * degrees)) ** 3 for found, degrees in variances)


def guarded_variance(own: float, degrees: int, typical: float, added: int) -> float:
    """An arm's variance, moved up towards the typical one, with weight `added`, where it is below it.

    Never down: an arm noisier than the others keeps all of its noise.
    """
    return max(own, (added * typical + degrees * own) / (added + degrees)) if added else own


def upper_end(mean: float, half: float, largest: float, pairs: int) -> float:
    """The upper end for an arm that may lie near the cliff, from its plain half-width.

    Near a cliff most runs are alike and a few far worse. Until one of these is seen, mean and spread are both
    too low, and a plain upper end would call such an arm as good as the best in up to a fifth of
    confirmations. So the end lies further out, and never below the largest difference seen.
    """
    return max(mean + half * (1.5 if pairs >= FEW_PAIRS else 3.0), largest)


def half_width(variance: float, pairs: int, quantile: float) -> float:
    """The plain half-width of an interval for the mean."""
    return quantile * math.sqrt(variance / pairs)
