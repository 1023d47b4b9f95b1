"""A sweep that runs already or is finished: known before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweeps.errors import RunFolderError, StudyHeld
from sweeps.run.before_run import finished_run, known_confirmation, known_status, refuse_if_running
from sweeps.run.run_result import RunResult
from sweeps.run.stopping import stopped_lines, stopping_text, wait_for_end
from sweeps.study.lease import DriverProcess, Lease
from sweeps.study.progress_file import write_progress
from sweeps.study.status import RunningTrial, Status
from sweeps.sweep import Sweep


def test_a_finished_sweep_is_known_by_its_study_and_files(finished: Path) -> None:
    def result() -> RunResult | None:
        return finished_run(Sweep.load(finished).config)

    found = result()
    assert found is not None
    assert (found.status.finished, found.added, found.interrupted) == (4, 0, False)
    refuse_if_running(Sweep.load(finished).config)
    status = Sweep.load(finished).status()
    assert (status.is_live, status.next_command, status.states.get("PAUSED")) == (False, None, None)
    assert status.ended_at is not None
    assert status.run_seconds is not None
    # What may have changed is looked at.
    assert finished_run(Sweep.load(finished, {"training.max_steps": 50}).config) is None
    assert finished_run(Sweep.load(finished, {"trials": 5}).config) is None
    work = finished.parent.parent
    for name, moment in (("data.jsonl", 2e9), ("model/config.json", 2e9), ("runs/small/trials.csv", 1e9)):
        path = work / name
        before = path.stat().st_mtime
        os.utime(path, (moment, moment))
        assert result() is None, name
        os.utime(path, (before, before))
    for name in ("report.html", "best/config.yaml"):
        assert result() is not None
        (finished / name).unlink()
        assert result() is None, name
        (finished / name).touch()


def test_what_is_finished_is_known_before_ray_starts(ran: Path) -> None:
    config = Sweep.load(ran, {"trials": 9}).config
    known = known_status(config)
    assert (known.finished, known.target) == (4, 9)
    assert known.best is not None
    confirmation = known_confirmation(config, 6, anew=False)
    assert (confirmation.task, confirmation.finished, confirmation.target) == ("confirm", 0, 6)


def test_a_process_that_still_holds_the_study_may_go_on(ran: Path) -> None:
    refuse_if_running(Sweep.load(ran).config)  # this very process


def test_another_live_process_is_refused(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Sweep.load(ran).config
    monkeypatch.setattr(DriverProcess, "is_same_process", lambda *_: False)
    with pytest.raises(StudyHeld, match=rf"is running already \(process {os.getpid()} on "):
        refuse_if_running(config)
    monkeypatch.setattr(DriverProcess, "is_alive", False)
    refuse_if_running(config)
    with pytest.raises(RunFolderError, match="is not running"):
        Sweep.load(ran).stop()


def test_after_everything_was_killed_nothing_runs(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_progress(ran, Status("small", 4, is_live=True), DriverProcess.current(""))
    assert Sweep.load(ran).status().is_live
    monkeypatch.setattr(DriverProcess, "is_alive", False)
    status = Sweep.load(ran).status()
    assert not status.is_live
    assert status.ended_at is not None


def test_a_stop_says_what_it_does_and_what_is_kept() -> None:
    running = [RunningTrial(number=number) for number in range(5)]
    status = Status("mine", 16, states={"COMPLETE": 3}, running=running, stop_seconds=3.2)
    assert stopping_text(status) == "Stopping: 5 running trials write checkpoints, about 3 s."
    assert stopping_text(Status("mine", 16)) == "Stopping: no trial is training."
    after = Status(
        "mine", 16, states={"COMPLETE": 3, "PAUSED": 5}, running=running, next_command="sweeps run x"
    )
    assert list(stopped_lines(after)) == [
        "Stopped: 3 of 16 trials finished, 5 trials paused at their last step.",
        "Next  sweeps run x",
    ]


def test_the_wait_for_the_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    lease = Lease(owner=DriverProcess.current(""), keeper="k", beat=1)
    assert not wait_for_end(lease, seconds=10, clock=lambda: sum(slept), sleep=slept.append)
    assert sum(slept) == pytest.approx(10, abs=0.5)
    monkeypatch.setattr(DriverProcess, "is_alive", False)
    assert wait_for_end(lease, seconds=10, clock=lambda: sum(slept), sleep=slept.append)
