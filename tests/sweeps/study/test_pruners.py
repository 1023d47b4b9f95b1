"""Successive halving: as Optuna's own for one trial after another, and for trials that report together."""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from sweeps.storage.optuna_private import storage_of, trial_id_of
from sweeps.study.pruners import SuccessiveHalving


@pytest.mark.parametrize("bootstrap_count", [0, 2])
@pytest.mark.parametrize("early", [0, 1])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_trials_one_after_another_are_pruned_as_by_optuna(
    factor: int, early: int, bootstrap_count: int
) -> None:
    options: dict[str, Any] = {
        "min_resource": 10,
        "reduction_factor": factor,
        "min_early_stopping_rate": early,
        "bootstrap_count": bootstrap_count,
    }
    ours, theirs = (
        halved(pruner, [[(n * 7919 + p * 31) % 100 for p in (10, 20, 45, 80)] for n in range(40)])
        for pruner in (SuccessiveHalving(**options), optuna.pruners.SuccessiveHalvingPruner(**options))
    )
    assert ours == theirs
    assert len(set(ours)) > 1


def test_auto_prunes_once_a_trial_has_used_its_full_budget() -> None:
    curves = [[5.0] * 4, [1.0] * 4, [9.0] * 4]
    assert halved(SuccessiveHalving("auto", 2), curves) == [None, None, 10]


def halved(pruner: optuna.pruners.BasePruner, curves: list[list[float]]) -> list[int | None]:
    """The percent at which each trial was pruned, run one after another."""
    study = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
    ends: list[int | None] = []
    for curve in curves:
        trial = study.ask()
        ends.append(None)
        for percent, value in zip((10, 20, 45, 80), curve, strict=True):
            trial.report(value, percent)
            if trial.should_prune():
                ends[-1] = percent
                break
        if ends[-1] is None:
            trial.report(curve[-1], 100)
            study.tell(trial, curve[-1])
        else:
            study.tell(trial, state=TrialState.PRUNED)
    return ends


def test_trials_that_report_together_are_compared_with_each_other() -> None:
    """In any order, and with trials that are exempt from pruning."""
    study = optuna.create_study(pruner=SuccessiveHalving(20, 2))
    trials = [study.ask() for _ in range(6)]
    for trial, value in zip(trials, (6.0, 5.0, math.nan, 3.0, 2.0, 1.0), strict=True):
        trial.report(value, 20)
    assert [trial.should_prune() for trial in trials] == [True, True, True, False, False, False]


def test_a_final_report_alone_is_not_compared_with_early_ones() -> None:
    study = optuna.create_study(pruner=SuccessiveHalving(20, 2))
    adopted, early = study.ask(), study.ask()
    adopted.report(1.0, 100)
    early.report(3.0, 20)
    assert not early.should_prune()


def test_a_report_that_skips_rungs_has_to_pass_them_all() -> None:
    study = optuna.create_study(pruner=SuccessiveHalving(20, 2))
    fast, slow = study.ask(), study.ask()
    for percent, value in ((20, 3.0), (40, 1.0)):
        fast.report(value, percent)
    slow.report(2.0, 50)  # the best at 20, not at 40
    assert slow.should_prune()


def test_remembered_reports_of_ended_trials_change_no_decision() -> None:
    study, generator = optuna.create_study(), random.Random(5)
    lasting, running = SuccessiveHalving(20, 2), []
    decisions = set()
    for _ in range(300):
        if len(running) < 6:
            running.append((study.ask(), [20, 40, 60, 80, 100]))
        trial, steps = running.pop(generator.randrange(len(running)))
        step = steps.pop(0)
        trial.report(generator.choice([math.inf, math.nan, *map(float, range(9))]), step)
        frozen = storage_of(study).get_trial(trial_id_of(trial))
        # A new pruner remembers nothing.
        decided = lasting.prune(study, frozen)
        assert decided == SuccessiveHalving(20, 2).prune(study, frozen)
        decisions.add((step, decided))
        if decided or not steps:
            study.tell(trial, 1.0 if not decided else None, state=TrialState(2 if decided else 1))
        else:
            running.append((trial, steps))
    assert decisions >= {(20, True), (20, False), (80, True), (80, False)}


def test_a_pruner_starts_over_for_another_study() -> None:
    pruner = SuccessiveHalving(20, 2)
    for losses, decision in (([1.0, 2.0, 3.0], True), ([7.0, 8.0, 9.0], False)):
        study = optuna.create_study()
        for loss in losses:
            trial = study.ask()
            trial.report(loss, 20)
            study.tell(trial, loss)
        last = study.ask()
        last.report(5.0, 20)
        assert pruner.prune(study, storage_of(study).get_trial(trial_id_of(last))) is decision
