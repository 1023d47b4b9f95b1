"""The first rung: never before twice the longest warmup that a trial of the space may have."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import TrialState

from search_spaces import SearchSpace, space_for
from sweeps.study.pruning.rungs import (
    early_rung_warning,
    first_pruning_percent,
    longest_warmup,
    nothing_pruned_reason,
    pruning_percents,
)

FIVE = (20, 40, 60, 80, 100)
SEARCHED = {"pruner": "successive_halving", "pruner_options": {}}


def space(max_steps: int = 100, include: tuple[str, ...] = (), **overrides: Any) -> SearchSpace:
    return space_for(
        model_size=8.03e9,
        max_steps=max_steps,
        train_embeddings=False,
        include=include,
        overrides=overrides,
    )


def constants(max_steps: int = 100) -> dict[str, Any]:
    return {"max_steps": max_steps, "per_device_train_batch_size": 8}


@pytest.mark.parametrize(
    ("given", "max_steps", "percent"),
    [
        ({}, 100, 40),
        ({"warmup_ratio": {"low": 0.0, "high": 0.05}}, 100, 10),
        ({"warmup_ratio": {"value": 0.3}}, 100, 60),
        ({"warmup_ratio": {"low": 0.0, "high": 0.7}}, 100, 100),
        # In whole steps, rounded up: 3 of 8.
        ({"warmup_ratio": {"low": 0.0, "high": 0.26}}, 8, 75),
        ({"warmup_ratio": {"low": 0.0, "high": 0.07}}, 100, 16),  # transformers takes 8 steps
        # Only under some schedulers is under some trials.
        ({"lr_scheduler_type": {"choices": ["constant", "linear"]}}, 100, 40),
        ({"lr_scheduler_type": {"value": "constant"}}, 100, 0),
    ],
)
def test_the_first_percent_is_twice_the_longest_warmup(
    given: dict[str, Any], max_steps: int, percent: int
) -> None:
    assert first_pruning_percent(space(max_steps, **given), constants(max_steps)) == percent


def test_a_larger_batch_leaves_fewer_steps_of_which_one_is_a_larger_share() -> None:
    searched = space(10, ("per_device_train_batch_size",), warmup_ratio={"low": 0.0, "high": 0.01})
    assert longest_warmup(space(10, warmup_ratio={"low": 0.0, "high": 0.01}), constants(10)) == 0.1
    assert longest_warmup(searched, constants(10)) == 0.2  # one step of five, at batch size 16


@pytest.mark.parametrize(
    ("pruner", "options", "earliest", "stopped_at"),
    [
        ("successive_halving", {}, 40, (40, 80)),
        ("successive_halving", {}, 0, (20, 40, 80)),
        ("successive_halving", {}, 41, (60,)),
        ("successive_halving", {}, 100, ()),
        ("successive_halving", {"min_resource": 20}, 40, (20, 40, 80)),
        ("successive_halving", {"reduction_factor": 4}, 10, (20, 80)),
        ("hyperband", {}, 40, (40, 80)),
        ("median", {}, 40, (40, 60, 80)),
        ("median", {"n_warmup_steps": 10}, 40, (20, 40, 60, 80)),
        ("none", {}, 0, ()),
    ],
)
def test_where_trials_are_stopped(
    pruner: str, options: dict[str, Any], earliest: int, stopped_at: tuple[int, ...]
) -> None:
    assert pruning_percents({"pruner": pruner, "pruner_options": options}, FIVE, earliest) == stopped_at


def test_a_rung_of_the_users_own_is_kept_with_a_warning() -> None:
    early = {"pruner": "successive_halving", "pruner_options": {"min_resource": 20}}
    assert early_rung_warning(SEARCHED, FIVE, 40) is None
    assert early_rung_warning(early, FIVE, 20) is None
    assert early_rung_warning(early, FIVE, 40) == (
        "search.pruner_options.min_resource 20 stops trials at 20%; below 40%, twice the longest warmup of "
        "the space, a trial with a long warmup is stopped although it may end best"
    )
    late = {"pruner": "median", "pruner_options": {"n_warmup_steps": 0}}
    assert "n_warmup_steps 0 stops trials at 20%" in str(early_rung_warning(late, FIVE, 40))


def test_it_is_said_why_a_pruner_stops_nothing() -> None:
    assert nothing_pruned_reason(SEARCHED, FIVE, 40) is None
    assert nothing_pruned_reason(SEARCHED, FIVE, 90) == (
        "no report comes from 90%, twice the longest warmup of the space, to the end"
    )
    assert nothing_pruned_reason({"pruner": "none", "pruner_options": {}}, FIVE, 90) is None
    late = {"pruner": "median", "pruner_options": {"n_warmup_steps": 90}}
    assert nothing_pruned_reason(late, FIVE, 20) == "median has no rung before the end"


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband", "median"])
def test_a_sweep_stops_trials_where_it_says_and_nowhere_else(
    make_keeper: Any, pack: Any, stored: Any, pruner: str
) -> None:
    """The winner warms up for 20% of its budget and is the last of all until then."""

    def loss(config: Any, percent: int) -> float:
        late = config.warmup_steps / 20
        return float(3.0 + config.learning_rate * 100 + (late if percent < 40 else -late))

    options = {"n_startup_trials": 2} if pruner == "median" else {}
    keeper = make_keeper(trials=16, pruner=pruner, pruner_options=options, sampler="random")
    pack(keeper, loss, seats=4).run()
    trials = stored(keeper)
    stopped = {max(t.intermediate_values) for t in trials if t.state == TrialState.PRUNED}
    assert stopped
    assert stopped <= set(keeper.study_spec.pruning_percents)
    assert min(keeper.study_spec.pruning_percents) == 40
