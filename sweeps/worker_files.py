"""A worker's files: the driver's own where it sees them, else a scratch folder whose contents travel."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from lora_runner.messages import Assignment
from sweeps.depot import PIECE_BYTES, fingerprint, read_folder, sees, write_folder

Call = Callable[..., Any]
"""(method of the depot, arguments) -> its answer."""


class SharedFiles:
    """The worker sees the run folder: trials' folders are what they are for the driver."""

    def localise(self, assignment: Assignment) -> Assignment:
        """The assignment with a folder that this worker can write to."""
        return assignment

    def deliver(self, assignment: Assignment, names: list[str]) -> None:
        """Folders of a trial that have been written are there already."""

    def forget(self, number: int) -> None:
        """Nothing lies anywhere else."""


class ShippedFiles:
    """The worker does not see the run folder: a trial's checkpoint comes with it and goes back."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._scratch = Path(tempfile.mkdtemp(prefix="sweeps-trials-"))

    def localise(self, assignment: Assignment) -> Assignment:
        """The assignment with a local folder, which holds the trial's checkpoint if it has one."""
        folder = self._folder(assignment.number)
        shutil.rmtree(folder, ignore_errors=True)
        for name, files in self._call("checkpoints", assignment.number, assignment.attempt).items():
            write_folder(folder / name, files)
        return replace(assignment, folder=str(folder))

    def deliver(self, assignment: Assignment, names: list[str]) -> None:
        """Send folders of a trial that have been written since they were sent last."""
        for name in names:
            files = read_folder(Path(assignment.folder) / name)
            self._call("receive", assignment.number, assignment.attempt, name, files)

    def forget(self, number: int) -> None:
        """A trial has left this worker."""
        shutil.rmtree(self._folder(number), ignore_errors=True)

    def _folder(self, number: int) -> Path:
        return self._scratch / f"{number:04d}"


def files_for(run_folder: str, run: str, call: Call) -> SharedFiles | ShippedFiles:
    """What this worker's machine allows."""
    return SharedFiles() if sees(Path(run_folder), run) else ShippedFiles(call)


def model_folder(model: str, wanted: str | None, call: Call, cache: Path | None = None) -> str | None:
    """Where a local model lies on this machine: None for its own place, else a copy from the driver.

    `wanted` is the driver's fingerprint of the folder, None for a hub id. One worker of a machine fetches,
    the others wait for it.
    """
    if wanted is None or (Path(model).is_dir() and fingerprint(Path(model)) == wanted):
        return None
    cache = cache or Path.home() / ".cache" / "qlora-sweeps" / "models"
    target = cache / wanted
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(str(cache / f"{wanted}.lock")):
        if not (target.is_dir() and fingerprint(target) == wanted):
            _fetch(model, call("listing", model), target, call)
    return str(target)


def _fetch(model: str, files: Mapping[str, int], target: Path, call: Call) -> None:
    fresh = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    for name, size in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for offset in range(0, size, PIECE_BYTES):
                file.write(call("read", model, name, offset))
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
