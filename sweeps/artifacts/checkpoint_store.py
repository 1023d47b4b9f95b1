"""Checkpoints of running trials in a shared folder or at any fsspec URL that every worker reaches.

An object store cannot rename or swap folders, so a trial has two slots there and writes to the one without
its newest checkpoint. A slot is complete when it has a `state.json`, which is written last and removed first;
its digest of the tensors is checked when the trial is resumed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from files_and_text.atomic_files import whole_folder
from files_and_text.trial_paths import STATE_FILE, checkpoint_folders, trial_name
from sweeps.errors import StorageUnreachable

FINISH_SECONDS = 10.0
_SLOTS = ("a", "b")


class CheckpointStore:
    """Checkpoints of one sweep's trials below a URL; methods raise whatever the file system raises."""

    def __init__(self, url: str, sweep: str, key: str = "") -> None:
        """Raises StorageUnreachable for a URL that fsspec has no file system for."""
        import fsspec

        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise StorageUnreachable(f"checkpoints {url!r} cannot be used: {error}") from None
        self._root = "/".join([root.rstrip("/"), sweep, *([key] if key else [])])
        self._url, self._sweep, self._key = url, sweep, key

    def __reduce__(self) -> tuple[Any, ...]:
        """Each machine opens the URL itself, with its own fsspec settings."""
        return type(self), (self._url, self._sweep, self._key)

    def of_study(self, key: str) -> CheckpointStore:
        """The part for the study of this key: an earlier study of the same name may have had other data.

        An empty key stands for the whole store, where studies from before there were keys keep checkpoints.
        """
        return CheckpointStore(self._url, self._sweep, key)

    def check(self) -> None:
        """Write a file and read it back. Raises StorageUnreachable with the reason if that fails."""
        probe = f"{self._root}/.probe"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(probe, b"here")
            found = self._files.cat_file(probe)
            self._files.rm_file(probe)
            if found != b"here":
                raise OSError("a file came back altered")
        except Exception as error:  # each file system has errors of its own
            raise StorageUnreachable(f"checkpoints cannot be kept in {self._root!r}: {error}") from error

    def save(self, number: int, folder: Path) -> None:
        """Put a trial's checkpoint into the slot that does not hold its newest one."""
        steps = self._steps(number)
        slot = min(_SLOTS, key=lambda name: (steps[name], name))
        target = f"{self._root}/{trial_name(number)}/{slot}"
        self._remove(f"{target}/{STATE_FILE}")
        self._files.makedirs(target, exist_ok=True)
        names = sorted((file.name for file in folder.iterdir()), key=lambda name: name == STATE_FILE)
        for name in names:
            self._files.put_file(str(folder / name), f"{target}/{name}")

    def load(self, number: int, folder: Path) -> None:
        """Make `folder`/checkpoint the newest one of a trial, and checkpoint.previous the other."""
        steps = self._steps(number)
        slots = sorted((name for name in _SLOTS if steps[name] >= 0), key=lambda name: -steps[name])
        targets = checkpoint_folders(folder)
        for target in targets:
            shutil.rmtree(target, ignore_errors=True)
        for target, slot in zip(targets, slots, strict=False):
            with whole_folder(target) as temporary:
                for path in self._files.ls(f"{self._root}/{trial_name(number)}/{slot}", detail=False):
                    self._files.get_file(path, str(temporary / Path(path).name))

    def numbers(self) -> set[int]:
        """Trials that have anything in the store."""
        self._files.invalidate_cache()  # some cache listings, and other processes write here too
        try:
            paths = self._files.ls(self._root, detail=False)
        except FileNotFoundError:
            return set()
        names = {Path(path).name for path in paths}
        return {int(name) for name in names if name.isdecimal()}

    def remove(self, number: int) -> None:
        self._remove(f"{self._root}/{trial_name(number)}", recursive=True)

    def _steps(self, number: int) -> dict[str, int]:
        """The micro-step of each slot's checkpoint; -1 for a slot without a complete one."""
        steps = {}
        for slot in _SLOTS:
            try:
                state: dict[str, Any] = json.loads(
                    self._files.cat_file(f"{self._root}/{trial_name(number)}/{slot}/{STATE_FILE}")
                )
                steps[slot] = int(state.get("micro_step", state["step"]))
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                steps[slot] = -1
        return steps

    def _remove(self, path: str, *, recursive: bool = False) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(path, recursive=recursive)


class CheckpointCleaner:
    """Removes ended trials' checkpoints in a thread of its own, since a store may be slow, or hang."""

    def __init__(self, store: CheckpointStore) -> None:
        """`store`: the study's part."""
        self._store = store
        self._ended = SimpleQueue[set[int] | None]()
        self._thread: threading.Thread | None = None

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove the checkpoints of these trials soon; those that cannot be removed are left behind."""
        self._ended.put(set(numbers))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="checkpoint-cleaner", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Wait until all of them are removed, for at most `FINISH_SECONDS`; no calls after this one."""
        if self._thread is not None:
            self._ended.put(None)
            self._thread.join(FINISH_SECONDS)

    def _work(self) -> None:
        while (ended := self._ended.get()) is not None:
            present = set[int]()
            with contextlib.suppress(Exception):
                # One listing instead of many calls: few ended trials have checkpoints left.
                present = self._store.numbers() & ended
            for number in sorted(present):
                with contextlib.suppress(Exception):
                    self._store.remove(number)
