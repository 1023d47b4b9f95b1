"""The keeper as a plain object on SQLite: what it draws, writes and decides."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lora_runner.config import TrialConfig
from lora_runner.protocol import BaseSamples, TrialProgress
from sweeps.errors import StudyMismatch
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.protocol import SeatTime
from sweeps.progress.messages import WorkerProgress

Make = Callable[..., Keeper]


def by_rate(highest: float) -> Callable[[TrialConfig, int], float | str]:
    """A loss that is lowest for the lowest learning rate; rates above `highest` end as diverged at 40%."""

    def loss(config: TrialConfig, percent: int) -> float | str:
        if config.learning_rate > highest and percent == 40:
            return "diverged"
        return 2 + 100 * config.learning_rate + 1 / percent

    return loss


# --- what is drawn --------------------------------------------------------------------------------


def test_the_guideline_default_comes_first_then_other_table_values_then_sampled_ones(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=8)
    pack(keeper).run()
    trials = stored(keeper)
    proposals = keeper.study_spec.space.first_trials
    assert [t.params for t in trials[:2]] == [p.params for p in proposals[:2]]
    assert trials[0].user_attrs["label"] == "guideline default"
    assert trials[0].params["learning_rate"] == pytest.approx(2e-4)
    assert [t.user_attrs["rows"] for t in trials[:2]] == [list(p.rows) for p in proposals[:2]]
    assert [t.user_attrs["origin"] for t in trials] == ["guideline"] * 2 + ["sampler"] * 6


@pytest.mark.parametrize("trials", [1, 2, 7])
def test_exactly_as_many_trials_as_asked_for(make_keeper: Make, pack: Any, stored: Any, trials: int) -> None:
    keeper = make_keeper(trials=trials)
    pack(keeper, seats=4).run()
    assert len(stored(keeper)) == trials
    assert all(t.state.is_finished() for t in stored(keeper))


def test_what_a_trial_is_stands_in_the_study_and_on_disk_before_it_starts(
    make_keeper: Make, stored: Any
) -> None:
    keeper = make_keeper()
    placed = keeper.ask(3, [0, 5]).start
    for start, trial in zip(placed, stored(keeper)[:2], strict=True):
        config = start.assignment.config
        attributes = trial.user_attrs
        assert trial.state == TrialState.RUNNING
        assert TrialConfig.from_dict(attributes["config"]) == config
        assert attributes["config_hash"] == config.hash()
        assert (attributes["worker"], attributes["seat"], attributes["attempt"]) == (3, start.seat, 1)
        assert attributes["folder"] == f"trials/{trial.number:04d}"
        on_disk = json.loads((Path(start.assignment.folder) / "config.json").read_text())
        assert on_disk["config_hash"] == config.hash()
        assert on_disk["params"] == trial.params
    assert [p.seat for p in placed] == [0, 5]


def test_a_registration_fills_all_seats_and_its_lost_reply_loses_no_trial(
    make_keeper: Make, stored: Any
) -> None:
    keeper = make_keeper(trials=40)
    seats = list(range(8))
    keeper.prefetch(0, len(seats))
    first = keeper.register(0, 3.25, None, seats).start
    assert [placed.seat for placed in first] == seats
    assert len({placed.assignment.number for placed in first}) == len(seats)
    again = keeper.register(0, 3.25, None, seats).start  # the worker did not get the first reply
    assert [(p.seat, p.assignment.number) for p in again] == [(p.seat, p.assignment.number) for p in first]
    running = [t for t in stored(keeper) if "attempt" in t.user_attrs]
    assert [trial.number for trial in running] == [placed.assignment.number for placed in first]
    # One whose base is another gets none of them.
    refused = keeper.register(1, 9.0, None, seats)
    assert (refused.stop, refused.start) == (True, ())


def test_the_study_holds_what_the_results_read(make_keeper: Make) -> None:
    keeper = make_keeper()
    samples = BaseSamples(prompts=("2 + 2 =",), answers=(" 4",), generations=(" 2",))
    keeper.register(0, 3.25, None, None, None, samples)
    keeper.register(1, 3.2501, None, None, None, replace(samples, generations=(" 3",)))
    keeper.register(2, 4.5)
    attributes = keeper.study.user_attrs
    assert attributes["base_samples"] == samples.to_dict()  # the first worker's
    assert attributes["metric"] == "eval_loss"
    assert attributes["base_eval_loss"] == 3.25
    assert attributes["space"] == keeper.study_spec.space.to_dict()
    assert attributes["guidelines"] == keeper.study_spec.guidelines
    assert attributes["context"] == keeper.study_spec.context
    assert attributes["identity"] == keeper.study_spec.identity


def test_another_identity_is_refused_and_the_study_stays_as_it_was(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=2)
    pack(keeper).run()
    study_spec = keeper.study_spec
    before = stored(keeper)
    other = type(study_spec)(
        **{**vars(study_spec), "identity": {**study_spec.identity, "metric": "accuracy"}, "trials": 9}
    )
    with pytest.raises(StudyMismatch, match="metric: the study has 'eval_loss', this sweep 'accuracy'"):
        Keeper(other, keeper._storage.url)
    assert stored(keeper) == before


# --- how trials end -------------------------------------------------------------------------------


def test_a_full_budget_is_complete_with_its_value_and_all_reports(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=1)
    simulated = pack(keeper)
    simulated.run()
    (trial,) = stored(keeper)
    assert trial.state == TrialState.COMPLETE
    assert list(trial.intermediate_values) == [20, 40, 60, 80, 100]
    assert trial.value == trial.intermediate_values[100] == trial.user_attrs["eval_loss"]
    assert trial.user_attrs["outcome"] == "complete"
    assert trial.user_attrs["stop_reason"] == "it was complete"
    assert trial.user_attrs["num_steps"] == 100
    assert trial.user_attrs["num_tokens"] == 10_000
    assert trial.user_attrs["peak_memory_gib"] == 0.25


def test_the_worst_of_a_pack_is_pruned_with_a_reason_and_the_default_never(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    def loss(config: TrialConfig, percent: int) -> float:
        return 9.0 if config.learning_rate == pytest.approx(2e-4) else 2 + config.learning_rate + 1 / percent

    keeper = make_keeper(trials=8, sampler="random")
    simulated = pack(keeper, loss, seats=8)
    simulated.ask()
    assert simulated.turn().leave == (), "before twice the longest warmup nothing is compared"
    reply = simulated.turn()
    pruned = [t for t in stored(keeper) if t.state == TrialState.PRUNED]
    assert sorted(reply.leave) == [t.number for t in pruned]
    assert len(pruned) >= 3
    for trial in pruned:
        assert trial.user_attrs["outcome"] == "pruned"
        assert re.fullmatch(r"at 40%: loss \d\.\d{3}, rank \d of 8", trial.user_attrs["stop_reason"])
        event = f"trial {trial.number}: pruned {trial.user_attrs['stop_reason']}"
        assert event in keeper.status().events, "the loss is said once"
        assert trial.value == trial.intermediate_values[40]
    simulated.run()
    assert stored(keeper)[0].state == TrialState.COMPLETE
    assert stored(keeper)[0].value == 9.0


def test_all_values_of_a_pack_count_in_every_decision(make_keeper: Make, pack: Any, stored: Any) -> None:
    """The first seat's value is the best so far when it comes in, and the worst of the pack."""
    keeper = make_keeper(trials=4, sampler="random", report_at=(40, 100))
    simulated = pack(keeper, seats=4)
    simulated.ask()
    keeper.report(
        0, [r.__class__(**{**vars(r), "eval_loss": 5.0 - r.number}) for r in simulated.reports()], [], 1.0
    )
    states = {t.number: t.state for t in stored(keeper)}
    assert states[1] == TrialState.PRUNED  # trial 0 is the guideline default
    assert states[3] == TrialState.RUNNING
    assert "rank 3 of 4" in stored(keeper)[1].user_attrs["stop_reason"]


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("diverged", TrialState.PRUNED), ("out_of_memory", TrialState.PRUNED), ("failed", TrialState.FAIL)],
)
def test_trials_that_end_by_themselves(
    make_keeper: Make, pack: Any, report: Any, stored: Any, outcome: str, state: TrialState
) -> None:
    keeper = make_keeper(trials=2)
    (placed,) = keeper.ask(0, [0]).start
    keeper.report(0, [report(placed.assignment, 20, 3.0)], [], 1.0)
    ended = report(placed.assignment, 40, None, outcome, train_loss=math.nan, stop_reason="it broke")
    reply = keeper.report(0, [ended], [0], 1.0)
    trial = stored(keeper)[0]
    assert trial.state == state
    assert trial.user_attrs["outcome"] == outcome
    assert trial.user_attrs["stop_reason"] == "it broke"
    assert trial.user_attrs["train_loss"] is None
    # TPE ranks pruned trials by how far they came; one that broke is no success on the way.
    assert trial.constraints == ({} if outcome == "failed" else {"trainable": 1.0})
    assert trial.intermediate_values == {20: 3.0}
    assert reply.leave == ()
    assert [p.assignment.number for p in reply.start] == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("percent", [40, 100])
def test_a_loss_that_is_no_finite_number_means_diverged(
    make_keeper: Make, report: Any, stored: Any, value: float, percent: int
) -> None:
    keeper = make_keeper(trials=1, pruner="none")
    (placed,) = keeper.ask(0, [0]).start
    outcome = "complete" if percent == 100 else None
    reply = keeper.report(0, [report(placed.assignment, percent, value, outcome)], [], 1.0)
    (trial,) = stored(keeper)
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["outcome"] == "diverged"
    assert trial.user_attrs["stop_reason"] == f"evaluation loss is {value} at {percent}% of the budget"
    assert reply.leave == (() if outcome else (0,))
    assert keeper.status().best is None


# --- seats ----------------------------------------------------------------------------------------


def test_freed_seats_are_filled_in_the_same_reply(make_keeper: Make, pack: Any) -> None:
    keeper = make_keeper(trials=12, sampler="random")
    simulated = pack(keeper, seats=4)
    simulated.ask()
    pruned = 0
    while len(simulated.turns) < 12:
        before = len(simulated.turns)
        reply = simulated.turn()
        pruned += len(reply.leave)
        assert simulated.free == [] or len(simulated.turns) == 12
        assert len(reply.start) == len(simulated.turns) - before >= min(len(reply.leave), 12 - before)
    assert pruned > 0


def test_no_two_trials_get_one_seat(make_keeper: Make) -> None:
    keeper = make_keeper(trials=6)
    seats = [placed.seat for placed in keeper.ask(0, [2, 0, 2, 1, 0]).start]
    assert sorted(seats) == [0, 1, 2]


def test_two_workers_share_a_study(make_keeper: Make, pack: Any, stored: Any) -> None:
    keeper = make_keeper(trials=9, sampler="random")
    packs = [pack(keeper, seats=2, worker=w) for w in (0, 1)]
    for simulated in packs:
        simulated.ask()
    while any(simulated.seats for simulated in packs):
        for simulated in packs:
            if simulated.seats:
                simulated.turn()
    trials = stored(keeper)
    assert len(trials) == 9
    assert all(t.state.is_finished() for t in trials)
    assert {t.user_attrs["worker"] for t in trials} == {0, 1}


# --- memory that runs out -------------------------------------------------------------------------


def test_a_trial_that_did_not_fit_beside_its_neighbours_is_tried_once_more(
    make_keeper: Make, report: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=3)
    first, second = (placed.assignment for placed in keeper.ask(0, [0, 1]).start)
    lack = report(second, 20, None, "put_back", stop_reason="out of memory: no more")
    assert keeper.report(0, [lack], [], 1.0) == type(keeper.ask(0, []))()
    trial = stored(keeper)[1]
    assert trial.state == TrialState.RUNNING
    assert (trial.user_attrs["put_back"], "outcome" in trial.user_attrs) == (1, False)
    assert keeper.status().num_put_back == 1
    assert keeper.status().events[-1] == "trial 1: put back by worker 0 (out of memory: no more)"

    # Its worker repeats itself, which changes nothing: the trial is on no seat.
    keeper.report(0, [lack], [], 1.0)
    # How often it was put back is known after a restart as well.
    keeper = make_keeper(trials=3)
    again = {p.assignment.number: p.assignment for p in keeper.ask(0, [0, 1]).start}
    assert {number: (a.attempt, a.put_back) for number, a in again.items()} == {0: (2, 0), 1: (2, 1)}
    keeper.report(0, [report(again[1], 40, None, "put_back", stop_reason="out of memory: still")], [], 1.0)
    trial = stored(keeper)[1]
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["outcome"] == "out_of_memory"
    assert trial.user_attrs["stop_reason"] == "out of memory: still"
    assert trial.constraints == {"trainable": 1.0}
    assert first.number == 0


def test_a_trial_that_was_put_back_comes_before_new_ones_and_may_complete(
    make_keeper: Make, report: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=4, pruner="none")
    starts = [placed.assignment for placed in keeper.ask(0, [0, 1]).start]
    keeper.prefetch(0)
    keeper.report(0, [report(starts[1], 20, None, "put_back")], [], 1.0)
    reply = keeper.report(0, [report(starts[0], 100, 2.0, "complete")], [0], 1.0)
    assert [(p.seat, p.assignment.number, p.assignment.attempt) for p in reply.start] == [(0, 1, 2)]
    keeper.report(0, [report(reply.start[0].assignment, 100, 2.5, "complete")], [], 1.0)
    trial = stored(keeper)[1]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 2.5)
    assert trial.user_attrs["outcome"] == "complete"
    assert keeper.status().outcomes == {"complete": 2}


# --- seen from outside ----------------------------------------------------------------------------


def test_how_busy_the_seats_were_is_counted_while_there_are_trials_to_hand_out(
    make_keeper: Make, report: Any
) -> None:
    keeper = make_keeper(trials=3, pruner="none")
    (first,) = keeper.ask(0, [0]).start
    (second,) = keeper.ask(1, [0]).start

    def worked(busy: float, total: float) -> SeatTime:
        return SeatTime(busy_seat_seconds=busy, seat_seconds=total)

    keeper.report(0, [report(first.assignment, 20, 3.0)], [], 1.0, worked(9.0, 10.0))
    assert keeper.status().seat_busy_share is None
    keeper.report(1, [report(second.assignment, 20, 3.0)], [], 1.0, worked(25.0, 30.0))
    (third,) = keeper.report(
        0, [report(first.assignment, 100, 2.0, "complete")], [0], 1.0, worked(10.0, 10.0)
    ).start
    assert keeper.status().seat_busy_share == keeper.study.user_attrs["seat_busy_share"] == 44.0 / 50.0
    # That was the last trial: from here on, a seat that stands empty is nobody's fault.
    keeper.report(1, [report(second.assignment, 100, 2.0, "complete")], [0], 1.0, worked(0.0, 90.0))
    keeper.report(0, [report(third.assignment, 100, 2.0, "complete")], [0], 1.0, worked(1.0, 90.0))
    assert keeper.status().seat_busy_share == 44.0 / 50.0


def test_the_status_tells_what_runs_what_is_best_and_how_long_it_takes(make_keeper: Make, pack: Any) -> None:
    keeper = make_keeper(trials=6, sampler="random", pruner="none")
    keeper.register(0, 3.5)
    simulated = pack(keeper, seats=3)
    simulated.ask()
    fresh = keeper.status()
    assert [(t.number, t.percent, t.eval_loss) for t in fresh.running] == [
        (0, 0, None),
        (1, 0, None),
        (2, 0, None),
    ]
    assert fresh.seconds_left is None
    assert fresh.base_eval_loss == 3.5
    simulated.turn()
    assert [t.percent for t in keeper.status().running] == [20, 20, 20]
    assert keeper.status().tokens_per_second == 100.0
    for _ in range(4):
        simulated.turn()
    half = keeper.status()
    assert half.finished == 3
    assert half.states["RUNNING"] == 3
    assert half.default_loss is not None
    assert half.best is not None
    assert half.best["eval_loss"] <= half.default_loss
    for seconds, step in ((0.0, 0), (60.0, 50)):
        running = [
            TrialProgress(number=t.number, attempt=1, step=step, max_steps=100, num_tokens=100 * step)
            for t in half.running
        ]
        keeper.progress.note(0, WorkerProgress(at=seconds, trials=tuple(running), seats=3))
    moving = keeper.status()
    assert [(t.percent, t.step, t.max_steps) for t in moving.running] == [(50, 50, 100)] * 3
    assert moving.steps_per_second == pytest.approx(2.5)
    assert moving.tokens_per_second == pytest.approx(250.0)
    assert moving.seconds_left == pytest.approx(60.0, rel=0.05)
    simulated.run()
    done = keeper.status(events_from=len(half.events))
    assert done.running == []
    assert done.tokens_per_second == 0
    assert done.seconds_left == 0
    assert len(done.events) == 3
    assert all(re.fullmatch(r"trial \d: complete, loss \d\.\d+", line) for line in done.events)


def test_a_best_trial_has_used_its_full_budget(make_keeper: Make, pack: Any) -> None:
    """Pruned trials keep their last value in Optuna; they are not compared with full budgets."""

    def loss(config: TrialConfig, percent: int) -> float | str:
        return (
            1.0
            if config.learning_rate < 2e-4 and percent == 20
            else "diverged"
            if percent == 40 and config.learning_rate < 2e-4
            else 2.0
        )

    keeper = make_keeper(trials=8, sampler="random", pruner="none")
    pack(keeper, loss).run()
    status = keeper.status()
    assert status.outcomes["diverged"] > 0
    assert status.best is not None
    assert status.best["eval_loss"] == 2.0


def test_a_config_that_contradicts_itself_fails_alone(make_keeper: Make, pack: Any, stored: Any) -> None:
    keeper = make_keeper(trials=4, sampler="random")
    object.__setattr__(keeper.study_spec, "constants", {**keeper.study_spec.constants, "lora_dropout": 1.5})
    assert keeper.ask(0, [0]).start == ()
    trials = stored(keeper)
    assert {t.state for t in trials if t.state != TrialState.WAITING} == {TrialState.FAIL}
    assert "lora_dropout must lie in [0, 1), got 1.5" in trials[0].user_attrs["stop_reason"]


def test_a_report_of_eight_seats_is_one_commit(make_keeper: Make, pack: Any) -> None:
    import sqlalchemy

    keeper = make_keeper(trials=16, sampler="random")
    simulated = pack(keeper, seats=8)
    simulated.ask()
    commits: list[object] = []
    sqlalchemy.event.listen(keeper._storage.engine, "commit", commits.append)
    keeper.report(0, simulated.reports(), simulated.free, 1.0)
    # Reads commit too, as nothing; what matters is that eight values, decisions and refills do not.
    assert len(commits) == 1


def test_an_ended_trial_leaves_no_checkpoint_behind_and_a_running_one_keeps_its_own(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=6, sampler="random")
    seats = pack(keeper, seats=6)
    seats.ask()
    folders = [keeper.folder / trial.user_attrs["folder"] for trial in stored(keeper)]
    for folder in folders:
        (folder / "checkpoint").mkdir(parents=True)
        (folder / "checkpoint" / "state.json").write_text("{}")
    seats.turn()
    seats.turn()
    ended = [trial.state.is_finished() for trial in stored(keeper)]
    assert any(ended)
    assert not all(ended)
    assert [(folder / "checkpoint").exists() for folder in folders] == [not done for done in ended]


def test_only_the_best_adapters_stay_and_a_new_keeper_looks_at_all_of_them(
    make_keeper: Make, pack: Any
) -> None:
    options: dict[str, Any] = {"trials": 16, "sampler": "random", "pruner": "none"}
    keeper = make_keeper(**options)

    def with_adapter(numbers: Iterable[int]) -> set[int]:
        return {n for n in numbers if (keeper.folder / "trials" / f"{n:04d}" / "adapter").exists()}

    simulated, over, kept = pack(keeper, seats=3), {}, set()
    simulated.ask()
    while simulated.seats:
        for assignment in simulated.seats.values():
            (Path(assignment.folder) / "adapter").mkdir(exist_ok=True)
        simulated.turn()
        over = {t.number: t.value for t in keeper.study.trials if t.state == TrialState.COMPLETE}
        kept = {0, *sorted(over, key=lambda number: (over[number], number))[:8]} & set(over)
        assert with_adapter(over) == kept
    assert len(over) == 16
    keeper.close()
    # Left behind by a keeper that was killed between the study's word and the removal.
    left = min(set(over) - kept)
    (keeper.folder / "trials" / f"{left:04d}" / "adapter").mkdir()
    make_keeper(**options)
    assert with_adapter(over) == kept
