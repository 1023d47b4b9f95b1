"""What the keeper adds to a status between two reports."""

from __future__ import annotations

from typing import Any

import pytest

from lora_runner.protocol import TrialProgress
from sweeps.progress.live_progress import LiveProgress
from sweeps.progress.messages import WorkerProgress
from sweeps.study.status import RunningTrial, Stage, Status

SEARCH = {"pruner": "none", "pruner_options": {}, "timeout_seconds": None}


class Watched:
    """Progress on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.progress = LiveProgress(SEARCH, (50, 100), (), is_confirm=False, clock=lambda: self.now)

    def tell(self, worker: int, at: float, *steps: tuple[int, int], attempt: int = 1, saved: int = 0) -> None:
        trials = tuple(
            TrialProgress(
                number=number,
                attempt=attempt,
                step=step,
                max_steps=100,
                num_tokens=10 * step,
                train_loss=3.0 - step / 100,
                checkpoint_step=saved,
            )
            for number, step in steps
        )
        self.progress.note(
            worker, WorkerProgress(at=at, trials=trials, seats=2, checkpoint_seconds=0.5 if saved else None)
        )

    def status(self, *numbers: int, **options: Any) -> Status:
        status = Status("mine", 4, running=[RunningTrial(number=n, worker=0) for n in numbers])
        given = {"without_seat": [], "ended": [], "whole": [], "has_more": False} | options
        self.progress.fill(status, **given)
        return status


def test_steps_and_speeds_are_those_of_the_last_seconds() -> None:
    watched = Watched()
    for second in range(30):
        watched.now += 1
        watched.tell(0, float(second), (0, second), (1, 2 * second))
    status = watched.status(0, 1)
    assert [(t.step, t.max_steps, t.percent, t.train_loss) for t in status.running] == [
        (29, None, 29, pytest.approx(2.71)),
        (58, None, 58, pytest.approx(2.42)),
    ]
    assert [t.tokens_per_second for t in status.running] == pytest.approx([10.0, 20.0])
    assert status.steps_per_second == pytest.approx(3.0)
    assert status.tokens_per_second == pytest.approx(30.0)
    watched.now += 60
    assert watched.status(0, 1).steps_per_second < 1.0, "nothing is heard for a minute"


def test_another_attempt_starts_over_and_a_repeated_message_changes_nothing() -> None:
    watched = Watched()
    watched.tell(0, 50.0, (0, 40))
    watched.tell(0, 51.0, (0, 50))
    watched.tell(0, 51.0, (0, 50))
    assert watched.status(0).steps_per_second == pytest.approx(10.0)
    watched.tell(1, 7.0, (0, 20), attempt=2)
    assert watched.status(0).steps_per_second == 0.0
    assert [t.step for t in watched.status(0).running] == [20]


def test_a_trial_without_a_seat_is_paused_at_its_checkpoint() -> None:
    watched = Watched()
    watched.tell(0, 1.0, (0, 45), (1, 45), saved=30)
    status = watched.status(0, 1, without_seat=[1])
    assert [(t.state, t.step, t.percent) for t in status.running] == [
        ("training", 45, 45),
        ("paused", 30, 30),
    ]
    assert status.steps_at_risk == 15
    assert status.stop_seconds == pytest.approx(5.0 + 2 * 0.5)


def test_stages_of_a_start_end_with_the_first_step_and_with_the_worker() -> None:
    watched = Watched()
    loading = Stage(name="loading the base", done=3, total=8, unit="weights", seconds=2.0)
    for worker in (0, 1):
        watched.progress.note(worker, WorkerProgress(at=1.0, stages=(loading,)))
    watched.now += 1.5
    assert [(s.worker, s.name, s.done, s.total, s.seconds) for s in watched.status().stages] == [
        (worker, "loading the base", 3, 8, 3.5) for worker in (0, 1)
    ]
    watched.tell(0, 2.0, (0, 1))
    watched.progress.forget_worker(1, "worker 1 was lost")
    assert watched.status(0).stages == []


def test_a_stopping_sweep_has_no_time_left() -> None:
    watched = Watched()
    for second in range(5):
        watched.tell(0, float(second), (0, second))
    assert watched.status(0).seconds_left is not None
    status = Status("mine", 4, running=[RunningTrial(number=0, worker=0)], stopping=True)
    watched.progress.fill(status, without_seat=[], ended=[], whole=[], has_more=True)
    assert status.seconds_left is None
