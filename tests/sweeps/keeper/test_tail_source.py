"""The guideline default and the leading trial on new seeds, in seats that the sweep's end leaves idle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from lora_runner.config import TrialConfig
from results.stored_trials import is_replicate
from results.sweep_result import read_study
from results.verdict.verdict import verdict
from sweeps.keeper.keeper import Keeper
from sweeps.plan.replicate_plan import new_seeds
from sweeps.study.read_status import read_status

Make = Callable[..., Keeper]


def bowl_with_seed_noise(config: TrialConfig, percent: int) -> float | str:
    """Lowest at half the default's rate; a seed shifts the loss of every configuration alike."""
    return 2 + abs(config.learning_rate - 1e-4) * 1000 + (config.seed % 7) / 1000 + 1 / percent


def replicates(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if is_replicate(trial)]


def sweep_with_tail(make_keeper: Make, pack: Any, *, seats: int = 3, **options: Any) -> Keeper:
    """The last trials start one after another, so that some seats are idle while others train."""
    keeper = make_keeper(**({"trials": 8, "pruner": "none", "tail_replicates": True} | options))
    simulated = pack(keeper, bowl_with_seed_noise, seats=seats)
    simulated.run()
    return keeper


def test_best_and_default_run_on_the_same_new_seeds_in_idle_seats(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    keeper = sweep_with_tail(make_keeper, pack, seats=8, trials=17)
    runs = replicates(stored(keeper))
    sweep = read_study(keeper.study)
    assert runs
    assert {run.user_attrs["arm"] for run in runs} == {"best", "guideline default"}
    seeds = new_seeds(0, 8)
    for run in runs:
        assert run.user_attrs["config"]["seed"] == run.user_attrs["seed"] in seeds
        values = sweep.best if run.user_attrs["arm"] == "best" else sweep.guideline_default
        assert values is not None
        assert run.params == values.params


def test_they_are_no_trials_of_the_search(make_keeper: Make, pack: Any, stored: Any) -> None:
    keeper = sweep_with_tail(make_keeper, pack)
    plain = make_keeper(at="plain", trials=8, pruner="none", tail_replicates=False)
    pack(plain, bowl_with_seed_noise).run()
    assert replicates(stored(plain)) == []
    ours, theirs = read_study(keeper.study), read_study(plain.study)
    assert [t.params for t in ours.trials] == [t.params for t in theirs.trials]
    assert read_status(keeper.study, 8).finished == 8
    assert ours.replicates
    assert not read_status(keeper.study, 8).unfinished
    assert all(trial.state.is_finished() for trial in stored(keeper))


@pytest.mark.parametrize(("seats", "pairs"), [(3, 0), (8, 3)])
def test_the_sweep_waits_only_where_that_gives_a_first_interval(
    make_keeper: Make, pack: Any, stored: Any, seats: int, pairs: int
) -> None:
    keeper = sweep_with_tail(make_keeper, pack, seats=seats, trials=17)
    runs = replicates(stored(keeper))
    finished = [run for run in runs if run.state == TrialState.COMPLETE]
    by_seed = Counter(run.user_attrs["seed"] for run in finished)
    assert runs
    assert sum(count == 2 for count in by_seed.values()) == pairs
    for run in runs:
        assert run.state in (TrialState.COMPLETE, TrialState.FAIL)
        assert (run.state == TrialState.COMPLETE) == (max(run.intermediate_values, default=0) == 100)


def test_a_verdict_without_a_confirmation_is_from_them(make_keeper: Make, pack: Any) -> None:
    keeper = sweep_with_tail(make_keeper, pack, seats=8, trials=17)
    compared = verdict(keeper.study).replicates
    assert compared is not None
    assert compared.comparisons["guideline default"].pairs >= 1


def test_a_run_that_an_end_interrupted_does_not_keep_the_next_start_waiting(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=8, pruner="none", tail_replicates=True)
    simulated = pack(keeper, bowl_with_seed_noise, seats=3)
    simulated.ask()
    while not replicates(stored(keeper)):
        simulated.turn()
    keeper.close()  # as after Ctrl-C, with trials of the search under way
    running = {t.number for t in stored(keeper) if t.state == TrialState.RUNNING}
    assert running & {t.number for t in replicates(stored(keeper))}
    again = make_keeper(trials=8, pruner="none", tail_replicates=True)
    pack(again, bowl_with_seed_noise, seats=3).run()
    again.close()
    assert all(trial.state.is_finished() for trial in stored(again))
    assert read_status(again.study, 8).finished == 8


def test_nothing_is_compared_when_the_default_is_best(make_keeper: Make, pack: Any, stored: Any) -> None:
    def best_at_default(config: TrialConfig, percent: int) -> float:
        return 2 + abs(config.learning_rate - 2e-4) * 1000 + abs(config.seed) / 1e12

    keeper = make_keeper(trials=8, pruner="none", tail_replicates=True)
    pack(keeper, best_at_default).run()
    assert replicates(stored(keeper)) == []


def test_cores_are_never_idle_so_without_a_gpu_it_takes_to_be_asked_for(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    for device, expected in (("CPU core", False), ("NVIDIA H200", True)):
        keeper = make_keeper(at=device.split()[-1], trials=8, pruner="none")
        keeper.study.set_user_attr("devices", {"0": {"devices": {device: 1}, "host": "a"}})
        pack(keeper, bowl_with_seed_noise).run()
        assert bool(replicates(stored(keeper))) == expected
