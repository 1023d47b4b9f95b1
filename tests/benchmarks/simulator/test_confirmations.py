"""Simulated confirmations run the program's own plan, and their errors stay within its promise."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from benchmarks.simulator.confirmations import simulate_confirmation
from benchmarks.simulator.scores import simulate
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
