"""Samplers and pruners in simulated sweeps with conditional dimensions."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from sweeps.keeper.keeper import Keeper
from sweeps.storage.optuna_private import storage_of, trial_id_of
from sweeps.study.pruners import SuccessiveHalving

Make = Callable[..., Keeper]


# --- every sampler and pruner ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("tpe", "successive_halving"),
        ("tpe", "hyperband"),
        ("random", "median"),
        ("gp", "successive_halving"),
        ("cmaes", "hyperband"),
        ("grid", "successive_halving"),
    ],
)
def test_every_sampler_and_every_pruner_runs_a_sweep(
    make_keeper: Make, pack: Any, stored: Any, sampler: str, pruner: str
) -> None:
    options: dict[str, Any] = {"startup_trials": 3} if sampler in ("tpe", "gp", "cmaes") else {}
    if pruner == "median":
        options["pruner_options"] = {"n_startup_trials": 2}
    keeper = make_keeper(trials=12, report_at=(25, 50, 100), sampler=sampler, pruner=pruner, **options)
    pack(keeper, seats=4).run()
    trials = stored(keeper)
    assert len(trials) == 12
    assert {t.state for t in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len({json.dumps(t.params, sort_keys=True) for t in trials}) == 12
    for trial in trials:
        assert keeper.study_spec.space.problems_of(trial.params) == []
        assert trial.user_attrs["stop_reason"]
    if pruner == "none":
        assert all(t.state == TrialState.COMPLETE for t in trials)
    elif pruner != "hyperband":
        assert any(t.state == TrialState.PRUNED for t in trials)


def test_the_grid_follows_the_guideline_default_and_ends_without_repeating_a_point(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    """Also while its last points still run, and though schedulers without warm-up make some points equal."""
    options = {"sampler": "grid", "sampler_options": {"points_per_dimension": 2}, "pruner": "none"}
    keeper = make_keeper(trials=500, report_at=(100,), **options)
    size = keeper.study_spec.space.grid_size(2)
    first = pack(keeper, seats=5)
    first.ask()
    first.turn()
    pack(make_keeper(trials=500, report_at=(100,), **options), seats=size + 5).run()
    trials = stored(keeper)
    assert trials[0].user_attrs["label"] == "guideline default"
    assert len(trials) == size + 1
    assert len({json.dumps(t.params, sort_keys=True) for t in trials}) == size + 1
    assert {t.state for t in trials} == {TrialState.COMPLETE}


def test_a_grid_trial_that_is_pruned_or_fails_is_not_tried_again(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    """With one point per dimension the guideline default is one of the points, and is tried once."""
    options = {"sampler": "grid", "sampler_options": {"points_per_dimension": 1}}
    keeper = make_keeper(trials=99, report_at=(50, 100), **options)
    pack(keeper, lambda c, p: "failed" if c.lr_scheduler_type == "linear" else 2.0 + c.learning_rate).run()
    assert len(stored(keeper)) == keeper.study_spec.space.grid_size(1)
    assert "failed" in keeper.status().outcomes


# --- successive halving --------------------------------------------------------------------------


@pytest.mark.parametrize("bootstrap_count", [0, 2])
@pytest.mark.parametrize("early", [0, 1])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_one_trial_after_another_is_halved_as_optuna_does_it(
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


def test_auto_halves_once_a_trial_has_used_its_full_budget() -> None:
    curves = [[5.0] * 4, [1.0] * 4, [9.0] * 4]
    assert halved(SuccessiveHalving("auto", 2), curves) == [None, None, 10]


def halved(pruner: optuna.pruners.BasePruner, curves: list[list[float]]) -> list[int | None]:
    """At which percent each of the trials ended that ran one after another."""
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


def test_trials_that_report_together_are_halved_together() -> None:
    """Whatever the order in which they are judged; also one that is exempt from pruning is a rival."""
    study = optuna.create_study(pruner=SuccessiveHalving(20, 2))
    trials = [study.ask() for _ in range(6)]
    for trial, value in zip(trials, (6.0, 5.0, math.nan, 3.0, 2.0, 1.0), strict=True):
        trial.report(value, 20)
    assert [trial.should_prune() for trial in trials] == [True, True, True, False, False, False]


def test_the_end_of_a_trial_without_early_reports_is_no_rival_of_early_ones() -> None:
    study = optuna.create_study(pruner=SuccessiveHalving(20, 2))
    adopted, early = study.ask(), study.ask()
    adopted.report(1.0, 100)
    early.report(3.0, 20)
    assert not early.should_prune()


def test_a_report_above_several_rungs_has_to_pass_them_all() -> None:
    study = optuna.create_study(pruner=SuccessiveHalving(20, 2))
    fast, slow = study.ask(), study.ask()
    for percent, value in ((20, 3.0), (40, 1.0)):
        fast.report(value, percent)
    slow.report(2.0, 50)  # the best at 20, not at 40
    assert slow.should_prune()


def test_what_a_pruner_remembers_of_ended_trials_changes_no_decision() -> None:
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
        # One that was made for this decision has nothing to remember.
        decided = lasting.prune(study, frozen)
        assert decided == SuccessiveHalving(20, 2).prune(study, frozen)
        decisions.add((step, decided))
        if decided or not steps:
            study.tell(trial, 1.0 if not decided else None, state=TrialState(2 if decided else 1))
        else:
            running.append((trial, steps))
    assert decisions >= {(20, True), (20, False), (80, True), (80, False)}


def test_a_pruner_forgets_when_it_is_given_another_study() -> None:
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
