"""Search space and losses of trials without training, on both sides."""

from __future__ import annotations

import math

REPORT_PERCENTS = (33, 67, 100)
"""Percent of the budget at which a trial reports; it may be pruned at all but the last."""
REDUCTION_FACTOR = 2
LEARNING_RATES = (1e-5, 1e-2)
"""Low and high, log scale."""
WARMUP_RATIOS = (0.0, 0.5)
SCHEDULERS = ("linear", "constant", "cosine")
SEED = 0


def loss_of(learning_rate: float, percent: int) -> float:
    """A loss with its minimum at 1e-3 that falls over the budget, so that there is something to prune."""
    return 2.0 + math.log10(learning_rate / 1e-3) ** 2 + 1.0 / percent
