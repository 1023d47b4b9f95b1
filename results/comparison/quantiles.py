"""Quantiles and tail probabilities, with scipy imported at the first use."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def t_quantile(share: float, degrees: int) -> float:
    """The two-sided t quantile that leaves `share` outside."""
    from scipy.special import stdtrit  # here: `sweeps status` does not wait for scipy

    return float(-stdtrit(degrees, share / 2))


def at_least(successes: int, runs: int, share: float) -> float:
    """The probability of at least so many successes in so many runs, each with probability `share`."""
    from scipy.special import bdtrc

    return float(bdtrc(successes - 1, runs, share))
