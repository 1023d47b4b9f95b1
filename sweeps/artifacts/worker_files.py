"""A worker's files: the driver's own where it sees them, else a scratch folder whose contents travel."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from files_and_text.trial_paths import ADAPTER, CHECKPOINT, trial_name
from lora_runner.errors import first_line
from lora_runner.protocol import Assignment
from sweeps.artifacts.checkpoint_store import CheckpointStore
from sweeps.artifacts.file_server import PIECE_BYTES, fingerprint, read_folder, sees, write_folder

Call = Callable[..., Any]
"""(method of the depot, arguments) -> its answer."""
RETRY_SECONDS = 5.0


class StoreUnreachable(Exception):
    """Raised for a store of checkpoints that does not answer, which is no fault of any trial."""


class SharedFiles:
    """The worker sees the run folder: trials' folders are what they are for the driver."""

    def fetch_checkpoints(self, assignment: Assignment) -> Assignment:
        """The assignment with a folder that this worker can write to."""
        return assignment

    def deliver(self, assignment: Assignment, name: str) -> list[str]:
        """A folder of a trial that has been written is there already."""
        return []

    def keep_only(self, numbers: Set[int]) -> None:
        """Nothing lies anywhere else."""

    def close(self) -> None:
        """Nothing is to be cleared away."""


class ShippedFiles:
    """The worker does not see the run folder: a trial's checkpoint comes with it and goes back."""

    def __init__(self, call: Call, scratch: Path, *, patience_seconds: float = 0.0) -> None:
        """`scratch` is this worker's alone; what an earlier life of it left there is cleared away."""
        self._call = call
        self._scratch = scratch
        self._patience_seconds = patience_seconds
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)

    def fetch_checkpoints(self, assignment: Assignment) -> Assignment:
        """The assignment with a local folder, which holds the trial's checkpoint if it has one."""
        folder = self._folder(assignment.number)
        shutil.rmtree(folder, ignore_errors=True)
        for name, files in self._call("checkpoints", assignment.number, assignment.attempt).items():
            write_folder(folder / name, files)
        return replace(assignment, folder=str(folder))

    def deliver(self, assignment: Assignment, name: str) -> list[str]:
        """Send a folder of a trial that has been written; returns what a person should hear of.

        Where the driver's disk does not take a checkpoint, the one before remains. An adapter waits for it:
        its trial has used its whole budget. Raises OSError when that takes too long.
        """
        files = read_folder(Path(assignment.folder) / name)
        deadline, notes = time.monotonic() + self._patience_seconds, list[str]()
        while trouble := self._call("receive", assignment.number, assignment.attempt, name, files):
            if name != ADAPTER:
                return [f"trial {assignment.number}: no {name} was written ({trouble})"]
            if time.monotonic() > deadline:
                raise OSError(trouble)
            notes = [f"trial {assignment.number}: waited for the driver's disk ({trouble})"]
            time.sleep(min(RETRY_SECONDS, self._patience_seconds))
        return notes

    def keep_only(self, numbers: Set[int]) -> None:
        """Remove the folders of all other trials: they have left this worker."""
        kept = {self._folder(number) for number in numbers}
        for folder in self._scratch.iterdir():
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """The worker ends."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _folder(self, number: int) -> Path:
        return self._scratch / trial_name(number)


class StoredFiles(ShippedFiles):
    """Checkpoints lie in a store that every worker reaches; adapters travel to the driver."""

    def __init__(
        self, store: CheckpointStore, call: Call, scratch: Path, *, patience_seconds: float = 0.0
    ) -> None:
        """`store` holds the checkpoints of this study."""
        super().__init__(call, scratch, patience_seconds=patience_seconds)
        self._store = store

    def fetch_checkpoints(self, assignment: Assignment) -> Assignment:
        """The assignment with a local folder, which holds the trial's checkpoints if it has any.

        Raises StoreUnreachable: without an answer nobody knows whether there are any.
        """
        folder = self._folder(assignment.number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            self._store.load(assignment.number, folder)
        except Exception as error:  # each file system has errors of its own
            raise StoreUnreachable(f"{type(error).__name__}: {first_line(error)}") from error
        return replace(assignment, folder=str(folder))

    def deliver(self, assignment: Assignment, name: str) -> list[str]:
        """`ShippedFiles.deliver`, but for checkpoints; where one is not taken, the one before remains."""
        if name != CHECKPOINT:
            return super().deliver(assignment, name)
        try:
            self._store.save(assignment.number, Path(assignment.folder) / name)
        except Exception as error:  # each file system has errors of its own
            return [f"trial {assignment.number}: no checkpoint was stored ({error})"]
        return []


def choose_worker_files(
    run_folder: str,
    run: str,
    call: Call,
    *,
    worker: int = 0,
    patience_seconds: float = 0.0,
    store: CheckpointStore | None = None,
) -> SharedFiles | ShippedFiles:
    """What the sweep file says, or else what this worker's machine allows."""
    if store is not None:
        scratch = Path(tempfile.gettempdir()) / f"sweeps-{run}-{worker}.trials"
        return StoredFiles(store, call, scratch, patience_seconds=patience_seconds)
    if sees(Path(run_folder), run):
        return SharedFiles()
    scratch = Path(tempfile.gettempdir()) / f"sweeps-{run}-{worker}.trials"
    return ShippedFiles(call, scratch, patience_seconds=patience_seconds)


def model_folder(
    model: str,
    wanted: str | None,
    call: Call,
    cache: Path | None = None,
    *,
    alive: Callable[[], None] = lambda: None,
) -> str | None:
    """Where a local model lies on this machine: None for its own place, else a copy from the driver.

    `wanted` is the driver's fingerprint of the folder, None for a hub id. One worker of a machine fetches,
    the others wait for it and call `alive` meanwhile.
    """
    if wanted is None or (Path(model).is_dir() and fingerprint(Path(model)) == wanted):
        return None
    cache = cache or Path.home() / ".cache" / "qlora-sweeps" / "models"
    target = cache / wanted
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{wanted}.lock", alive):
        if not (target.is_dir() and fingerprint(target) == wanted):
            _fetch(model, call("listing", model), target, call)
    return str(target)


@contextmanager
def _locked(path: Path, alive: Callable[[], None]) -> Iterator[None]:
    lock = FileLock(str(path))
    while True:
        alive()
        with suppress(Timeout):
            lock.acquire(timeout=RETRY_SECONDS)
            break
    try:
        yield
    finally:
        lock.release()


def _fetch(model: str, files: Mapping[str, int], target: Path, call: Call) -> None:
    """A model's files piece by piece; those that a worker before this one had fetched whole are kept."""
    fresh = target.with_name(f".{target.name}.tmp")
    for name, size in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(min(file.tell(), size) // PIECE_BYTES * PIECE_BYTES)
            for offset in range(file.seek(0, os.SEEK_END), size, PIECE_BYTES):
                file.write(call("read", model, name, offset))
                file.flush()
                os.fsync(file.fileno())  # or a machine that goes down leaves pieces of the right size alone
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
