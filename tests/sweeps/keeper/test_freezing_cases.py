"""Odd sweeps with frozen trials: small, all diverged, by a metric, with runs on new seeds at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lora_runner.metric.scores import MetricSpec
from results.stored_trials import is_replicate
from sweeps.keeper.keeper import Keeper
from tests.sweeps.conftest import build_study_spec
from tests.sweeps.keeper.freezing import FreezingPack, Make, all_ended, frozen_in, late


@pytest.mark.parametrize("trials", [1, 2, 3])
def test_few_trials_end(freezing: Make, stored: Any, trials: int) -> None:
    keeper = freezing(trials=trials)
    FreezingPack(keeper, late, seats=4).run()
    assert len(stored(keeper)) == trials
    assert all_ended(keeper, stored)
    assert stored(keeper)[0].state == TrialState.COMPLETE
    assert not keeper.status().has_work


def test_trials_that_all_diverge_are_not_frozen_and_the_sweep_ends(freezing: Make, stored: Any) -> None:
    keeper = freezing(trials=12)
    pack = FreezingPack(keeper, lambda c, p: "diverged" if p == 40 else late(c, p), seats=4)
    pack.run()
    assert [t.user_attrs["outcome"] for t in stored(keeper)] == ["diverged"] * 12
    assert not any(pack.resumed.values())
    assert not keeper.status().has_work


def test_with_a_metric_as_objective_trials_are_frozen_by_it(
    make_keeper: Make, tmp_path: Path, new_database: Callable[[str], str]
) -> None:
    """Higher is better, every other report has none, and the losses say the opposite."""
    spec = build_study_spec(tmp_path / "run", trials=16, sampler="curve_gp", startup_trials=4)
    metric = MetricSpec(name="exact_match", every=2, objective=True)
    keeper = Keeper(replace(spec, metric=metric), new_database("metric"))
    pack = FreezingPack(keeper, lambda c, p: 9 - late(c, p), seats=4)
    pack.metric = lambda config, percent: 1 - late(config, percent) / 5
    keeper.record_base_metric(0, 0.1)
    frozen = set[int]()
    pack.ask()
    while pack.seats:
        frozen.update(pack.turn().freeze)
    trials = keeper.study.get_trials()
    keeper.leave()
    assert frozen
    rates = {t.number: t.params["learning_rate"] for t in trials}
    complete = [rates[t.number] for t in trials if t.state == TrialState.COMPLETE]
    assert max(complete) in sorted(rates.values())[-3:], "high rates win in the end"
    left = [t for t in trials if t.user_attrs.get("at_rest")]
    assert left
    assert all(max(t.intermediate_values) in (40, 80) for t in left)
    assert all("exact_match 0." in t.user_attrs["stop_reason"] for t in left)


def test_the_seats_of_the_end_go_to_frozen_trials_first_and_then_to_new_seeds(
    freezing: Make, stored: Any
) -> None:
    """Frozen trials that nobody takes up again keep neither the sweep nor its tail from ending."""
    keeper = freezing(trials=17, tail_replicates=True)
    pack = FreezingPack(keeper, late, seats=8)
    pack.ask()
    left = []
    while pack.seats:
        reply = pack.turn()
        trials = stored(keeper)
        new = [p.assignment.number for p in reply.start if is_replicate(trials[p.assignment.number])]
        if new:
            assert keeper.opened.next_frozen() is None
            left.append(len(frozen_in(keeper, stored)))
    assert left
    assert left[-1] > 0, "frozen trials are left, which nobody takes up again"
    assert all_ended(keeper, stored)
    assert {t.user_attrs["outcome"] for t in stored(keeper)} <= {"complete", "frozen", "failed"}
    status = keeper.status()
    assert (status.finished, status.frozen, status.has_work) == (17, 0, False)
