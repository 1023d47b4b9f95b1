"""A worker on a real Ray with a real keeper, and a session that trains nothing."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from rich.console import Console

from lora_runner.protocol import (
    COMPLETE,
    OUT_OF_MEMORY,
    PUT_BACK,
    Assignment,
    ComputeRecord,
    SeatReport,
    TrialProgress,
)
from sweeps.errors import StartFailed
from sweeps.fleet.endpoints import open_endpoints
from sweeps.fleet.fleet_size import FleetSize, fleet_size
from sweeps.fleet.ray_start import start_ray
from sweeps.fleet.run_fleet import run_fleet
from sweeps.fleet.training_session import SessionOpener
from sweeps.keeper.keeper import Keeper
from sweeps.study.lease import DriverProcess
from sweeps.view.live_view import LiveView
from tests.on_ray import ON_RAY

pytestmark = ON_RAY


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


def make_worker_spec(
    seats: int, log: str, *, room: int, never: int | None = None, turn_seconds: float = 0.02
) -> SessionOpener:
    """A worker spec whose session has memory for `room` trials at once and none for trial `never`."""

    # Inside a function, so that Ray sends the classes themselves: workers cannot import a test.
    class OutOfMemoryError(RuntimeError):
        pass

    def end_of_turn() -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"turn {time.time()}\n")

    class RehearsedSession:
        base_eval_loss = 3.0
        base_weights = None
        compute_record = ComputeRecord(device="none", path="none", details=())
        base_samples = None

        def __init__(self) -> None:
            self.seated: dict[int, tuple[Assignment, int]] = {}
            self.closed: set[int] = set()
            self.num_tokens = 0
            self.heartbeat: Callable[[], None] = lambda: None

        @property
        def trials(self) -> list[Any]:
            return [SimpleNamespace(assignment=assignment) for assignment, _ in self.seated.values()]

        @property
        def free_seats(self) -> list[int]:
            return [seat for seat in range(seats) if seat not in self.seated and seat not in self.closed]

        @property
        def num_seats(self) -> int:
            return seats - len(self.closed)

        def has_trial(self, number: int) -> bool:
            return any(assignment.number == number for assignment, _ in self.seated.values())

        def remove(self, number: int) -> None:
            self.seated = {seat: t for seat, t in self.seated.items() if t[0].number != number}

        def start_trial(self, seat: int, assignment: Assignment) -> None:
            assert seat in self.free_seats
            # A keeper that finds a result there takes the trial for ended.
            assert not Path(assignment.folder, "result.json").exists()
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"{assignment.number} {assignment.put_back} {len(self.seated)} {time.time()}\n")
            if assignment.number == never or len(self.seated) == room:
                raise OutOfMemoryError("CUDA out of memory.\nGPU 0 has no more.")
            self.seated[seat] = (assignment, 0)

        def report_out_of_memory(
            self, assignment: Assignment, report: SeatReport, reason: str, *, alone: bool
        ) -> SeatReport:
            if not alone:
                self.closed.update(self.free_seats)
            return report.ended(OUT_OF_MEMORY if assignment.put_back else PUT_BACK, reason)

        def measure_base(self) -> float | None:
            return None

        eval_tokens, checkpoint_seconds = 0, None

        def progress(self) -> list[TrialProgress]:
            return []

        def save(self, number: int) -> None:
            pass

        def take_written(self) -> list[tuple[Assignment, str]]:
            return []

        def take_notes(self) -> list[str]:
            return []

        def advance(self, max_seconds: float) -> list[SeatReport]:
            time.sleep(turn_seconds)
            reports = []
            for seat, (assignment, percent) in list(self.seated.items()):
                self.seated[seat] = (assignment, percent + 50)
                empty = SeatReport.empty(assignment)
                values = vars(empty) | {"percent": percent + 50, "eval_loss": 2.0, "num_tokens": 10}
                report = SeatReport(**values)
                if percent == 50:
                    report = report.ended(COMPLETE, "all done")
                    del self.seated[seat]
                reports.append(report)
            self.num_tokens += 10 * len(reports)
            end_of_turn()
            return reports

    class WorkerSpec:
        def __init__(self) -> None:
            self.seats = seats
            self.stall_seconds = 60.0

        def measure_unquantized(self, *_: Any) -> Any: ...

        def open_session(self, num_threads: int, call: Any, alive: Any, stages: Any) -> RehearsedSession:
            time.sleep(turn_seconds)
            end_of_turn()
            return RehearsedSession()

    return WorkerSpec()


def test_what_finds_no_room_is_put_back_and_tried_once_more_on_fewer_seats(
    local_ray: None, tmp_path: Path, new_database: Callable[[str], str], study_spec: Any, stored: Any
) -> None:
    log = tmp_path / "placed"
    url = new_database("study")
    plan = study_spec(tmp_path / "run", trials=8, report_at=(50, 100), sampler="random", pruner="none")
    with open_endpoints(plan, url, DriverProcess.current("a run")) as endpoints:
        assert run_fleet(endpoints, make_worker_spec(4, str(log), room=2, never=1), fleet_size(1, 1)) == []
        status = ray.get(endpoints.keeper.status.remote())
    tried = [
        tuple(int(n) for n in line.split()[:3])
        for line in log.read_text().splitlines()
        if not line.startswith("turn")
    ]
    # 0 fits, 1 does not, 2 does, and for 3 there is no room beside the two.
    assert tried[:4] == [(0, 0, 0), (1, 0, 1), (2, 0, 1), (3, 0, 2)]
    assert tried[4][:2] == (1, 1)
    assert [put_back for number, put_back, _ in tried if number == 3] == [0, 1]
    assert max(others for _, _, others in tried[4:]) == 1, "the pack did not shrink"
    assert "trial 3: put back by worker 0 (CUDA out of memory.)" in status.events
    assert status.num_put_back == 2

    trials = stored(Keeper(plan, url))
    assert len(trials) == 8
    outcomes = [t.user_attrs["outcome"] for t in trials]
    assert outcomes == [COMPLETE, OUT_OF_MEMORY, *[COMPLETE] * 6]
    assert [t.user_attrs.get("put_back") for t in trials[:4]] == [None, 1, None, 1]
    assert trials[1].user_attrs["stop_reason"] == "CUDA out of memory."
    folder = tmp_path / "run" / "trials" / "0003"
    outcomes_said = [json.loads(line)["outcome"] for line in (folder / "reports.jsonl").open()]
    assert outcomes_said == [PUT_BACK, None, COMPLETE]
    assert json.loads((folder / "result.json").read_text())["outcome"] == COMPLETE
    assert "OutOfMemoryError" in (folder / "error.txt").read_text()


def test_trials_lie_ready_before_they_are_asked_for_and_seats_are_busy(
    local_ray: None, tmp_path: Path, new_database: Callable[[str], str], study_spec: Any, stored: Any
) -> None:
    url = new_database("study")
    plan = study_spec(tmp_path / "run", trials=10, report_at=(50, 100), sampler="random", pruner="none")
    log = tmp_path / "placed"
    with open_endpoints(plan, url, DriverProcess.current("a run")) as endpoints:
        worker_spec = make_worker_spec(3, str(log), room=3, turn_seconds=2.0)
        assert run_fleet(endpoints, worker_spec, fleet_size(1, 1)) == []
        share = ray.get(endpoints.keeper.status.remote()).seat_busy_share
    assert 0.5 < share <= 1
    assert len(stored(Keeper(plan, url))) == 10
    freed_at, ready = 0.0, {}
    for line in log.read_text().splitlines():
        if line.startswith("turn"):
            freed_at = float(line.split()[1])
            continue
        number = int(line.split()[0])
        drawn = (tmp_path / "run" / "trials" / f"{number:04d}" / "config.json").stat().st_mtime
        ready[number] = drawn < freed_at
    # Drawn while the base loads, and later one while the pack trains.
    assert all(ready[number] for number in (0, 1, 2, 3, 6, 9)), ready
    # The second and third seat that one report frees get what is drawn knowing all of it.
    assert not any(ready[number] for number in (4, 5, 7, 8)), ready


@pytest.mark.parametrize("fails", ["open_session", "base_weights", "free_seats"])
def test_an_error_that_comes_again_at_the_second_start_ends_the_sweep_at_once(
    local_ray: None, tmp_path: Path, new_database: Callable[[str], str], study_spec: Any, fails: str
) -> None:
    class WorkerSpec:
        seats, stall_seconds = 1, 60.0

        def measure_unquantized(self, *_: Any) -> Any: ...

        def open_session(self, num_threads: int, call: Any, alive: Any, stages: Any) -> Any:
            with open(log, "a", encoding="utf-8") as file:
                file.write("start\n")
            return self.look_up("open_session") or self

        def look_up(self, where: str) -> Any:
            return dict[str, Any]()["head_dim"] if fails == where else None

        # A session, as far as a worker gets before it has trials.
        base_eval_loss = 3.0
        compute_record = None
        base_samples = None

        @property
        def base_weights(self) -> Any:
            return self.look_up("base_weights")

        @property
        def free_seats(self) -> Any:
            return self.look_up("free_seats")

    plan, log = study_spec(tmp_path / "run", trials=2), str(tmp_path / "starts")
    with open_endpoints(plan, new_database("study"), DriverProcess.current("a run")) as endpoints:
        assert run_fleet(endpoints, WorkerSpec(), fleet_size(1, 1)) == []
        error = ray.get(endpoints.keeper.start_error.remote())
        assert ray.get(endpoints.keeper.errors.remote()) == []
    assert Path(log).read_text().splitlines() == ["start"] * 2
    assert type(error) is StartFailed
    assert str(error).startswith(f"no worker can start: KeyError: 'head_dim'\n  at {__file__}:")
    assert "return dict[str, Any]()" in (tmp_path / "run" / "start_error.txt").read_text()


def test_a_fleet_whose_node_has_gone_ends_when_it_is_to_stop(
    local_ray: None, tmp_path: Path, new_database: Callable[[str], str], study_spec: Any
) -> None:
    plan = study_spec(tmp_path / "run", trials=2, report_at=(50, 100), sampler="random", pruner="none")
    nowhere = FleetSize(now=1, most=1, resources={"a node that never comes": 1})
    started = time.monotonic()
    with open_endpoints(plan, new_database("study"), DriverProcess.current("a run")) as endpoints:
        worker_spec = make_worker_spec(1, str(tmp_path / "placed"), room=1)
        assert run_fleet(endpoints, worker_spec, nowhere, lambda: time.monotonic() - started > 5) == []
    assert time.monotonic() - started > 5


def test_it_ends_too_when_its_time_has_run_out_meanwhile(
    local_ray: None, tmp_path: Path, new_database: Callable[[str], str], study_spec: Any
) -> None:
    plan = study_spec(tmp_path / "run", trials=2, sampler="random", pruner="none", timeout_seconds=2.0)
    nowhere = FleetSize(now=1, most=1, resources={"a node that never comes": 1})
    with open_endpoints(plan, new_database("study"), DriverProcess.current("a run")) as endpoints:
        worker_spec, keeper = make_worker_spec(1, str(tmp_path / "placed"), room=1), endpoints.keeper
        view = LiveView(Console(file=io.StringIO()))
        started = time.monotonic()
        with view, view.follow(lambda seen: ray.get(keeper.status.remote(seen)), lambda: None):
            assert (
                run_fleet(endpoints, worker_spec, nowhere, lambda: view.is_ending() or too_long(started))
                == []
            )
        assert not too_long(started)


def too_long(started: float) -> bool:
    return time.monotonic() - started > 40
