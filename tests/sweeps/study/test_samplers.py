"""Samplers, with every pruner, in simulated sweeps with conditional dimensions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import FixedTrial, TrialState

from sweeps.keeper.keeper import Keeper

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
        assert keeper.study_spec.space.suggest(FixedTrial(trial.params)) == trial.params
        assert trial.user_attrs["stop_reason"]
    if pruner == "none":
        assert all(t.state == TrialState.COMPLETE for t in trials)
    elif pruner != "hyperband":
        assert any(t.state == TrialState.PRUNED for t in trials)


def test_the_grid_follows_the_guideline_default_and_ends_without_repeating_a_point(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    """Also while its last points run, and although schedulers without warmup make some points equal."""
    options = {"sampler": "grid", "sampler_options": {"points_per_dimension": 2}, "pruner": "none"}
    keeper = make_keeper(trials=500, report_at=(100,), **options)
    size = 2 * 2 * (2 * 2 + 1)  # rates, ratios, two schedulers with warmup and one without
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
    assert len(stored(keeper)) == 3  # schedulers
    assert "failed" in keeper.status().outcomes
