"""Callbacks get every report once and in order, and never end a sweep unless they ask for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from lora_runner.config import TrialConfig
from sweeps.keeper.keeper import Keeper
from sweeps.run.callbacks import ReportFeed, StopSweep
from sweeps.study.report import Report
from tests.sweeps.conftest import bowl

HIGH = 4e-4
"""Only some of the trials have a higher rate."""


def some(config: TrialConfig, percent: int) -> float | str:
    is_high = config.learning_rate > HIGH
    return "diverged" if is_high and percent == 40 else bowl(config, percent)


@pytest.fixture
def recorded(make_keeper: Callable[..., Keeper], pack: Any) -> list[Report]:
    """The reports of a keeper whose sweep has ended."""
    keeper = make_keeper(trials=16, pruner="successive_halving", sampler="random", seed=1)
    keeper.register(0, 3.5)
    pack(keeper, some).run()
    return keeper.report_log.since(0)


def follow(feed: ReportFeed, *answers: list[Report]) -> None:
    """The feed after each of these lists was all that the keeper had, the first of them known by a name of
    its own where it is shorter than the one before."""
    for answer in answers:
        with feed.follow(lambda seen, answer=answer: (str(id(answer)), answer[seen:])):
            pass


def test_a_keeper_records_each_report_once_and_in_order(
    recorded: list[Report], make_keeper: Callable[..., Keeper]
) -> None:
    by_trial: dict[int, list[Report]] = {}
    for report in recorded:
        by_trial.setdefault(report.trial, []).append(report)
    for reports in by_trial.values():
        percents = [report.percent for report in reports]
        assert percents == sorted(set(percents))
        assert [report.outcome is not None for report in reports] == [False] * (len(reports) - 1) + [True]
    outcomes = {reports[-1].outcome for reports in by_trial.values()}
    assert {"complete", "pruned", "diverged"} <= outcomes
    best = [report for report in recorded if report.is_best]
    assert best
    assert [report.eval_loss for report in best] == sorted(
        {report.eval_loss for report in best}, reverse=True
    )
    complete = [report.eval_loss for report in recorded if report.outcome == "complete"]
    assert best[-1].eval_loss == min(loss for loss in complete if loss is not None)
    assert "learning_rate" in recorded[0].values


def test_a_repeated_call_of_a_worker_is_one_report(make_keeper: Callable[..., Keeper], pack: Any) -> None:
    keeper = make_keeper(trials=6)
    keeper.register(0, 3.5)
    packed = pack(keeper)
    packed.ask()
    reports = packed.reports()
    for _ in range(2):
        keeper.report(0, reports, [], 1.0)
    assert len(keeper.report_log.since(0)) == len(reports)


def test_callbacks_get_all_reports_in_one_thread(recorded: list[Report]) -> None:
    got: list[Report] = []
    threads = set()

    def note(report: Report) -> None:
        got.append(report)
        threads.add(threading.current_thread().name)

    feed = ReportFeed([note], print, threading.Event())
    follow(feed, recorded[:3])
    assert got == recorded[:3]
    # Another keeper: it counts from 0, and what was passed on is not passed on again.
    follow(feed, recorded)
    assert got == recorded
    assert threads == {"callbacks"}


def test_an_error_in_a_callback_is_said_once_and_the_others_go_on(recorded: list[Report]) -> None:
    said: list[str] = []
    got: list[Report] = []

    def broken(report: Report) -> None:
        raise KeyError(f"no {report.trial}")

    stop = threading.Event()
    follow(ReportFeed([broken, got.append], said.append, stop), recorded)
    assert got == recorded
    assert len(said) == 1
    assert "broken failed; the sweep goes on" in said[0]
    assert "Traceback (most recent call last)" in said[0]
    assert "KeyError: 'no 0'" in said[0]
    assert not stop.is_set()


def test_a_callback_can_end_the_run(recorded: list[Report]) -> None:
    stop = threading.Event()

    def enough(report: Report) -> None:
        if report.percent >= 40:
            raise StopSweep

    follow(ReportFeed([enough], print, stop), recorded[:1])
    assert not stop.is_set()
    follow(ReportFeed([enough], print, stop), recorded)
    assert stop.is_set()


def test_a_keeper_that_does_not_answer_is_asked_again(recorded: list[Report]) -> None:
    got: list[Report] = []
    calls = []

    def ask(seen: int) -> tuple[str, list[Report]]:
        calls.append(seen)
        if len(calls) == 1:
            raise ConnectionError
        answered.set()
        return "it", recorded[seen:]

    answered = threading.Event()
    with ReportFeed([got.append], print, threading.Event()).follow(ask):
        assert answered.wait(10)
    assert got == recorded
