"""A worker's files: the driver's own where it sees them, else a scratch folder synchronised with them."""

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
from sweeps.artifacts.file_server import (
    PIECE_BYTES,
    fingerprint,
    read_folder,
    sees_run_folder,
    write_folder,
)

Call = Callable[..., Any]
"""(method of the file server, arguments) -> its answer."""
RETRY_SECONDS = 5.0


class StoreUnreachable(Exception):
    """Raised when the checkpoint store does not answer; no trial is to blame."""


class SharedFiles:
    """The worker sees the run folder, and uses the trials' folders there."""

    def fetch_checkpoints(self, assignment: Assignment) -> Assignment:
        """The assignment as it is: its folder is visible here."""
        return assignment

    def deliver(self, assignment: Assignment, name: str) -> list[str]:
        """Nothing to send."""
        return []

    def keep_only(self, numbers: Set[int]) -> None:
        """Nothing to remove."""

    def close(self) -> None:
        """Nothing to remove."""


class ShippedFiles:
    """The worker does not see the run folder: a trial's files are exchanged with the file server."""

    def __init__(self, call: Call, scratch: Path, *, patience_seconds: float = 0.0) -> None:
        """`scratch`: a folder of this worker alone; what an earlier process left there is removed."""
        self._call = call
        self._scratch = scratch
        self._patience_seconds = patience_seconds
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)

    def fetch_checkpoints(self, assignment: Assignment) -> Assignment:
        """The assignment with a local folder that holds the trial's checkpoints, if it has any."""
        folder = self._folder(assignment.number)
        shutil.rmtree(folder, ignore_errors=True)
        for name, files in self._call("checkpoints", assignment.number, assignment.attempt).items():
            write_folder(folder / name, files)
        return replace(assignment, folder=str(folder))

    def deliver(self, assignment: Assignment, name: str) -> list[str]:
        """Send a trial's checkpoint or adapter; returns notes for the user.

        If the driver's disk refuses a checkpoint, the previous one remains. An adapter is sent again until
        the disk takes it, since its trial has used its whole budget. Raises OSError when that takes too long.
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
        """Remove the folders of trials that have left this worker."""
        kept = {self._folder(number) for number in numbers}
        for folder in self._scratch.iterdir():
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _folder(self, number: int) -> Path:
        return self._scratch / trial_name(number)


class StoredFiles(ShippedFiles):
    """Checkpoints are kept in a store that every worker reaches; adapters are sent to the file server."""

    def __init__(
        self, store: CheckpointStore, call: Call, scratch: Path, *, patience_seconds: float = 0.0
    ) -> None:
        """`store` holds the checkpoints of this study."""
        super().__init__(call, scratch, patience_seconds=patience_seconds)
        self._store = store

    def fetch_checkpoints(self, assignment: Assignment) -> Assignment:
        """The assignment with a local folder that holds the trial's checkpoints, if it has any.

        Raises StoreUnreachable: without an answer it is not known whether there are any.
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
        """Checkpoints go to the store; if it refuses one, the previous one remains."""
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
    """A store if the sweep file names one, else what this machine allows."""
    scratch = Path(tempfile.gettempdir()) / f"sweeps-{run}-{worker}.trials"
    if store is not None:
        return StoredFiles(store, call, scratch, patience_seconds=patience_seconds)
    if sees_run_folder(Path(run_folder), run):
        return SharedFiles()
    return ShippedFiles(call, scratch, patience_seconds=patience_seconds)


def model_folder(
    model: str,
    wanted: str | None,
    call: Call,
    cache: Path | None = None,
    *,
    alive: Callable[[], None] = lambda: None,
) -> str | None:
    """The folder of a copy of the driver's model; None when `model` itself can be used here.

    `wanted`: the driver's fingerprint of the folder, None for a hub id. One worker of a machine fetches the
    copy; the others wait for it and call `alive` meanwhile.
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
    """Fetch a model's files piece by piece; pieces that an earlier worker fetched are kept."""
    fresh = target.with_name(f".{target.name}.tmp")
    for name, size in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(min(file.tell(), size) // PIECE_BYTES * PIECE_BYTES)
            for offset in range(file.seek(0, os.SEEK_END), size, PIECE_BYTES):
                file.write(call("read", model, name, offset))
                file.flush()
                os.fsync(file.fileno())  # after a crash, a file of the right size could lack its content
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
