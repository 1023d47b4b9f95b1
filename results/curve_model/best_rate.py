"""Where the curve of one model is lowest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from results.curve_model.points import USUAL_RANK, places

if TYPE_CHECKING:
    from results.curve_model.posterior import CurvePosterior

NUM_RATES, NUM_DRAWS = 41, 500


@dataclass(frozen=True, kw_only=True)
class BestRate:
    """The rate at which the curve is lowest, between the lowest and the highest rate that were tried."""

    rate: float
    low: float
    high: float
    """Ends of the interval that leaves 5% beyond each."""
    open_below: bool
    open_above: bool
    """Whether an end is the last rate tried: the lowest point may lie beyond."""


def best_rate(
    posterior: CurvePosterior, lowest: float, highest: float, *, rank: float = USUAL_RANK
) -> BestRate:
    """The best rate at one rank, between two rates."""
    rates = np.geomspace(lowest, highest, NUM_RATES)
    at = places([{"learning_rate": rate, "lora_r": rank} for rate in rates])
    found = posterior.draws(*at, NUM_DRAWS).argmin(axis=1)
    low, middle, high = np.quantile(found, (0.05, 0.5, 0.95), method="nearest")
    return BestRate(
        rate=float(rates[middle]),
        low=float(rates[low]),
        high=float(rates[high]),
        open_below=bool(low == 0),
        open_above=bool(high == NUM_RATES - 1),
    )
