"""The share of wrong words over simulated sweeps whose truth is known stays under the stated error rate."""

from __future__ import annotations

import numpy as np
import pytest

from results.evidence import ALPHA, MARGIN, Arm
from tests.results.simulated import ROW_RATES, Noise, Truth, arms_of, confirm

SWEEPS = 1000


def borderline(number: int) -> tuple[list[Arm], list[float]]:
    """Arms whose true difference is the margin exactly: whatever is said about them is wrong."""
    rates = [2e-4, *(4e-4 * 1.1**k for k in range(number))]
    arms = [
        Arm(name=f"a{k}", role="row" if k else "best", values={"learning_rate": rate})
        for k, rate in enumerate(rates)
    ]
    return arms, [2.0, *([2.0 * (1 + MARGIN)] * number)]


def share_wrong(noise: Noise, *, corrected: bool) -> float:
    generator = np.random.default_rng(7)
    arms, losses = borderline(6)
    found = [confirm(arms, losses, noise, generator, corrected=corrected).wrong for _ in range(SWEEPS)]
    return sum(found) / SWEEPS


@pytest.mark.parametrize("run", [0.001, 0.02])
def test_wrong_words_stay_under_the_stated_rate_where_every_word_is_wrong(run):
    """Six rows on the margin itself, up to eight looks, noise far below and above the margin's 0.01 nats."""
    assert share_wrong(Noise(run=run), corrected=True) <= ALPHA


def test_the_same_sweeps_without_the_corrections_are_wrong_far_too_often():
    """What the corrections are for, and that the test above is able to fail."""
    assert share_wrong(Noise(run=0.02), corrected=False) > 3 * ALPHA


@pytest.mark.parametrize("best_rate", [3e-5, 2e-4, 8e-4])
@pytest.mark.parametrize("lost_above", [None, 9e-4])
def test_wrong_words_stay_under_the_stated_rate_in_whole_sweeps(best_rate, lost_above):
    """Searched, selected by a noisy loss, replicated until it is clear; runs at high rates may end early."""
    truth, generator = Truth(best_rate=best_rate), np.random.default_rng(int(best_rate * 1e6))
    wrong = 0
    for _ in range(SWEEPS // 2):
        noise = Noise(run=float(generator.uniform(0.001, 0.01)), lost_above=lost_above)
        arms = arms_of(truth, noise, generator)
        losses = [truth.loss(float(arm.values["learning_rate"])) for arm in arms]
        # Where runs end early, "too high" is right whatever those that finished would say.
        outcome = confirm(arms, losses, noise, generator)
        wrong += outcome.wrong and not (lost_above and outcome.words.get("row.high") == "too_high")
    assert wrong / (SWEEPS // 2) <= ALPHA


def test_large_effects_are_found_on_their_side_and_equal_rates_called_equal():
    """Power: at a noise of a tenth of the margin, rows are decided, rightly, before the budget is spent."""
    truth, noise, generator = Truth(), Noise(run=0.001), np.random.default_rng(3)
    names = ["best", *ROW_RATES]
    rates = [2.1e-4, *ROW_RATES.values()]
    arms = [
        Arm(name=name, role="row" if index else "best", values={"learning_rate": rate})
        for index, (name, rate) in enumerate(zip(names, rates, strict=True))
    ]
    losses = [truth.loss(rate) for rate in rates]
    outcomes = [confirm(arms, losses, noise, generator) for _ in range(100)]
    found = {name: [outcome.words[name] for outcome in outcomes] for name in ROW_RATES}
    assert found["row.high"].count("too_high") >= 98  # 0.29 nats above
    assert found["row.low"].count("too_low") >= 98  # 0.030 nats above, three margins
    assert found["row.default"].count("no_difference") >= 80
    assert sum(outcome.stopped for outcome in outcomes) >= 90
    assert np.mean([outcome.rounds for outcome in outcomes]) < 6


def test_a_rate_whose_runs_end_early_is_called_too_high_though_it_never_finished():
    noise, generator = Noise(lost_above=9e-4), np.random.default_rng(5)
    arms = [
        Arm(name="best", role="best", values={"learning_rate": 2e-4}),
        Arm(name="row", role="row", values={"learning_rate": 1e-3}),
    ]
    outcomes = [confirm(arms, [2.0, 2.0], noise, generator) for _ in range(100)]
    words = [outcome.words["row"] for outcome in outcomes]
    assert words.count("too_high") >= 70
    assert words.count("no_difference") <= 8  # three runs that happen to finish: 0.3 ** 3
