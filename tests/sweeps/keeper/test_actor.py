"""The keeper actor: it waits for a storage that is away, and tells workers when to stop."""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.errors import StudyMismatch
from sweeps.keeper.actor import KeeperActor
from sweeps.keeper.keeper import Keeper
from sweeps.study.lease import DriverProcess

Make = Callable[..., KeeperActor]


@pytest.fixture
def make_actor(
    tmp_path: Path, new_database: Callable[[str], str], study_spec: Any
) -> Iterator[Callable[..., KeeperActor]]:
    made: list[KeeperActor] = []
    url = new_database("study")
    secret = tmp_path / "secret"
    secret.write_text(url, encoding="utf-8")

    def make(run: str = "a run", **options: Any) -> KeeperActor:
        reliability = options.pop("reliability", {})
        plan = study_spec(tmp_path / "run", trials=6, sampler="random", pruner="none", **options)
        plan = type(plan)(**{**vars(plan), "reliability": ReliabilitySection(**reliability)})
        made.append(KeeperActor(plan, str(secret), DriverProcess.current(run)))
        return made[-1]

    yield make
    for actor in made:
        if actor._opened is not None:
            actor._opened._storage.engine.dispose()


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Another program locks the database; calling it releases the lock."""
    connection = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    connection.execute("PRAGMA busy_timeout=0")
    connection.execute("BEGIN EXCLUSIVE")

    def release() -> None:
        connection.execute("ROLLBACK")

    yield release
    connection.close()


def impatient(actor: KeeperActor) -> None:
    """Make SQLite fail at once instead of waiting a minute for a lock."""
    assert actor._opened is not None
    actor._opened._storage.engine.dispose()

    from sqlalchemy import event

    @event.listens_for(actor._opened._storage.engine, "connect")
    def set_timeout(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA busy_timeout=0")


def test_while_the_storage_is_away_workers_are_told_to_say_it_again_and_nothing_is_lost(
    make_actor: Make, report: Any, request: pytest.FixtureRequest, stored: Any
) -> None:
    actor = make_actor()
    actor.open()
    (placed,) = actor.ask(0, [0]).start
    impatient(actor)
    release = request.getfixturevalue("lock")
    said = [report(placed.assignment, 20, 2.5)]
    waits = [actor.report(0, said, [], 1.0).retry_in_seconds for _ in range(4)]
    assert all(wait is not None and 0 < wait <= 5 for wait in waits)
    assert waits == sorted(waits)
    # What was said stands on disk already.
    assert '"percent": 20' in (Path(placed.assignment.folder) / "reports.jsonl").read_text()
    status = actor.status()
    assert status is None or status.storage_away_seconds > 0
    release()
    assert actor.report(0, said, [], 1.0).retry_in_seconds is None
    assert actor._opened is not None
    assert stored(actor._opened)[0].intermediate_values == {20: 2.5}
    assert (Path(placed.assignment.folder) / "reports.jsonl").read_text().count("\n") == 1
    status = actor.status()
    assert status is not None
    assert [e for e in status.events if "storage" in e] == [
        "the storage is away, waiting for it: database is locked",
        "the storage is back after 0 s",
    ]
    assert actor.errors() == []


def test_a_storage_that_stays_away_ends_the_sweep_cleanly_to_be_resumed(
    make_actor: Make, report: Any, request: pytest.FixtureRequest, stored: Any
) -> None:
    actor = make_actor(reliability={"outage_seconds": 0})
    actor.open()
    (placed,) = actor.ask(0, [0]).start
    impatient(actor)
    release = request.getfixturevalue("lock")
    said = [report(placed.assignment, 20, 2.5)]
    actor.report(0, said, [], 1.0)
    reply = actor.report(0, said, [], 1.0)
    assert reply.stop
    assert not reply.abandon, "running trials are to be checkpointed"
    assert "the storage was away for 0 s (reliability.outage_seconds is 0)" in actor.errors()[0]
    assert actor.rejoin(1, "it died").stop
    release()
    # The trial's checkpoint lies behind this report, so the next run takes it from the folder.
    again = make_actor("the next run")
    again.open()
    assert again._opened is not None
    assert stored(again._opened)[0].intermediate_values == {20: 2.5}


def test_a_report_that_was_never_heard_is_judged_by_the_next_keeper(
    make_keeper: Callable[..., Keeper], report: Any, stored: Any
) -> None:
    keeper = make_keeper(trials=4, sampler="random")
    starts = [p.assignment for p in keeper.ask(0, [0, 1, 2]).start]
    for assignment, loss in zip(starts[1:], (9.0, 2.0), strict=True):
        for percent in (20, 40):
            trial = stored(keeper)[assignment.number]
            keeper.opened.recorder.write_report(trial, report(assignment, percent, loss))
    with (Path(starts[2].folder) / "reports.jsonl").open("a") as file:
        file.write('{"half a li')
    trials = stored(make_keeper(trials=4, sampler="random"))
    assert trials[1].user_attrs["outcome"] == "pruned"
    # Nothing is compared before 40%: twice the longest warmup.
    assert trials[1].intermediate_values == {20: 9.0, 40: 9.0}
    assert trials[2].state.name == "RUNNING"
    assert trials[2].intermediate_values == {20: 2.0, 40: 2.0}


def test_a_keeper_that_lost_its_lease_tells_workers_to_leave_everything_as_it_is(make_actor: Make) -> None:
    first = make_actor()
    first.open()
    make_actor().open()  # another process of the same driver
    for _ in range(2):
        reply = first.ask(0, [0])
        assert reply.stop
        assert reply.abandon
        assert reply.fleet_done, "nobody has anything left to do"
    status = first.status()
    assert status is not None
    assert status.ending
    assert len(first.errors()) == 1
    assert "taken over by another sweep" in first.errors()[0]


def test_a_keeper_started_anew_that_finds_its_study_with_another_does_so_too(
    make_actor: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_actor("another").open()
    monkeypatch.setattr(DriverProcess, "is_same_process", lambda *_: False)
    reply = make_actor().report(0, [], [0], 1.0)
    assert reply.stop
    assert reply.abandon


def test_a_disk_that_takes_no_reports_ends_the_sweep_although_the_storage_answers_others(
    make_actor: Make, report: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = make_actor(reliability={"outage_seconds": 0.2})
    actor.open()
    (placed,) = actor.ask(0, [0]).start

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sweeps.keeper.trials.recorder.Recorder.write_report", full)
    until = time.monotonic() + 20
    while not (reply := actor.report(0, [report(placed.assignment, 20, 2.5)], [], 1.0)).stop:
        assert time.monotonic() < until, "it goes on for ever"
        status = actor.status()
        assert status is not None
        assert status.storage_away_seconds > 0
        assert actor.report(1, [], [], 1.0).retry_in_seconds is None
        actor.prefetch(0)
        time.sleep(0.05)
    assert reply.not_recorded, "the trial must not go on from behind its report"
    assert [e for e in status.events if "storage" in e] == [
        "the storage is away, waiting for it: [Errno 28] No space left on device"
    ]


def test_an_error_of_our_own_stops_the_sweep_and_is_told_once(
    make_actor: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = make_actor()
    actor.open()

    def broken(*_: Any) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(actor._opened, "ask", broken)
    assert actor.ask(0, [0]).stop
    assert actor.ask(0, [0]).stop
    (error,) = actor.errors()
    assert "KeyError: 'a mistake'" in error
    assert "Traceback" in error


def test_that_nothing_more_comes_hears_the_last_worker_that_an_error_of_our_own_stops(
    make_actor: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = make_actor()
    actor.open()
    for worker in (0, 1):
        assert actor.ask(worker, [0]).start
    status = actor.status()
    assert status is not None
    assert not status.ending

    def broken(*_: Any) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(actor._opened, "report", broken)
    replies = [actor.report(worker, [], [], 1.0) for worker in (0, 1)]
    assert [reply.stop for reply in replies] == [True, True]
    assert [reply.fleet_done for reply in replies] == [False, True], "worker 1 was still to checkpoint"
    status = actor.status()
    assert status is not None
    assert status.ending


def test_who_has_not_heard_of_the_end_is_waited_for(
    make_actor: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker waits for the reply to `prefetch`."""
    actor = make_actor()
    for worker in (0, 1):
        assert actor.ask(worker, [0]).start

    def broken(*_: Any) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(actor._opened, "prefetch", broken)
    actor.prefetch(0)
    assert [actor.report(worker, [], [], 1.0).fleet_done for worker in (1, 0)] == [False, True]


def test_a_keeper_started_anew_knows_who_is_still_to_checkpoint(make_actor: Make) -> None:
    actor = make_actor()
    for worker in (0, 1):
        assert actor.ask(worker, [0]).start
    again = make_actor()
    again.request_stop()
    assert [again.ask(worker, []).fleet_done for worker in (0, 1)] == [False, True]


def test_with_no_trial_left_it_says_that_nothing_more_comes(make_actor: Make, report: Any) -> None:
    actor = make_actor()
    for number in range(6):
        (placed,) = actor.ask(0, [0]).start
        actor.report(0, [report(placed.assignment, 20, 2.5)], [], 1.0)
        status = actor.status()
        assert status is not None
        assert (placed.assignment.number, status.ending) == (number, False)
        actor.report(0, [report(placed.assignment, 100, 2.0, "complete")], [], 1.0)
    status = actor.status()
    assert status is not None
    assert (status.finished, status.ending) == (6, True)


def test_out_of_time_it_says_that_nothing_more_comes(make_actor: Make) -> None:
    actor = make_actor(timeout_seconds=0.2)
    actor.open()
    until = time.monotonic() + 20
    while not (status := actor.status()).ending:  # type: ignore[union-attr]
        assert time.monotonic() < until
        time.sleep(0.05)
    assert status is not None
    assert status.finished == 0


def test_so_does_one_started_anew_that_never_found_its_storage(
    make_actor: Make, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sweeps.keeper.actor.Keeper", away)
    actor = make_actor(reliability={"outage_seconds": 0})
    assert actor.status() is None
    status = actor.status()
    assert status is not None
    assert status.ending


def test_what_makes_a_study_unusable_is_raised_as_it_is(
    make_actor: Make, study_spec: Any, tmp_path: Path
) -> None:
    make_actor().open()
    actor = make_actor()
    other = type(actor._study_spec)(**{**vars(actor._study_spec), "identity": {"metric": "accuracy"}})
    with pytest.raises(StudyMismatch, match="accuracy"):
        KeeperActor(other, str(tmp_path / "secret"), DriverProcess.current("another")).open()


def test_started_anew_by_ray_it_opens_the_study_by_itself_and_hears_a_stop_again(make_actor: Make) -> None:
    actor = make_actor()
    assert [p.assignment.number for p in actor.ask(0, [0]).start] == [0]
    again = make_actor()
    again.request_stop()
    assert again.ask(0, [1]).stop
