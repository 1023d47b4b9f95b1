"""A worker's exchange with the keeper, without Ray: what it saves, and when it ends."""

from __future__ import annotations

import contextlib
import errno
from types import SimpleNamespace
from typing import Any

import pytest

from lora_runner.config import TrialConfig
from lora_runner.protocol import Assignment, ComputeRecord, SeatReport
from sweeps.artifacts.worker_files import SharedFiles, StoreUnreachable
from sweeps.fleet.progress_reports import ProgressReports
from sweeps.fleet.worker import Worker
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.protocol import Reply, SeatAssignment
from sweeps.keeper.trials.retry_queue import losses_of
from sweeps.keeper.worker_registry import MAX_FUTILE_STARTS


def assignment(number: int) -> Assignment:
    config = TrialConfig(learning_rate=1e-3, max_steps=4, per_device_train_batch_size=1)
    return Assignment(number=number, config=config, folder="nowhere")


class Seats:
    """A session that reports once for each of `reporting` in a turn."""

    compute_record = ComputeRecord(device="none", path="none", details=())
    base_samples = None

    def __init__(self, *numbers: int, reporting: tuple[int, ...] = ()) -> None:
        self.seats: dict[int, Assignment] = dict(enumerate(map(assignment, numbers)))
        self.reporting = reporting
        self.saved: list[int] = []
        self.num_seats, self.num_tokens = 2, 0

    @property
    def trials(self) -> list[Any]:
        return [SimpleNamespace(assignment=assignment) for assignment in self.seats.values()]

    @property
    def free_seats(self) -> list[int]:
        return [seat for seat in range(self.num_seats) if seat not in self.seats]

    def has_trial(self, number: int) -> bool:
        return any(assignment.number == number for assignment in self.seats.values())

    def remove(self, number: int) -> None:
        self.seats = {seat: a for seat, a in self.seats.items() if a.number != number}

    def start_trial(self, seat: int, assignment: Assignment) -> None:
        self.seats[seat] = assignment

    def save(self, number: int) -> None:
        self.saved.append(number)

    def advance(self, max_seconds: float) -> list[SeatReport]:
        return [SeatReport.empty(a) for a in self.seats.values() if a.number in self.reporting]

    def take_written(self) -> list[Any]:
        return []

    def take_notes(self) -> list[str]:
        return []


@pytest.fixture
def make_worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`make_worker(session, *replies)`: the keeper's answers in order."""

    def make(session: Seats, *replies: Reply) -> Any:
        worker = Worker.__new__(Worker)
        worker.index, worker.session = 0, session
        worker._stopped = worker._fleet_done = False
        worker._last_reported, worker._notes = frozenset(), []
        worker._reported_at, worker._reported_tokens, worker._busy_seat_seconds = 0.0, 0, 0.0
        worker._watchdog, worker._files = contextlib.nullcontext(), SharedFiles()
        worker._patience_seconds = 60.0
        worker._progress = ProgressReports(send=lambda _: None, is_taken=lambda _: True)
        worker.keeper = SimpleNamespace(prefetch=SimpleNamespace(remote=lambda *_: None))
        worker.asked, worker.said = [], []
        answers = iter(replies)

        def say(method: str, *said: Any) -> Reply:
            worker.asked.append((method, *said[:1]) if method == "ask" else (method,))
            if method == "register":  # says how the worker computes and what its base writes after its seats
                *said, worker.compute_record, _ = said
            worker.said.append(said[-1] if said else None)
            return next(answers)

        monkeypatch.setattr(worker, "_call_keeper", say)
        return worker

    return make


@pytest.mark.parametrize("num_seats", [1, 32])
@pytest.mark.parametrize(
    ("needs_metric", "value", "calls"),
    [
        (False, None, ["register"]),
        (True, 0.5, ["register", "record_base_metric"]),
        (True, None, ["register", "ask"]),  # it could not be measured
    ],
)
def test_all_seats_are_filled_by_as_many_calls_as_one(
    make_worker: Any, num_seats: int, needs_metric: bool, value: float | None, calls: list[str]
) -> None:
    session: Any = Seats()
    session.num_seats, session.base_eval_loss, session.base_weights = num_seats, 3.0, None
    session.measure_base = lambda: value
    start = tuple(SeatAssignment(seat, assignment(seat + 5)) for seat in range(num_seats))
    replies = [Reply(measure_base=True)] if needs_metric else []
    worker = make_worker(session, *replies, Reply(start=start))
    worker._start_trials()
    assert [call[0] for call in worker.asked] == calls
    assert worker.said[-1] == list(range(num_seats))
    assert worker.compute_record == session.compute_record
    assert {seat: a.number for seat, a in session.seats.items()} == {s: s + 5 for s in range(num_seats)}


def test_a_worker_whose_base_is_refused_starts_nothing(make_worker: Any) -> None:
    session: Any = Seats()
    session.base_eval_loss, session.base_weights = 3.0, "aa"
    worker = make_worker(session, Reply(stop=True))
    worker._start_trials()
    assert worker.step()["done"]
    assert worker.asked == [("register",)]


@pytest.mark.parametrize(("unheard", "saved"), [(False, [1, 2]), (True, [2])])
def test_a_trial_whose_report_was_not_recorded_is_not_saved_behind_it(
    make_worker: Any, unheard: bool, saved: list[int]
) -> None:
    session = Seats(1, 2, reporting=(1,))
    make_worker(session, Reply(stop=True, not_recorded=unheard)).step()
    assert session.saved == saved


def test_before_it_ends_a_worker_asks_for_seats_that_became_free_with_the_last_answer(
    make_worker: Any,
) -> None:
    session = Seats(1, reporting=(1,))
    start = (SeatAssignment(0, assignment(7)),)
    worker = make_worker(
        session, Reply(leave=(1,)), Reply(start=start), Reply(leave=(7,)), Reply(fleet_done=True)
    )
    assert not worker.step()["done"]
    assert session.has_trial(7)
    assert worker.step()["done"]
    assert worker.asked == [("report",), ("ask", [0, 1])] * 2


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("CUDA error: an illegal memory access")],
)
def test_a_machine_that_fails_while_a_trial_is_seated_is_no_fault_of_the_trial(
    make_worker: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    session = Seats()
    worker = make_worker(session)

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(session, "start_trial", fail)
    with pytest.raises(type(error), match=str(error.args[-1])):
        worker._apply(Reply(start=(SeatAssignment(0, assignment(1)),)))


def test_a_thousand_trials_that_cannot_be_seated_are_told_one_after_another(
    make_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Seats()
    starts = [Reply(start=(SeatAssignment(0, assignment(number)),)) for number in range(1000)]
    worker = make_worker(session, *starts, Reply(fleet_done=True))

    def fail(*_: Any) -> None:
        raise ValueError("lora_r must be at least 1, got 0")

    monkeypatch.setattr(session, "start_trial", fail)
    worker._apply(worker._call_keeper("ask", [0]))
    assert len(worker.asked) == 1001


def test_a_trial_on_a_seat_that_the_worker_does_not_know_of_is_given_again(
    make_keeper: Any, report: Any
) -> None:
    """The reply was lost that filled a stopped trial's seat, and another seat is free before it."""
    keeper: Keeper = make_keeper(trials=2, sampler="random", pruner="none")
    first, second = keeper.ask(0, [0, 1]).start
    keeper.report(0, [report(first.assignment, 100, 2.0, "complete")], [], 1.0)
    start = keeper.ask(0, [0, 1]).start
    assert [(p.seat, p.assignment.number) for p in start] == [(1, second.assignment.number)]


def test_after_the_time_limit_too(make_keeper: Any) -> None:
    keeper: Keeper = make_keeper(trials=4, timeout_seconds=3600)
    keeper.ask(0, [0])
    keeper._started -= 3601
    assert [p.assignment.number for p in keeper.ask(0, [0, 1]).start] == [0]
    assert keeper.rejoin(1).stop, "no base is loaded for a worker that will get nothing"


class StoreThatIsAway:
    """A worker's files, whose store does not answer the first `failures` times."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def fetch_checkpoints(self, assignment: Assignment) -> Assignment:
        if self.left:
            self.left -= 1
            raise StoreUnreachable("ConnectionError: the bucket is gone")
        return assignment

    def keep_only(self, numbers: Any) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The worker's sleeps; its clock shows their sum."""
    slept: list[float] = []
    monkeypatch.setattr(
        "sweeps.fleet.worker.time", SimpleNamespace(sleep=slept.append, monotonic=lambda: sum(slept))
    )
    return slept


def test_a_store_that_is_away_for_a_while_is_waited_for(make_worker: Any, clock: list[float]) -> None:
    session = Seats(2)
    start = Reply(start=(SeatAssignment(1, assignment(7)),))
    worker = make_worker(session, Reply(), Reply(), Reply())
    worker._files = StoreThatIsAway(3)
    worker._apply(start)
    assert session.has_trial(7)
    assert len(clock) == 3
    assert worker.said == [
        ["trial 7: its checkpoints cannot be reached, waiting (ConnectionError: the bucket is gone)"],
        [],
        [],
    ]


def test_a_stop_is_heard_while_the_store_is_away(make_worker: Any, clock: list[float]) -> None:
    session = Seats(2)
    worker = make_worker(session, Reply(), Reply(stop=True))
    worker._files = StoreThatIsAway(1000)
    worker._apply(Reply(start=(SeatAssignment(1, assignment(7)),)))
    assert worker._stopped
    assert session.saved == [2]


def test_a_store_that_stays_away_ends_the_worker_and_fails_no_trial(
    make_worker: Any, clock: list[float]
) -> None:
    worker = make_worker(Seats(2), *[Reply()] * 1000)
    worker._files = StoreThatIsAway(1000)
    with pytest.raises(StoreUnreachable):
        worker._apply(Reply(start=(SeatAssignment(1, assignment(7)),)))
    assert sum(clock) == worker._patience_seconds
    assert worker.asked[-1] == ("give_back",)
    assert "cannot be reached, given up after 60 s (ConnectionError" in worker.said[-2][0]
    assert worker.said[-1] is None, "a reason is a loss for every trial"


def test_trials_that_a_worker_gives_back_have_lost_nothing(make_keeper: Any) -> None:
    keeper: Keeper = make_keeper(trials=6, sampler="random", pruner="none")
    given = [p.assignment.number for p in keeper.ask(0, [0]).start]
    for _ in range(MAX_FUTILE_STARTS + 1):
        keeper.give_back(0)
        assert [p.assignment.number for p in keeper.ask(0, [0]).start] == given
    assert losses_of(keeper.study.trials[given[0]]) == (0, 0)
    assert not any(keeper.rejoin(0).stop for _ in range(MAX_FUTILE_STARTS)), "only its starts count"
    keeper.give_back(0)
    assert keeper.errors == []
    assert keeper.rejoin(0).stop


class Watched:
    """A watchdog that records whether it is on."""

    is_on = False

    def __enter__(self) -> None:
        self.is_on = True

    def __exit__(self, *_: Any) -> None:
        self.is_on = False


@pytest.mark.parametrize("reply", [Reply(), Reply(stop=True)])
def test_what_travels_to_a_store_is_watched(
    make_worker: Any, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    """A hanging store raises no exception."""
    session = Seats(1)
    worker = make_worker(session, reply)
    worker._watchdog = Watched()
    seen = []

    def deliver(assignment: Assignment, name: str) -> list[str]:
        seen.append((assignment.number, name, worker._watchdog.is_on))
        return []

    monkeypatch.setattr(worker._files, "deliver", deliver, raising=False)
    monkeypatch.setattr(session, "take_written", lambda: [(assignment(1), "checkpoint")])
    worker.step()
    assert set(seen) == {(1, "checkpoint", True)}


def test_every_answer_of_the_file_server_is_a_sign_of_life(
    make_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base may take longer to reach a node than a step may take."""
    worker = make_worker(Seats())
    signs = list[str]()
    worker._watchdog = SimpleNamespace(alive=lambda: signs.append("alive"))
    worker._file_server = SimpleNamespace(read=SimpleNamespace(remote=lambda *said: said))
    monkeypatch.setattr("sweeps.fleet.worker.ray.get", lambda answer: answer)
    for offset in range(3):
        assert worker._call_file_server("read", "model", offset) == ("model", offset)
    assert signs == ["alive"] * 3
