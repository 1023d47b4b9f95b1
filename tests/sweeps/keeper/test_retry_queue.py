"""Trials whose workers die: suspects run alone, the one that causes it fails, the others complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.trial import TrialState

from sweeps.keeper.keeper import Keeper
from sweeps.keeper.trials.retry_queue import MAX_LOSSES_ALONE, SUSPECT_LOSSES
from sweeps.keeper.worker_registry import MAX_FUTILE_STARTS

Make = Callable[..., Keeper]


class Fleet:
    """A worker whose process dies as soon as a certain trial is on a seat."""

    def __init__(self, keeper: Keeper, pack: Any, *, guilty: int, seats: int) -> None:
        self.keeper, self.pack, self.guilty, self.seats = keeper, pack, guilty, seats
        self.deaths = 0
        self.packs: list[set[int]] = []

    def run(self, most: int = 60) -> None:
        """Run until there is nothing left to do; fail after `most` deaths."""
        while self.deaths < most:
            reply = self.keeper.rejoin(0)
            if reply.stop:
                return
            simulated = self.pack(self.keeper, seats=self.seats)
            simulated.ask()
            while simulated.seats and not simulated.stopped:
                numbers = {a.number for a in simulated.seats.values()}
                self.packs.append(numbers)
                if self.guilty in numbers:
                    break
                simulated.turn()
            else:
                return
            self.deaths += 1
        raise AssertionError("it goes on for ever")


@pytest.mark.parametrize("guilty", [0, 2, 5])
@pytest.mark.parametrize("seats", [1, 4])
def test_the_trial_that_takes_its_workers_down_is_failed_and_no_other(
    make_keeper: Make, pack: Any, stored: Any, guilty: int, seats: int
) -> None:
    keeper = make_keeper(trials=8, sampler="random", pruner="none")
    fleet = Fleet(keeper, pack, guilty=guilty, seats=seats)
    fleet.run()
    trials = stored(keeper)
    assert [t.number for t in trials if t.state == TrialState.FAIL] == [guilty]
    # Another is drawn in its place; the guideline default's own is kept for it.
    assert sum(t.state == TrialState.COMPLETE for t in trials) == (7 if guilty == 0 else 8)
    assert fleet.deaths <= SUSPECT_LOSSES + MAX_LOSSES_ALONE
    assert "alone on it: its process died" in trials[guilty].user_attrs["stop_reason"]
    alone = [numbers for numbers in fleet.packs if guilty in numbers][-MAX_LOSSES_ALONE:]
    assert alone == [{guilty}] * MAX_LOSSES_ALONE


def test_a_report_in_between_clears_a_trial(make_keeper: Make, report: Any, stored: Any) -> None:
    """Machines may be preempted again and again: a trial that makes progress is not to blame."""
    keeper = make_keeper(trials=2, pruner="none", report_at=tuple(range(1, 101)))
    for percent in range(1, 3 * MAX_LOSSES_ALONE):
        (placed,) = keeper.ask(0, [0]).start
        keeper.report(0, [report(placed.assignment, percent, 2.0)], [], 1.0)
        keeper.rejoin(0)
    assert placed.assignment.number == 0
    assert stored(keeper)[0].state == TrialState.RUNNING
    assert stored(keeper)[0].user_attrs["lost_workers"] == [1, 1]


def test_a_report_that_only_repeats_an_earlier_one_does_not(
    make_keeper: Make, report: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=1, pruner="none")
    for _ in range(MAX_LOSSES_ALONE):
        (placed,) = keeper.ask(0, [0]).start
        keeper.report(0, [report(placed.assignment, 20, 2.0)], [], 1.0)
        keeper.rejoin(0)
    assert stored(keeper)[0].state == TrialState.FAIL


def test_blame_outlives_the_keeper(make_keeper: Make, stored: Any) -> None:
    keeper = make_keeper(trials=1)
    for _ in range(MAX_LOSSES_ALONE - 1):
        keeper.ask(0, [0])
        keeper.rejoin(0)
    keeper = make_keeper(trials=1)
    (placed,) = keeper.ask(0, [0]).start
    assert placed.assignment.number == 0
    keeper.rejoin(0)
    assert stored(keeper)[0].state == TrialState.FAIL


def test_a_worker_that_dies_before_any_trial_reports_is_given_up_in_the_end(make_keeper: Make) -> None:
    keeper = make_keeper(trials=4)
    pauses = []
    for _ in range(MAX_FUTILE_STARTS):
        reply = keeper.rejoin(0)
        assert not reply.stop
        pauses.append(reply.pause_seconds)
    assert keeper.rejoin(0).stop
    assert pauses[:3] == [0, 0, 0]
    assert pauses == sorted(pauses)
    assert pauses[-1] > 30
    assert not keeper.rejoin(1).stop, "another worker has done nothing wrong"


def test_a_suspect_is_tried_on_another_worker_where_there_is_one(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    """A broken GPU may fail with some trials only."""
    keeper = make_keeper(trials=6, sampler="random", pruner="none")

    def lost(worker: int) -> set[int]:
        keeper.rejoin(worker)
        return {placed.assignment.number for placed in keeper.ask(worker, [0, 1]).start}

    assert lost(0) == {0, 1}
    sound = pack(keeper, seats=1, worker=1)
    keeper.rejoin(1)
    sound.ask()
    assert lost(0) == {0, 1}
    assert lost(0) == {0}, "a suspect now, alone"
    assert lost(0) == {1}, "so is the other; the first has been alone here"
    assert lost(0) == {3, 4}, "both wait for the sound worker"
    sound.run()
    trials = stored(keeper)
    assert [trials[number].state for number in (0, 1, 2)] == [TrialState.COMPLETE] * 3
    assert trials[0].user_attrs["worker"] == trials[1].user_attrs["worker"] == 1


def test_a_suspect_goes_on_where_it_was_when_there_is_no_other_worker(make_keeper: Make, pack: Any) -> None:
    keeper = make_keeper(trials=3, sampler="random", pruner="none")
    other = pack(keeper, seats=3, worker=1)
    for _ in range(2):
        keeper.rejoin(0)
        (placed,) = keeper.ask(0, [0]).start
    keeper.rejoin(1)
    other.ask()
    other.run()
    assert other.turns.keys() == {1, 2}
    keeper.rejoin(0)
    assert [p.assignment.number for p in keeper.ask(0, [0]).start] == [placed.assignment.number] == [0]


def test_a_keeper_started_anew_for_the_same_run_leaves_trials_on_their_seats(
    make_keeper: Make, pack: Any, stored: Any, study_spec: Any
) -> None:
    old = make_keeper(trials=6, sampler="random", pruner="none")
    simulated = pack(old, seats=3)
    simulated.ask()
    simulated.turn()
    new = Keeper(old.study_spec, old._storage.url, old.owner)
    simulated.keeper = new
    simulated.run()
    trials = stored(new)
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 6
    assert [t.user_attrs["attempt"] for t in trials] == [1] * 6
    new._storage.engine.dispose()


def test_a_keeper_started_anew_hands_out_those_that_waited(make_keeper: Make, stored: Any) -> None:
    old = make_keeper(trials=6, sampler="random", pruner="none")
    old.ask(0, [0, 1])
    old.rejoin(0)
    new = Keeper(old.study_spec, old._storage.url, old.owner)
    assert [(p.assignment.number, p.assignment.attempt) for p in new.ask(1, [0, 1]).start] == [(0, 2), (1, 2)]
    new._storage.engine.dispose()


def test_a_reply_that_was_lost_is_given_again(make_keeper: Make, report: Any, stored: Any) -> None:
    keeper = make_keeper(trials=4, sampler="random", pruner="none")
    first = keeper.ask(0, [0, 1]).start
    second = keeper.ask(0, [0, 1]).start  # the worker never heard of the first
    assert [p.assignment.number for p in second] == [p.assignment.number for p in first] == [0, 1]
    ended = [report(second[0].assignment, 100, 2.0, "complete")]
    lost = keeper.report(0, ended, [0], 1.0).start
    again = keeper.report(0, ended, [0], 1.0).start
    assert [p.assignment.number for p in again] == [p.assignment.number for p in lost] == [2]
    assert len([t for t in stored(keeper) if t.state == TrialState.RUNNING]) == 2


def test_what_is_given_up_is_told_at_the_end(make_keeper: Make) -> None:
    keeper = make_keeper(trials=4)
    for _ in range(MAX_FUTILE_STARTS + 1):
        keeper.rejoin(3, "no progress for 9 s")
    (trouble,) = keeper.errors
    assert trouble.startswith(f"worker 3: given up, it died {MAX_FUTILE_STARTS} times in a row")
    assert trouble.endswith("no progress for 9 s")


def test_a_worker_on_which_nothing_runs_does_not_use_up_the_sweep(make_keeper: Make, stored: Any) -> None:
    """A broken GPU fails with every trial; they are not to blame, and a failed trial is not resumed."""
    keeper = make_keeper(trials=30, sampler="random")
    for _ in range(60):
        if keeper.rejoin(0).stop:
            break
        keeper.ask(0, [0, 1])
    assert len(keeper.errors) == 1
    assert sum(t.state == TrialState.FAIL for t in stored(keeper)) <= 3


def test_a_start_that_fails_on_its_trials_gives_them_back_and_counts_one_loss(
    make_keeper: Make, stored: Any
) -> None:
    """The worker may be told to end: then no later start of it would free them."""
    keeper = make_keeper(trials=2, sampler="random", pruner="none")
    keeper.rejoin(0)
    keeper.ask(0, [0, 1])
    assert keeper.give_back(0, "KeyError: 'head_dim'").stop
    assert [t.user_attrs["lost_workers"] for t in stored(keeper)] == [[1, 0], [1, 0]]
    keeper.rejoin(1)
    assert {p.assignment.number for p in keeper.ask(1, [0, 1]).start} == {0, 1}
