"""What survives when reports are late, and when workers and keepers die."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc
from optuna.trial import TrialState

from files_and_text.atomic_files import atomic_write_json
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.trials.retry_queue import MAX_LOSSES_ALONE
from sweeps.storage.sql_storage import SqlStudyStorage

Make = Callable[..., Keeper]


# --- reports that no longer count -----------------------------------------------------------------


def test_reports_of_an_earlier_attempt_are_not_recorded_and_their_seat_is_told_to_leave(
    make_keeper: Make, report: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=2)
    (old,) = keeper.ask(0, [0]).start
    keeper.rejoin(0)
    # Between the restart and the new seat, the trial waits; a ghost of the old worker still speaks.
    assert keeper.report(0, [report(old.assignment, 20, 1.0)], [], 1.0).leave == (0,)
    (new,) = keeper.ask(0, [1]).start
    assert (new.assignment.number, new.assignment.attempt) == (0, 2)
    assert keeper.report(0, [report(old.assignment, 20, 1.0)], [], 1.0).leave == (0,)
    keeper.report(0, [report(old.assignment, 100, 1.0, "complete")], [], 1.0)
    assert stored(keeper)[0].state == TrialState.RUNNING
    assert stored(keeper)[0].intermediate_values == {}
    assert keeper.report(0, [report(new.assignment, 20, 2.5)], [], 1.0).leave == ()
    assert stored(keeper)[0].intermediate_values == {20: 2.5}


def test_reports_of_a_finished_or_unknown_trial_are_ignored(
    make_keeper: Make, report: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=1)
    (placed,) = keeper.ask(0, [0]).start
    keeper.report(0, [report(placed.assignment, 100, 2.0, "complete")], [], 1.0)
    before = stored(keeper)
    stray = type(placed.assignment)(**{**vars(placed.assignment), "number": 77})
    late = [report(placed.assignment, 40, 1.0), report(stray, 20, 1.0)]
    assert keeper.report(0, late, [], 1.0).leave == (0, 77)
    assert keeper.report(0, [report(placed.assignment, 100, 1.0, "failed")], [], 1.0).leave == ()
    assert stored(keeper) == before


# --- workers that die -----------------------------------------------------------------------------


def test_a_worker_that_restarts_gets_its_own_trials_back_first(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=8, sampler="random")
    packs = [pack(keeper, seats=2, worker=w) for w in (0, 1)]
    for simulated in packs:
        simulated.ask()
    lost = sorted(a.number for a in packs[0].seats.values())
    keeper.rejoin(0)
    starts = keeper.ask(0, [0, 1, 2]).start
    assert [(p.assignment.number, p.assignment.attempt) for p in starts] == [
        (lost[0], 2),
        (lost[1], 2),
        (4, 1),
    ]
    assert starts[0].assignment.config == packs[0].seats[0].config
    assert {t.user_attrs["worker"] for t in stored(keeper)[2:4]} == {1}


def test_a_trial_that_keeps_losing_its_worker_is_failed(make_keeper: Make, stored: Any) -> None:
    keeper = make_keeper(trials=2)
    for attempt in range(1, MAX_LOSSES_ALONE + 1):
        (placed,) = keeper.ask(0, [0]).start
        assert (placed.assignment.number, placed.assignment.attempt) == (0, attempt)
        keeper.rejoin(0)
    (placed,) = keeper.ask(0, [0]).start
    assert placed.assignment.number == 1
    assert stored(keeper)[0].state == TrialState.FAIL
    assert stored(keeper)[0].user_attrs["outcome"] == "failed"
    assert stored(keeper)[0].user_attrs["stop_reason"] == (
        f"lost its worker {MAX_LOSSES_ALONE} times, {MAX_LOSSES_ALONE} of them alone on it: its process died"
    )


def test_a_sweep_that_is_interrupted_often_loses_no_trial(make_keeper: Make, pack: Any, stored: Any) -> None:
    for _ in range(MAX_LOSSES_ALONE + 2):
        keeper = make_keeper(trials=1)
        (placed,) = keeper.ask(0, [0]).start
    assert placed.assignment.number == 0
    assert placed.assignment.attempt == MAX_LOSSES_ALONE + 2
    assert stored(keeper)[0].state == TrialState.RUNNING


def test_the_result_of_a_worker_that_died_before_it_could_tell_is_adopted(
    make_keeper: Make, report: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=2)
    (placed,) = keeper.ask(0, [0]).start
    write_result(placed.assignment, report(placed.assignment, 100, 2.25, "complete", train_loss=math.nan))
    keeper.rejoin(0)
    trial = stored(keeper)[0]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 2.25)
    assert trial.intermediate_values == {100: 2.25}
    assert [p.assignment.number for p in keeper.ask(0, [0]).start] == [1]


def write_result(assignment: Any, ended: Any, config_hash: str | None = None) -> None:
    """What a worker writes before it tells the keeper."""
    values = ended.to_dict() | {"config_hash": config_hash or assignment.config.hash()}
    atomic_write_json(Path(assignment.folder) / "result.json", values)


# --- keepers that die -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "seats"),
    [
        ({"sampler": "tpe", "startup_trials": 2}, 1),
        ({"sampler": "random", "pruner": "none"}, 3),
    ],
)
def test_whenever_a_keeper_dies_the_next_one_draws_what_an_undisturbed_one_would(
    make_keeper: Make, pack: Any, stored: Any, configs: Any, options: dict[str, Any], seats: int
) -> None:
    """The old one is dropped after every one of its calls, the reply to which never arrives."""
    options |= {"trials": 4, "report_at": (50, 100)}
    whole = make_keeper(at="whole", **options)
    simulated = pack(whole, seats=seats)
    simulated.ask()
    calls = 1
    while simulated.seats:
        simulated.turn()
        calls += 1
    expected = [(t.params, t.state, t.value) for t in stored(whole)]
    assert len(expected) == 4
    for dies_after in range(1, calls + 1):
        at = f"dies{dies_after}"
        simulated = pack(make_keeper(at=at, **options), seats=seats)
        simulated.ask()
        for _ in range(dies_after - 1):
            simulated.turn()
        after = make_keeper(at=at, **options)
        pack(after, seats=seats).run()
        assert [(t.params, t.state, t.value) for t in stored(after)] == expected, dies_after


def test_a_new_keeper_adopts_results_on_disk_and_goes_on_with_the_rest(
    make_keeper: Make, pack: Any, report: Any, stored: Any
) -> None:
    first = make_keeper(trials=4, sampler="random")
    starts = {p.assignment.number: p.assignment for p in first.ask(0, [0, 1, 2, 3]).start}
    first.report(0, [report(starts[0], 20, 3.0)], [], 1.0)
    write_result(starts[0], report(starts[0], 100, 2.0, "complete"))
    write_result(starts[1], report(starts[1], 100, 1.0, "complete"), config_hash="of another sweep")
    Path(starts[2].folder, "result.json").write_text("{half a fi")
    write_result(starts[3], report(starts[3], 60, None, "diverged"))

    second = make_keeper(trials=4, sampler="random")
    trials = stored(second)
    assert [t.state for t in trials[:4]] == [
        TrialState.COMPLETE,
        TrialState.RUNNING,
        TrialState.RUNNING,
        TrialState.PRUNED,
    ]
    assert trials[0].intermediate_values == {20: 3.0, 100: 2.0}
    assert trials[3].user_attrs["outcome"] == "diverged"
    starts_again = second.ask(0, [0, 1, 2]).start
    assert [(p.assignment.number, p.assignment.attempt) for p in starts_again] == [(1, 2), (2, 2)]
    assert [p.assignment.config for p in starts_again] == [starts[1].config, starts[2].config]


def test_a_complete_result_on_disk_without_a_finite_loss_is_adopted_as_diverged(
    make_keeper: Make, report: Any, stored: Any
) -> None:
    first = make_keeper(trials=1)
    (placed,) = first.ask(0, [0]).start
    write_result(placed.assignment, report(placed.assignment, 100, math.inf, "complete"))
    (trial,) = stored(make_keeper(trials=1))
    assert trial.user_attrs["outcome"] == "diverged"
    assert trial.state == TrialState.PRUNED


def test_reports_repeated_after_a_checkpoint_change_nothing(
    make_keeper: Make, report: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=3, sampler="random")
    starts = keeper.ask(0, [0, 1, 2]).start
    for number, loss in ((1, 3.0), (2, 2.0)):  # trial 1 is alone at 20%, and passes
        assert keeper.report(0, [report(starts[number].assignment, 20, loss)], [], 1.0).leave == ()
    keeper.rejoin(0)
    again = keeper.ask(0, [0, 1, 2]).start
    # It has a better rival now, and other hardware may give another value: neither is looked at.
    assert keeper.report(0, [report(again[1].assignment, 20, 9.0)], [], 1.0).leave == ()
    assert stored(keeper)[1].intermediate_values == {20: 3.0}
    assert keeper.report(0, [report(again[1].assignment, 40, 2.5)], [], 1.0).leave == ()


def test_files_of_a_deleted_study_are_moved_aside_not_gone_on_from(make_keeper: Make, report: Any) -> None:
    old = make_keeper(at="old", trials=1)
    (placed,) = old.ask(0, [0]).start
    folder = Path(placed.assignment.folder)
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "seat.json").write_text("{}")
    fresh = Keeper(old.study_spec, str(old._storage.url).replace("old.db", "new.db"))
    (placed,) = fresh.ask(0, [0]).start
    assert {p.name for p in Path(placed.assignment.folder).iterdir()} == {"config.json"}
    assert (folder.with_name("0000.earlier-1") / "checkpoint" / "seat.json").is_file()
    assert any("moved to 0000.earlier-1" in event for event in fresh.status().events)
    fresh._storage.engine.dispose()


def test_a_storage_that_fails_in_the_middle_of_a_report_leaves_all_of_it_undone(
    make_keeper: Make, pack: Any, report: Any, stored: Any
) -> None:
    """It fails at the last trial, when the first has been told complete and read back by the pruner."""
    keeper = make_keeper(trials=6, sampler="random")
    starts = [placed.assignment for placed in keeper.ask(0, [0, 1, 2]).start]
    before, events = stored(keeper), keeper.status().events
    execute(
        keeper,
        """CREATE TRIGGER full BEFORE INSERT ON trial_user_attributes
        WHEN NEW.key = 'stop_reason' AND (SELECT number FROM trials WHERE trial_id = NEW.trial_id) = 2
        BEGIN SELECT RAISE(ABORT, 'no space'); END""",
    )
    ended = [report(assignment, 100, 2.0 + assignment.number, "complete") for assignment in starts]
    ended[1] = report(starts[1], 20, 3.0)
    with pytest.raises((optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)):
        keeper.report(0, ended, [0, 1, 2], 1.0)
    assert stored(keeper) == before
    execute(keeper, "DROP TRIGGER full")
    assert keeper.report(0, ended, [], 1.0).leave == ()
    assert keeper.status().events[: len(events)] == events
    assert len(keeper.status().events) == len(events) + 2
    assert [t.value for t in stored(keeper)[:3]] == [2.0, None, 4.0]


def test_trials_that_could_not_be_given_out_wait_on(make_keeper: Make) -> None:
    keeper = make_keeper(trials=6, sampler="random")
    keeper.ask(0, [0, 1])
    keeper.rejoin(0)
    execute(keeper, "ALTER TABLE trial_user_attributes RENAME TO elsewhere")
    with pytest.raises(optuna.exceptions.StorageInternalError):
        keeper.ask(0, [0, 1])
    execute(keeper, "ALTER TABLE elsewhere RENAME TO trial_user_attributes")
    assert [(p.assignment.number, p.assignment.attempt) for p in keeper.ask(1, [0, 1]).start] == [
        (0, 2),
        (1, 2),
    ]


@pytest.fixture
def unanswered(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The storage does what the next transaction says, and goes away before it answers."""

    def next_one() -> None:
        whole = SqlStudyStorage.transaction

        @contextmanager
        def cut(storage: SqlStudyStorage) -> Iterator[None]:
            monkeypatch.setattr(SqlStudyStorage, "transaction", whole)
            with whole(storage):
                yield
            raise ConnectionResetError("server closed the connection unexpectedly")

        monkeypatch.setattr(SqlStudyStorage, "transaction", cut)

    return next_one


def test_a_rejoin_without_an_answer_loses_no_trial(make_keeper: Make, unanswered: Callable[[], None]) -> None:
    keeper = make_keeper(trials=2, sampler="random")
    keeper.ask(0, [0, 1])
    unanswered()
    with pytest.raises(ConnectionResetError):
        keeper.rejoin(0)
    keeper.rejoin(0)
    assert [(p.assignment.number, p.assignment.attempt) for p in keeper.ask(0, [0, 1]).start] == [
        (0, 2),
        (1, 2),
    ]


def test_an_ask_without_an_answer_puts_no_trial_on_two_seats(
    make_keeper: Make, unanswered: Callable[[], None]
) -> None:
    keeper = make_keeper(trials=2, sampler="random")
    keeper.ask(0, [0, 1])
    keeper.rejoin(0)
    unanswered()
    with pytest.raises(ConnectionResetError):
        keeper.ask(0, [0])
    starts = keeper.ask(0, [0, 1]).start
    assert [(p.seat, p.assignment.number, p.assignment.attempt) for p in starts] == [(0, 0, 3), (1, 1, 2)]


def test_a_trial_put_back_without_an_answer_keeps_its_second_chance(
    make_keeper: Make, report: Any, unanswered: Callable[[], None], stored: Any
) -> None:
    keeper = make_keeper(trials=2, sampler="random")
    placed, _ = keeper.ask(0, [0, 1]).start
    said = [report(placed.assignment, 20, None, "put_back")]
    unanswered()
    with pytest.raises(ConnectionResetError):
        keeper.report(0, said, [], 1.0)
    keeper.report(0, said, [], 1.0)
    assert stored(keeper)[0].state == TrialState.RUNNING
    assert [p.assignment.put_back for p in keeper.ask(1, [0]).start] == [1]


def execute(keeper: Keeper, statement: str) -> None:
    """What another program, or a full disk, does to the database."""
    connection = sqlite3.connect(str(keeper._storage.url).removeprefix("sqlite:///"))
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_checkpoints_of_trials_that_ended_unseen_are_removed(make_keeper: Make, report: Any) -> None:
    keeper = make_keeper(trials=2, sampler="random", pruner="none")
    over, adopted = [placed.assignment for placed in keeper.ask(0, [0, 1]).start]
    write_result(adopted, report(adopted, 100, 2.0, "complete"))
    keeper.report(0, [report(over, 100, 2.0, "complete")], [], 1.0)
    for assignment in (over, adopted):  # as if the keeper had died before it came to that
        for name in ("checkpoint", "checkpoint.previous", ".checkpoint.123.tmp"):
            (Path(assignment.folder) / name).mkdir()
    make_keeper(trials=2, sampler="random", pruner="none")
    assert not [path for a in (over, adopted) for path in Path(a.folder).glob("*checkpoint*")]


def test_the_checkpoint_of_a_trial_that_is_given_up_is_removed(make_keeper: Make) -> None:
    keeper = make_keeper(trials=1)
    for _ in range(MAX_LOSSES_ALONE):
        (placed,) = keeper.ask(0, [0]).start
        (Path(placed.assignment.folder) / "checkpoint").mkdir(exist_ok=True)
        keeper.rejoin(0)
    assert not (Path(placed.assignment.folder) / "checkpoint").exists()


# --- how many trials ------------------------------------------------------------------------------


def test_running_again_adds_nothing_and_more_trials_add_the_difference(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    pack(make_keeper(trials=4)).run()
    again = make_keeper(trials=4)
    before = stored(again)
    assert again.ask(0, [0, 1]).start == ()
    assert stored(again) == before
    more = make_keeper(trials=7)
    pack(more).run()
    after = stored(more)
    assert len(after) == 7
    assert after[:4] == before
    assert len({json.dumps(t.params, sort_keys=True) for t in after}) == 7
    fewer = make_keeper(trials=3)
    assert fewer.ask(0, [0]).start == ()
    assert stored(fewer) == after


def test_a_stop_gives_no_new_trials_and_is_heard_by_every_worker(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=8, sampler="random", pruner="none")
    simulated = pack(keeper, seats=2)
    simulated.ask()
    keeper.request_stop()
    reply = simulated.turn()
    assert reply.stop
    assert reply.start == ()
    assert keeper.ask(1, [0]).stop
    assert keeper.ask(1, [0]).start == ()
    assert [t.state for t in stored(keeper)[:2]] == [TrialState.RUNNING] * 2


def test_after_the_time_limit_no_trial_starts_and_running_ones_end(
    make_keeper: Make, pack: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=8, pruner="none", timeout_seconds=3600)
    simulated = pack(keeper, seats=2)
    simulated.ask()
    keeper._started -= 3601
    simulated.run()
    assert not simulated.stopped
    assert [t.state for t in stored(keeper)].count(TrialState.COMPLETE) == 2
    assert keeper.status().finished == 2


def test_a_keeper_started_anew_does_not_start_the_time_limit_anew(
    make_keeper: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_keeper(trials=8, pruner="none", timeout_seconds=3600)
    later = time.time() + 3601
    monkeypatch.setattr("time.time", lambda: later)
    assert first.ask(0, [0]).start
    same_run = make_keeper(trials=8, pruner="none", timeout_seconds=3600, owner=first.owner)
    assert same_run.ask(1, [0]).start == ()
    assert make_keeper(trials=8, pruner="none", timeout_seconds=3600).ask(1, [0]).start
