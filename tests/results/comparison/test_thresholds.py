"""Levels of the looks, against simulated sums, and the alpha that they spend."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from results.comparison.constants import ALPHA, INTERVAL_SHARE, MIN_PAIRS, RESERVE
from results.comparison.thresholds import end_share, look_level, spent


@pytest.mark.parametrize(("most_seeds", "last"), [(3, 9), (8, 8), (8, 20), (32, 32)])
def test_an_end_is_crossed_as_often_as_its_share_says(most_seeds: int, last: int) -> None:
    """With alpha so large that a crossing is common: the recursion does not know how small it is."""
    alpha = 0.5
    sums = np.cumsum(np.random.default_rng(1).standard_normal((200_000, last), dtype=np.float32), axis=1)
    crossed = np.zeros(len(sums), dtype=bool)
    for pairs in range(MIN_PAIRS, last + 1):
        bound = stats.norm.isf(look_level(pairs, 1, most_seeds, alpha))
        crossed |= sums[:, pairs - 1] > bound * np.sqrt(pairs)
    expected = end_share(1, alpha) * spent(last, most_seeds)
    assert crossed.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected / len(sums)) + 0.005 * expected)


def test_the_first_look_has_the_level_that_it_spends() -> None:
    assert look_level(3, 6, 8) == pytest.approx(ALPHA * INTERVAL_SHARE / 6 * (1 - RESERVE) * (3 / 8) ** 3)
    with pytest.raises(ValueError, match="at 3 pairs; got 2"):
        look_level(2)


@pytest.mark.parametrize("most_seeds", [3, 8, 32])
def test_alpha_is_never_overspent_however_far_a_budget_is_raised(most_seeds: int) -> None:
    shares = [spent(pairs, most_seeds) for pairs in range(MIN_PAIRS, 40 * most_seeds)]
    assert shares == sorted(shares)
    assert spent(most_seeds, most_seeds) == pytest.approx(1 - RESERVE)
    assert 0.995 < shares[-1] < 1


def test_more_arms_mean_stricter_levels() -> None:
    assert look_level(8, 12) < look_level(8, 6) < look_level(8, 1)
