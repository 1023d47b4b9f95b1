"""What a confirmation has shown is never taken back, in whatever order its runs end."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from results.comparison.arms import Arm, Replicate
from results.comparison.paired import compare_all
from results.comparison.relation import relation
from results.verdict.replicates import read_replicates
from sweeps.plan.replicate_plan import new_seeds

STRONGER = {"open": None, "no_worse": {"within", "better"}, "loses_runs": {"worse"}}
"""What a relation may become; None for anything."""
SEEDS = new_seeds(7, 14)
MARGINS = (0.005, 0.0005)


def arms_of(number: int) -> list[Arm]:
    rates = [1e-4 * 2 ** (index - 2) for index in range(number)]
    best = Arm(name="best", role="best", values={"learning_rate": 2e-4})
    return [best, *(Arm(name=f"a{i}", role="row", values={"learning_rate": r}) for i, r in enumerate(rates))]


def check_nothing_is_lost(arms: list[Arm], runs: list[Replicate], most_seeds: int) -> int:
    """Looks after every run; returns how many relations were reached."""
    shown: dict[tuple[str, float], str] = {}
    for end in range(1, len(runs) + 1):
        for name, found in compare_all(arms, runs[:end], most_seeds=most_seeds).items():
            for margin in MARGINS:
                now, before = relation(found, margin), shown.get((name, margin), "open")
                allowed = STRONGER.get(before, set())
                assert now == before or allowed is None or now in allowed, (before, now, runs[:end])
                shown[name, margin] = now
    return sum(found != "open" for found in shown.values())


def drawn_runs(draw: random.Random, arms: list[Arm]) -> list[Replicate]:
    """Runs of a confirmation in the order in which they end: out of order, lost, failed and made up for."""
    spreads = [draw.choice((0.0, 0.0002, 0.002, 0.02)) for _ in arms]
    effects = [0.0, *(draw.choice((-0.02, -0.005, 0.0, 0.004, 0.005, 0.006, 0.02, 0.3)) for _ in arms[1:])]
    lost = draw.choice((0.0, 0.0, 0.1, 0.5))
    waiting, late, ended = [(arm, seed) for seed in SEEDS for arm in arms], [], []
    while waiting or late:
        if late and (not waiting or draw.random() < 0.2):
            arm, seed = late.pop(0)  # a later call makes up for it
        else:
            arm, seed = waiting.pop(draw.randrange(min(len(waiting), draw.choice((1, len(arms), 20)))))
            if draw.random() < 0.1:
                late.append((arm, seed))
                ended.append(Replicate(arm=arm.name, seed=seed, eval_loss=None, outcome="failed"))
                continue
        index = arms.index(arm)
        loss = 2 * (1 + effects[index] + draw.gauss(0, spreads[index]) + (seed % 97) / 5000)
        loss = draw.choice((math.nan, 1e9)) if draw.random() < lost * (index > 0 or lost < 0.2) else loss
        ended.append(Replicate(arm=arm.name, seed=seed, eval_loss=loss))
    return ended


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.sampled_from((3, 8, 14)))
def test_a_relation_once_shown_stays_whatever_ends_in_whatever_order(seed, number, most_seeds):
    arms = arms_of(number + 1)
    check_nothing_is_lost(arms, drawn_runs(random.Random(seed), arms), most_seeds)


def test_the_drawn_confirmations_do_show_something():
    arms = arms_of(4)
    shown = [check_nothing_is_lost(arms, drawn_runs(random.Random(seed), arms), 8) for seed in range(20)]
    assert sum(shown) > 60


@pytest.mark.parametrize("is_old", [False, True])
def test_a_study_appends_looks_whatever_its_seeds_and_numbers_are(is_old):
    """Trials end out of order; studies of earlier versions hold only the times."""
    draw, arms = random.Random(3), arms_of(4)
    for _ in range(6):
        runs = [run for run in drawn_runs(draw, arms) if run.loss is not None][:36]
        numbers = draw.sample(range(len(runs)), len(runs))
        study = optuna.create_study()
        study.set_user_attr("arms", [arm.to_dict() for arm in arms])
        trials = {}
        for order, (number, run) in enumerate(zip(numbers, runs, strict=True)):
            trial = create_trial(
                value=run.eval_loss,
                state=TrialState.COMPLETE,
                user_attrs={"arm": run.arm, "seed": run.seed} | ({} if is_old else {"ended": order}),
            )
            # Another machine's clock, an hour off, says nothing where the order is stored.
            off = 0 if is_old else draw.choice((-3600, 3600))
            trial.datetime_complete = datetime(2026, 1, 1) + timedelta(seconds=order + off)
            trials[number] = trial
        for number in sorted(trials):
            study.add_trial(trials[number])
        assert list(read_replicates(study).runs) == [
            Replicate(arm=run.arm, seed=run.seed, eval_loss=run.eval_loss, outcome="complete") for run in runs
        ]
