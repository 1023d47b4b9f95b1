"""The time left, on a simulated clock: early, near the truth, and never growing without a reason."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from sweeps.progress.time_left import Countdown, Work, prior_shares, seconds_of
from sweeps.study.pruning.rungs import pruning_percents
from tests.sweeps.progress.simulated_sweep import MAX_STEPS, SimulatedSweep

FIRST_REPORT = 0.1 * MAX_STEPS * 0.5
"""Seconds until the first evaluation."""


def simulated(**options: Any) -> tuple[SimulatedSweep, float]:
    sweep = SimulatedSweep(**options)
    return sweep, sweep.run(tick=1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"trials": 14, "seats": [4]},
        {"trials": 14, "seats": [4], "seed": 2, "eval_seconds": 0.5},
        {"trials": 40, "seats": [8, 8], "seed": 1},
        {"trials": 6, "seats": [3], "pruner": "none", "task": "confirm"},
        {"trials": 3, "seats": [4]},
    ],
    ids=["pruned", "short evaluations", "two workers", "confirm", "more seats than trials"],
)
def test_it_is_there_before_the_first_report_near_the_truth_and_never_grows(options: Any) -> None:
    sweep, total = simulated(**options)
    known = [(at, left, note) for at, left, note in sweep.shown if left is not None]
    assert known[0][0] < FIRST_REPORT
    assert known[0][0] >= 2.0, "nothing is measured before"
    assert all(after[1] <= before[1] for before, after in pairwise(known))
    assert {note for _, _, note in known} == {""}
    for at, left, _ in known:
        assert (total - at) / 2 - 0.05 * total < left < 2 * (total - at) + 0.15 * total, (at, left, total)
    assert known[-1][1] == 0.0


def test_without_pruning_it_is_nearly_exact_and_counts_down_between_two_messages() -> None:
    sweep = SimulatedSweep(trials=6, seats=[3], pruner="none", task="confirm")
    total = sweep.run(tick=0.5, message_every=4.0)
    late = [(at, left) for at, left, _ in sweep.shown if left is not None and at > total / 3]
    assert all(left == pytest.approx(total - at, abs=0.15 * total) for at, left in late)
    different = {left for _, left in late}
    assert len(different) > len(late) / 2, "it moves between the messages too"


def test_it_may_grow_when_a_worker_is_lost_and_says_so() -> None:
    def lose(sweep: SimulatedSweep) -> None:
        if sweep.now == 60.0:
            sweep.lose(1)

    sweep, total = simulated(trials=12, seats=[4, 4], pruner="none", on_tick=lose)
    before = [left for at, left, _ in sweep.shown if left is not None and at <= 60]
    after = [(at, left, note) for at, left, note in sweep.shown if left is not None and at > 60]
    grown = [note for (_, left, note) in after if left > before[-1]]
    assert grown
    assert set(grown) == {"worker 1 was lost"}
    for at, left, _ in after[10:]:
        assert left == pytest.approx(total - at, abs=0.3 * total)


def test_steps_that_take_longer_for_good_are_said_too() -> None:
    def slow_down(sweep: SimulatedSweep) -> None:
        if sweep.now == 100.0:
            sweep.step_seconds *= 8

    sweep, _ = simulated(trials=8, seats=[2], pruner="none", on_tick=slow_down)
    notes = {note for _, _, note in sweep.shown}
    assert notes == {"", "it goes slower than before"}


def test_a_time_limit_ends_new_starts_but_not_running_trials() -> None:
    work: dict[str, Any] = {
        "running": [(0.5, False)],
        "waiting": [],
        "new": 10,
        "seats": 1,
        "ended": [],
        "prior": [(1.0, 1.0)],
    }
    assert seconds_of(Work(**work), 100.0) == pytest.approx(1050.0)
    assert seconds_of(Work(**work, until_no_more_start=60.0), 100.0) == pytest.approx(150.0)
    assert seconds_of(Work(**work, until_no_more_start=10.0), 100.0) == pytest.approx(50.0)


def test_a_countdown_follows_a_shorter_estimate_and_holds_against_a_longer_one() -> None:
    countdown = Countdown()
    assert countdown.show(None, 0.0) is None
    assert [countdown.show(left, float(at)) for at, left in enumerate((100, 90, 95, 80))] == [100, 90, 90, 80]
    assert countdown.show(None, 5.0) == 80
    countdown.worse("trial 3 was put back")
    assert countdown.show(120, 6.0) == 120
    assert countdown.note == "trial 3 was put back"
    assert countdown.show(130, 7.0) == 120, "once"


@pytest.mark.parametrize(
    ("pruner", "options", "mean"),
    [
        ("none", {}, 1.0),
        # 10% all, 20% half, 40% a quarter, 80% an eighth, 100% a sixteenth
        ("successive_halving", {}, 0.10 / 2 + 0.20 / 4 + 0.40 / 8 + 0.80 / 16 + 1.0 / 16),
        ("successive_halving", {"reduction_factor": 4}, 0.10 * 3 / 4 + 0.40 * 3 / 16 + 1.0 / 16),
    ],
)
def test_what_the_plan_expects_of_pruning(pruner: str, options: dict[str, Any], mean: float) -> None:
    search = {"pruner": pruner, "pruner_options": options}
    pruned_at = pruning_percents(search, (10, 20, 40, 80, 100), 0)
    shares = prior_shares(search, pruned_at)
    assert sum(weight for _, weight in shares) == pytest.approx(1.0)
    assert sum(share * weight for share, weight in shares) == pytest.approx(mean)
    whole = prior_shares(search, pruned_at, is_confirm=True)
    assert whole == ((1.0, 1.0),)
