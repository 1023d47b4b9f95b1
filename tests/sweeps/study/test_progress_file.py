"""progress.json: read back as it was written, and not believed once its driver is gone."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sweeps.study.lease import DriverProcess
from sweeps.study.progress_file import PROGRESS_FILE, read_progress, remove_progress, write_progress
from sweeps.study.status import Leader, RunningTrial, Stage, Status

FULL = Status(
    "mine",
    8,
    states={"COMPLETE": 1, "RUNNING": 1},
    running=[RunningTrial(number=3, worker=0, seat=1, step=4, values={"learning_rate": 2e-4})],
    stages=[Stage(name="loading the base", worker=1, done=1.5, total=8.0, unit="bytes", seconds=2.0)],
    leader=Leader(number=0, eval_loss=2.5, percent=100),
    best={"number": 0, "eval_loss": 2.5, "params": {"learning_rate": 1e-4}},
    devices=["2 CPU cores"],
    is_live=True,
    ended_at=datetime(2026, 11, 28, 12, 0, 5, tzinfo=UTC),
    events=["trial 3: started"],
)
ME = DriverProcess.current("a run")


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, FULL, ME)
    assert read_progress(tmp_path) == FULL
    remove_progress(tmp_path)
    assert read_progress(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "owner", [replace(ME, started=ME.started - 100), replace(ME, pid=2**22 + 1)], ids=["reused", "gone"]
)
def test_a_driver_that_is_gone_is_not_believed(tmp_path: Path, owner: DriverProcess) -> None:
    write_progress(tmp_path, FULL, owner)
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize(("age", "is_read"), [(0.0, True), (10.0, True), (20.0, False), (-3600.0, False)])
def test_an_old_file_is_not_believed(tmp_path: Path, age: float, is_read: bool) -> None:
    write_progress(tmp_path, FULL, replace(ME, place="another machine"))
    file = tmp_path / PROGRESS_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"written_at": time.time() - age}))
    assert (read_progress(tmp_path) is not None) == is_read


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"driver": {}, "written_at": 0, "status": {"name": 1}}'])
def test_a_file_of_another_kind_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / PROGRESS_FILE).write_text(text)
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("driver", {"pid": "x"}),
        ("status", {"target": "x"}),
        ("status", {"running": [{"number": 3, "percent": "x"}]}),
        ("status", {"states": ["COMPLETE"]}),
        ("status", {"leader": {"number": 0}}),
    ],
)
def test_a_value_of_another_type_is_as_no_file(tmp_path: Path, part: str, values: Any) -> None:
    write_progress(tmp_path, FULL, ME)
    file = tmp_path / PROGRESS_FILE
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {part: found[part] | values}))
    assert read_progress(tmp_path) is None


def test_a_run_folder_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_progress(tmp_path / "file", FULL, ME)
    assert read_progress(tmp_path / "file") is None
