"""A run as lines of a log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sweeps.study.status import Stage, Status
from sweeps.view.plain_lines import PlainLines
from tests.sweeps.view.statuses import running_status, running_trial

AT = datetime(2026, 11, 28, 22, 10, 32)


class Log:
    """`PlainLines` with a clock that is set by hand; what it said without the time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.plain = PlainLines(clock=lambda: self.seconds, now=lambda: AT)

    def __call__(self, status: Status | None, *args: Any, **kwargs: Any) -> list[str]:
        lines = self.plain.lines(status, *args, **kwargs)
        assert all(line.startswith("2026-11-28 22:10:32 ") and "\n" not in line for line in lines)
        return [line.removeprefix("2026-11-28 22:10:32 ") for line in lines]


def quiet(**fields: Any) -> Status:
    """Without a best and without reports."""
    return running_status(0, best=None, leader=None, default_loss=None, base_eval_loss=None, **fields)


def test_a_start_a_report_and_an_end_are_a_line_each_complete_in_itself() -> None:
    log, values = Log(), "learning_rate 5.44e-4, scheduler cosine, warmup 3%"
    started = running_trial(10, percent=0, step=0, eval_loss=None, train_loss=None)
    assert log(quiet(running=[started]), ["trial 10: started on worker 0 seat 1"]) == [
        f"[6 of 16] trial 10: started on worker 0 seat 1: {values}"
    ]
    assert log(quiet(running=[running_trial(10, eval_loss=None)])) == []
    reported = running_trial(10, train_loss=5.6123, eval_loss=5.71)
    assert log(quiet(running=[reported])) == [
        f"[6 of 16] trial 10: at 30%, step 12 of 40, train loss 5.612, evaluation loss 5.710; {values}"
    ]
    assert log(quiet(running=[reported])) == []
    end = "trial 10: pruned at 40%: loss 5.710, rank 5 of 8"
    assert log(quiet(states={"PRUNED": 7}), [end]) == [f"[7 of 16] {end}; {values}"]


def test_a_new_best_is_a_line_with_its_values_and_what_the_default_costs() -> None:
    log = Log()
    assert log(running_status(0)) == [
        "[6 of 16] best so far 5.432 (trial 5); learning_rate 5.98e-3, scheduler constant; "
        "guideline default 6.828 (+25.7%); untouched base 6.934"
    ]
    assert log(running_status(0)) == []
    better = {"number": 9, "eval_loss": 5.3, "values": {"learning_rate": 0.004}}
    (line,) = log(running_status(0, best=better))
    assert line.startswith("[6 of 16] best so far 5.300 (trial 9); learning_rate 4e-3; ")


def test_stages_are_lines_when_they_begin() -> None:
    log = Log()
    reading = [Stage(name="reading the data", seconds=1)]
    assert log(None, stages=reading) == ["reading the data"]
    assert log(None, stages=reading) == []
    assert log(None, ["1 worker with 4 seats"], stages=reading) == ["1 worker with 4 seats"]
    loading = Stage(name="loading the base", worker=1)
    assert log(quiet(stages=[loading])) == ["[6 of 16] worker 1: loading the base"]
    assert log(quiet()) == []
    assert log(quiet(stages=[loading])) == ["[6 of 16] worker 1: loading the base"]


def test_without_news_there_is_a_sign_of_life_once_a_minute() -> None:
    log, status = Log(), running_status(best=None, default_loss=None)
    assert len(log(status)) == 4  # one report each
    log.seconds = 59
    assert log(status) == []
    log.seconds = 61
    assert log(status) == [
        "[6 of 16] 4 trials running, trial 10 at 30%, step 12 of 40; 1,240 tokens/s; about 2 min left"
    ]
    log.seconds = 100
    assert log(status) == []
    log.seconds = 122
    assert len(log(status)) == 1
    stage = Stage(name="loading the base", worker=0, seconds=185)
    log.seconds = 200
    assert log(quiet(), stages=[stage]) == ["[6 of 16] worker 0: loading the base"]
    log.seconds = 261
    assert log(quiet(), stages=[stage]) == [
        "[6 of 16] worker 0: still loading the base (3 min 5 s); 1,240 tokens/s; about 2 min left"
    ]


def test_other_events_and_a_stop_are_lines_as_they_are() -> None:
    log = Log()
    assert log(quiet(), ["the storage is away, waiting for it: disk\nfull"], notice="Stopping.") == [
        "[6 of 16] Stopping.",
        "[6 of 16] the storage is away, waiting for it: disk full",
    ]
