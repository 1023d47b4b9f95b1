"""progress.json while a sweep runs: written every few seconds, with the events and stages so far."""

from __future__ import annotations

from pathlib import Path

from sweeps.run.progress_writer import STARTING, ProgressWriter
from sweeps.study.lease import DriverProcess
from sweeps.study.progress_file import read_progress
from sweeps.study.stages import Stages
from sweeps.study.status import RunningTrial, Status


class Keeper:
    def __init__(self, folder: Path) -> None:
        self.now, self.events, self.life = 10.0, list[str](), "first"
        self.running: list[RunningTrial] = []
        self.stages = Stages()
        self.writer = ProgressWriter(
            self.ask, folder, DriverProcess.current("run"), self.stages, clock=lambda: self.now
        )

    def ask(self, events_from: int) -> Status:
        events = self.events[events_from:]
        return Status("mine", 4, running=list(self.running), events=events, life=self.life, is_live=True)


def test_what_is_written_holds_all_last_events_and_the_drivers_stages(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    with keeper.stages.stage("updating mlflow"):
        first = keeper.writer(0)
    assert first is not None
    assert [stage.name for stage in first.stages] == [STARTING], "the driver's own are known to the view"
    found = read_progress(tmp_path)
    assert found is not None
    assert [stage.name for stage in found.stages] == ["updating mlflow", STARTING]

    keeper.running, keeper.events = [RunningTrial(number=0, step=3)], ["trial 0: started"]
    keeper.now += 1.0
    keeper.writer(0)
    assert read_progress(tmp_path) == found, "not yet"
    keeper.now += 1.5
    keeper.events.append("trial 0: complete")
    keeper.writer(1)
    found = read_progress(tmp_path)
    assert found is not None
    assert found.stages == []
    assert found.events == ["trial 0: started", "trial 0: complete"]
    assert [trial.step for trial in found.running] == [3]

    keeper.life, keeper.events = "second", ["worker 0: ready"]
    keeper.now += 3
    keeper.writer(0)
    found = read_progress(tmp_path)
    assert found is not None
    assert found.events == ["worker 0: ready"]
    keeper.writer.close()
    assert list(tmp_path.iterdir()) == []
