"""The family-wise error rate is at most 5%, and an effect of 1% is seen with the power that is promised."""

from __future__ import annotations

import math

import numpy as np
import pytest

from results.comparison.constants import ALPHA, MARGIN
from results.comparison.power import power
from tests.results.comparison.simulated import (
    heavy,
    is_wrong,
    lognormal,
    normal,
    rare_jump,
    relations,
    skewed,
)

SWEEPS = 600
ABOVE, BELOW = MARGIN * (1 + 1e-6), MARGIN * (1 - 1e-6)
HAIR = [ABOVE, BELOW, ABOVE, BELOW, ABOVE, BELOW]
"""Six arms a hair off the margin: each has one relation that is wrong, and it is as likely as can be."""
QUIET = [0.002] * 6


def wrong_share(effects, noises, sweeps: int = SWEEPS, **options) -> float:
    generator, wrong = np.random.default_rng(11), 0
    for _ in range(sweeps):
        shown = relations(generator, effects, noises, **options)
        wrong += any(is_wrong(one, effect) for one, effect in zip(shown, effects, strict=True))
    return wrong / sweeps


NEAR_CLIFF = {"draws": [normal] * 4 + [skewed] * 2, "above": (4, 5)}
SCENARIOS = {
    "a hair off the margin": (HAIR, QUIET, {}),
    "one arm": (HAIR[:1], QUIET[:1], {}),
    "three arms": (HAIR[:3], QUIET[:3], {}),
    "two arms noisier": (HAIR, [0.002] * 4 + [0.01] * 2, {"above": (4, 5)}),
    "t4 tails": (HAIR, QUIET, {"draws": [heavy] * 6}),
    "two arms skewed": ([*HAIR[:4], ABOVE, ABOVE], [0.001] * 4 + [0.003] * 2, NEAR_CLIFF),
    "noise far above the margin": ([0.0] * 6, [0.1] * 6, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_confirmation_is_wrong_in_at_most_one_of_twenty(name: str) -> None:
    effects, noises, options = SCENARIOS[name]
    found = wrong_share(effects, noises, **options)
    assert found <= ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / SWEEPS)


SKEWED = {
    "exponential, two of six": (6, 2, skewed),
    "exponential, six of six": (6, 6, skewed),
    "exponential, three of three": (3, 3, skewed),
    "lognormal, two of six": (6, 2, lognormal),
    "lognormal, six of six": (6, 6, lognormal),
    "lognormal, three of three": (3, 3, lognormal),
}
"""How many arms, of which how many are three times noisier than the others, by which noise."""


def skewed_share(arms: int, noisy: int, draw, sweeps: int = SWEEPS, *, near=True) -> float:
    """How often an arm a hair above the margin is called as good, some with skewed noise."""
    draws = [draw] * noisy + [normal] * (arms - noisy)
    noises = [0.006] * noisy + [0.002] * (arms - noisy)
    above = range(arms) if near else ()
    return wrong_share([ABOVE] * arms, noises, sweeps, draws=draws, above=above, best_noise=0.002)


@pytest.mark.slow
@pytest.mark.parametrize("name", SKEWED)
def test_skewed_arms_are_called_as_good_in_at_most_one_confirmation_of_twenty(name: str) -> None:
    assert skewed_share(*SKEWED[name]) <= ALPHA


@pytest.mark.slow
def test_without_the_wider_end_skewed_arms_are_called_as_good_too_often() -> None:
    """Shows that the test above can fail: the same arms, at rates below the best's."""
    assert skewed_share(6, 6, skewed, near=False) > 1.5 * ALPHA


@pytest.mark.slow
@pytest.mark.parametrize(("arms", "seeds", "effect", "noise"), [(6, 8, 0.01, 0.002), (1, 5, 0.01, 0.003)])
def test_the_promised_power_is_reached(arms: int, seeds: int, effect: float, noise: float) -> None:
    generator = np.random.default_rng(5)
    shown = [relations(generator, [effect] * arms, [noise] * arms, seeds=seeds) for _ in range(600 // arms)]
    found = sum(one == "worse" for sweep in shown for one in sweep) / (arms * len(shown))
    promised = power(effect, noise=noise, comparisons=arms, seeds=seeds)
    assert found == pytest.approx(promised, abs=0.05)
    if arms == 6:
        assert min(found, promised) > 0.85


def print_table(sweeps: int = 4000) -> None:
    """The figures of docs/architecture/results/comparison.md."""
    for name, (effects, noises, options) in SCENARIOS.items():
        wrong = wrong_share(effects, noises, sweeps, **options)
        print(f"| wrong: {name} | {100 * wrong:.1f}% |")
    best = {"best_noise": 0.006, "best_draw": skewed}
    print(f"| wrong: the best skewed | {100 * wrong_share([BELOW] * 6, QUIET, sweeps, **best):.1f}% |")
    for name, (arms, noisy, draw) in SKEWED.items():
        plain, wide = (skewed_share(arms, noisy, draw, sweeps, near=near) for near in (False, True))
        print(f"| wrong: {name} | {100 * plain:.1f}% | {100 * wide:.1f}% |")
    jumps = {"draws": [rare_jump] * 2 + [normal] * 4, "best_noise": 0.002, "above": range(6)}
    found = wrong_share([ABOVE] * 6, [0.0095] * 2 + [0.002] * 4, sweeps, **jumps)
    print(f"| wrong: rare jumps, two of six | {100 * found:.1f}% |")
    generator = np.random.default_rng(5)
    shown_words = ((0.01, "worse"), (0.02, "worse"), (0.0, "as good"))
    for near in ((), range(6)):
        for effect, word in shown_words:
            words = ("worse",) if word == "worse" else ("within", "no_worse")
            for noise in (0.001, 0.002, 0.004):
                shown = [
                    relations(generator, [effect] * 6, [noise] * 6, above=near) for _ in range(sweeps // 4)
                ]
                found = sum(one in words for sweep in shown for one in sweep) / (6 * len(shown))
                print(f"| {word}: effect {effect:.0%}, noise {noise:.1%}, near: {bool(near)} | {found:.2f} |")


if __name__ == "__main__":
    print_table()
