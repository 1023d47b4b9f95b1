"""The power that a plan promises."""

from __future__ import annotations

import math

import pytest

from results.comparison.power import power, seeds_needed, smallest_effect


def test_the_goal_is_met_and_todays_figures_are_kept() -> None:
    """1% at a noise of 0.2%, eight seeds: the goal is 0.8 with six arms."""
    shown = [round(power(0.01, noise=0.002, comparisons=arms), 2) for arms in (1, 6, 12)]
    assert shown == [0.99, 0.91, 0.83]
    assert seeds_needed(0.01, noise=0.002, comparisons=6) == 7


@pytest.mark.parametrize("seeds", [4, 8, 16])
def test_the_smallest_effect_has_the_wanted_power(seeds: int) -> None:
    for noise in (0.0005, 0.002, 0.01):
        effect = smallest_effect(noise=noise, comparisons=6, seeds=seeds)
        assert power(effect, noise=noise, comparisons=6, seeds=seeds) == pytest.approx(0.8, abs=1e-6)
        assert effect > 0.005


def test_the_fewest_seeds_are_the_fewest() -> None:
    for effect in (0.007, 0.01, 0.02):
        seeds = seeds_needed(effect, noise=0.002, comparisons=6)
        assert seeds is not None
        assert power(effect, noise=0.002, comparisons=6, seeds=seeds) >= 0.8
        assert seeds == 3 or power(effect, noise=0.002, comparisons=6, seeds=seeds - 1) < 0.8


@pytest.mark.parametrize("arms", [1, 6, 13])
def test_thresholds_for_more_seeds_see_less_at_first_and_further_seeds_never_see_less(arms: int) -> None:
    def sees(seeds: int, most_seeds: int | None = None) -> float:
        return smallest_effect(noise=0.002, comparisons=arms, seeds=seeds, most_seeds=most_seeds)

    assert sees(4, 8) > sees(4)
    assert sees(8, 8) == sees(8)
    effects = [sees(seeds, 8) for seeds in range(3, 60)]
    assert effects == sorted(effects, reverse=True)
    for seeds in (4, 12, 32):
        found = power(sees(seeds, 8), noise=0.002, comparisons=arms, seeds=seeds, most_seeds=8)
        assert found == pytest.approx(0.8, abs=1e-6)


def test_what_no_budget_sees_has_no_number() -> None:
    assert seeds_needed(0.005, noise=0.002, comparisons=6) is None  # the margin itself
    assert smallest_effect(noise=0.002, comparisons=6, seeds=2) == math.inf
    assert power(0.01, noise=0.002, comparisons=6, seeds=2) == 0.0
    assert power(0.01, noise=0.0, comparisons=6) == 1.0
    assert power(0.5, noise=1e-6, comparisons=6) == 1.0
