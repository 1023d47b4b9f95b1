"""What a worker tells between reports: once a second, never waiting, whatever the keeper does."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.fleet.progress_reports import ProgressReports
from sweeps.progress.messages import WorkerProgress
from sweeps.study.stages import Stages

SESSION: Any = SimpleNamespace(
    num_seats=2, checkpoint_seconds=0.5, eval_tokens=100, progress=lambda: ["trial 0"]
)


class Keeper:
    """Takes messages, or not."""

    def __init__(self) -> None:
        self.sent: list[WorkerProgress] = []
        self.takes = True
        self.now = 0.0
        self.reports = ProgressReports(self.send, lambda _: self.takes, clock=lambda: self.now)

    def send(self, progress: WorkerProgress) -> int:
        self.sent.append(progress)
        return len(self.sent)

    def train(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.now += 0.1
            self.reports.training(SESSION)


def test_one_message_a_second() -> None:
    keeper = Keeper()
    keeper.train(5.05)
    assert len(keeper.sent) == 5
    assert keeper.sent[0].trials == ("trial 0",)
    assert (keeper.sent[0].seats, keeper.sent[0].checkpoint_seconds) == (2, 0.5)


def test_a_busy_keeper_has_one_message_to_take_and_then_the_newest() -> None:
    keeper = Keeper()
    keeper.takes = False
    keeper.train(60)
    assert len(keeper.sent) == 1
    keeper.takes = True
    keeper.train(1.1)
    assert [sent.at for sent in keeper.sent] == pytest.approx([0.1, 60.5], abs=0.6)


def test_a_worker_that_cannot_send_goes_on() -> None:
    keeper = Keeper()

    def fail(_: WorkerProgress) -> None:
        raise ConnectionError("the actor is dead")

    keeper.reports._send = fail
    keeper.train(3)
    keeper.reports._send = keeper.send
    keeper.train(1.1)
    assert len(keeper.sent) == 1


def test_stages_are_told_while_a_call_blocks() -> None:
    told = threading.Event()
    sent: list[WorkerProgress] = []

    def send(progress: WorkerProgress) -> None:
        sent.append(progress)
        told.set()

    stages = Stages()
    with (
        ProgressReports(send, lambda _: True).starting(stages),
        stages.stage("loading the base", unit="weights") as set_done,
    ):
        set_done(3, 8)
        assert told.wait(10)
    assert [(s.name, s.done, s.total, s.unit) for s in sent[0].stages] == [
        ("loading the base", 3, 8, "weights")
    ]
    assert stages.now() == []
