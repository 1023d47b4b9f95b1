"""Simulated confirmations run the program's own plan, and their errors stay within its promise."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from benchmarks.simulator.confirmations import simulate_confirmation
from benchmarks.simulator.scores import Outcome, scores, simulate
from benchmarks.simulator.sweeps import simulate_sweep
from benchmarks.simulator.worlds import WORLDS


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_a_confirmation_runs_every_arm_on_seeds_that_all_share() -> None:
    made = simulate_sweep(WORLDS["cliff, 5 dimensions"], np.random.default_rng(3), model_size=8.03e9)
    looks = list(simulate_confirmation(made, np.random.default_rng(3), seats=4))
    assert [look.is_last for look in looks] == [False] * (len(looks) - 1) + [True]
    assert [look.num_runs for look in looks] == sorted(look.num_runs for look in looks)
    runs = looks[-1].replicates.runs
    assert {run.arm for run in runs} == set(looks[-1].arms)
    of_best = {run.seed for run in runs if run.arm == "best"}
    assert len({run.seed for run in runs}) >= 3
    assert {run.seed for run in runs} == of_best, "the reference runs on every seed"


def test_a_sweep_s_number_and_seed_repeat_it() -> None:
    world = WORLDS["cliff, noise 0.2%"]
    assert simulate(world, 2) == simulate(world, 2)
    assert simulate(world, 2) != simulate(world, 2, seed=1)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, list[Outcome]]:
    """A few sweeps of the worlds in which words are wrong or lost most easily."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    margin, near = WORLDS["at the margin, unequal noise"], WORLDS["near the cliff"]
    return {
        "margin": [simulate(margin, number) for number in range(16)],
        "near": [simulate(near, number) for number in range(4)],
        "out of order": [simulate(near, number, seats=5, look_at="runs") for number in range(2)],
        "power": [simulate(WORLDS["all worse by 1%"], number) for number in range(8)],
    }


@pytest.mark.slow
def test_no_word_is_lost_between_looks(outcomes: dict[str, list[Outcome]]) -> None:
    """Whatever the order in which runs end."""
    assert [outcome.lost for found in outcomes.values() for outcome in found if outcome.lost] == []


@pytest.mark.slow
def test_wrong_words_are_as_rare_as_promised(outcomes: dict[str, list[Outcome]]) -> None:
    """Of 16 sweeps with an error rate of 5%, more than 3 have a wrong word in 1 of 140 such tests."""
    assert sum(bool(outcome.wrong) for outcome in outcomes["margin"]) <= 3
    assert sum(bool(outcome.wrong) for outcome in outcomes["near"]) <= 1


@pytest.mark.slow
def test_a_difference_of_a_percent_is_seen_with_eight_seeds(outcomes: dict[str, list[Outcome]]) -> None:
    power = scores(outcomes["power"]).power
    assert power is not None
    assert power.value + 2 * power.error >= 0.8
    assert scores(outcomes["margin"]).power is None
