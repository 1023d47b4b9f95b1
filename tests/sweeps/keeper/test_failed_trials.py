"""Failed trials do not count, are retried by the next run, and end a run when there are too many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from lora_runner.config import TrialConfig
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.sources.trial_source import open_failures
from sweeps.study.lease import DriverProcess

Make = Callable[..., Keeper]
Broken = Callable[[TrialConfig], bool]


def unless(broken: Broken) -> Callable[[TrialConfig, int], float | str]:
    """A loss that depends on the learning rate; broken configurations fail at their first report."""

    def loss(config: TrialConfig, percent: int) -> float | str:
        return "failed" if broken(config) else 2 + config.learning_rate + 1 / percent

    return loss


def run(make: Make, pack: Any, name: str, broken: Broken, *, seats: int = 3, **options: Any) -> Keeper:
    """One run of the sweep, with its own keeper."""
    options = {"sampler": "random", "pruner": "none", **options}
    keeper = make(owner=DriverProcess.current(name), **options)
    pack(keeper, unless(broken), seats=seats).run()
    keeper.close()
    return keeper


def in_state(trials: list[FrozenTrial], state: TrialState) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == state]


def params(trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    return sorted((trial.params for trial in trials), key=str)


def test_another_trial_is_drawn_in_the_place_of_one_that_failed(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    whole = stored(run(make_keeper, pack, "whole", lambda _: False, at="whole", trials=9))
    guilty = next(t.params["learning_rate"] for t in whole if t.user_attrs["origin"] == "sampler")
    keeper = run(make_keeper, pack, "first", lambda config: config.learning_rate == guilty, trials=8)
    trials = stored(keeper)
    (failed,) = in_state(trials, TrialState.FAIL)
    assert failed.params["learning_rate"] == guilty
    assert len(in_state(trials, TrialState.COMPLETE)) == 8
    status = keeper.status()
    assert (status.finished, status.failed, status.ending) == (8, 1, True)
    # What stands in is what would have come next.
    assert params(trials) == params(whole)


def test_a_sweep_whose_every_trial_fails_ends_and_once_mended_trains_what_it_would_have(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    few = ReliabilitySection(max_failures=5)
    first = run(make_keeper, pack, "first", lambda _: True, seats=1, trials=8, reliability=few)
    trials = stored(first)
    assert len(in_state(trials, TrialState.FAIL)) == 5
    assert in_state(trials, TrialState.RUNNING) == []
    assert first.status().finished == 0
    assert first.status().ending

    # Not mended yet: the same configurations, first the guideline default.
    again = run(make_keeper, pack, "second", lambda _: True, seats=1, trials=8, reliability=few)
    trials = stored(again)
    assert len(in_state(trials, TrialState.FAIL)) == 10
    retried = [trial for trial in trials if "retry_of" in trial.user_attrs]
    assert [trial.user_attrs["retry_of"] for trial in retried] == [0, 1, 2, 3, 4]
    assert [t.params for t in retried] == [t.params for t in trials[:5]]
    assert retried[0].user_attrs["label"] == "guideline default"

    mended = run(make_keeper, pack, "third", lambda _: False, trials=8, reliability=few)
    undisturbed = run(make_keeper, pack, "whole", lambda _: False, at="whole", trials=8)
    complete = in_state(stored(mended), TrialState.COMPLETE)
    assert params(complete) == params(stored(undisturbed))
    assert open_failures(mended.study) == []
    default = [trial for trial in complete if trial.user_attrs.get("label") == "guideline default"]
    assert len(default) == 1


def test_the_guideline_default_keeps_its_place_until_it_has_trained(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    def is_default(config: TrialConfig) -> bool:
        return config.learning_rate == pytest.approx(2e-4)

    first = run(make_keeper, pack, "first", is_default, trials=6)
    status = first.status()
    assert (status.finished, status.ending) == (5, True)
    mended = run(make_keeper, pack, "second", lambda _: False, trials=6)
    assert mended.status().finished == 6
    assert mended.status().default_loss is not None
    (last,) = [t for t in stored(mended) if "retry_of" in t.user_attrs and t.state == TrialState.COMPLETE][:1]
    assert last.user_attrs["retry_of"] == 0


def test_no_more_is_tried_again_than_the_sweep_has_room_for(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    keeper = run(make_keeper, pack, "first", lambda config: config.learning_rate > 3e-4, trials=6)
    assert keeper.status().finished == 6
    before = stored(keeper)
    assert len(in_state(before, TrialState.FAIL)) > 1
    assert stored(run(make_keeper, pack, "second", lambda _: False, trials=6)) == before
    more = stored(run(make_keeper, pack, "third", lambda _: False, trials=7))
    again = [trial for trial in more if "retry_of" in trial.user_attrs]
    assert [trial.user_attrs["retry_of"] for trial in again] == [
        min(trial.number for trial in in_state(before, TrialState.FAIL))
    ]
    assert len(in_state(more, TrialState.COMPLETE)) == 7


def test_a_keeper_that_is_started_anew_counts_on_and_tries_nothing_again(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    options: dict[str, Any] = {"trials": 8, "sampler": "random", "pruner": "none"}
    options["reliability"] = ReliabilitySection(max_failures=4)
    owner = DriverProcess.current("one run")
    simulated = pack(make_keeper(owner=owner, **options), unless(lambda _: True), seats=3)
    simulated.ask()
    simulated.turn()
    simulated.keeper = make_keeper(owner=owner, **options)
    simulated.run()
    trials = stored(simulated.keeper)
    assert 4 <= len(in_state(trials, TrialState.FAIL)) <= 6  # the others were on their seats already
    assert not any("retry_of" in trial.user_attrs for trial in trials)


def test_a_trial_whose_values_contradict_each_other_fails_and_the_limit_holds(
    make_keeper: Make, stored: Any
) -> None:
    keeper = make_keeper(trials=40, sampler="random")
    object.__setattr__(keeper.study_spec, "constants", {**keeper.study_spec.constants, "lora_dropout": 1.5})
    assert keeper.ask(0, [0]).start == ()
    assert len(in_state(stored(keeper), TrialState.FAIL)) == ReliabilitySection().max_failures
    assert keeper.rejoin(1).stop


def test_a_point_of_a_grid_that_failed_is_tried_again_by_the_next_run(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    options: dict[str, Any] = {"sampler": "grid", "sampler_options": {"points_per_dimension": 1}}
    whole = stored(run(make_keeper, pack, "whole", lambda _: False, at="whole", trials=99, **options))
    first = run(
        make_keeper,
        pack,
        "first",
        lambda config: config.lr_scheduler_type == "constant",
        trials=99,
        **options,
    )
    assert (first.status().failed, first.status().finished) == (1, len(whole) - 1)
    mended = run(make_keeper, pack, "second", lambda _: False, trials=99, **options)
    assert params(in_state(stored(mended), TrialState.COMPLETE)) == params(whole)
