"""The driver's files for workers that do not see them: an actor beside the keeper.

Workers need neither a shared file system nor a database. Where a worker sees the run folder, it writes there
itself; where not, checkpoints and adapters travel here through Ray's object store, and so do the files of a
base model that only the driver has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from files_and_text.atomic_files import atomic_write, whole_folder
from files_and_text.trial_paths import ADAPTER, CHECKPOINT, checkpoint_folders, trial_folder
from lora_runner.base.weights_digest import tensor_samples
from lora_runner.errors import is_disk_trouble

PIECE_BYTES = 64 * 2**20
"""Of a model's file in one message."""
MARK = ".run"
"""In the run folder: a worker that reads the right token there sees the driver's files."""
SHIPPED = (CHECKPOINT, ADAPTER)


def mark(run_folder: Path, run: str) -> None:
    """Leave the run's token where workers look for it."""
    atomic_write(run_folder / MARK, run)


def sees(run_folder: Path, run: str) -> bool:
    """Whether this machine sees the run folder of this very run."""
    try:
        return (run_folder / MARK).read_text(encoding="utf-8") == run
    except OSError:
        return False


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a flat folder."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder` hold these files, whole or not at all. ValueError for a name that leads elsewhere."""
    for name in files:
        if name != Path(name).name or name in ("", ".", ".."):
            raise ValueError(f"a shipped file has a plain name, got {name!r}")
    with whole_folder(folder) as temporary:
        for name, content in files.items():
            (temporary / name).write_bytes(content)


def listing(folder: Path) -> dict[str, int]:
    """Names (relative) and sizes in bytes of a model's files."""
    return {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    }


def fingerprint(folder: Path) -> str:
    """16 hex digits over all files of a model folder: whether a worker sees the driver's, or a whole copy.

    Weights count as in `lora_runner.base.weights_digest`, other files by name, size and first MiB.
    """
    digest = hashlib.sha256()
    for name, size in listing(folder).items():
        digest.update(json.dumps([name, size]).encode())
        if name.endswith(".safetensors"):
            with suppress(ValueError):  # not whole yet, or none
                for tensor, content in tensor_samples(folder / name):
                    digest.update(tensor.encode() + content)
                continue
        with (folder / name).open("rb") as file:
            digest.update(file.read(1 << 20))
    return digest.hexdigest()[:16]


class FileServer:
    """Takes in what workers send, and hands out what they need."""

    def __init__(self, run_folder: str) -> None:
        self._folder = Path(run_folder)
        self._attempts: dict[int, int] = {}

    def receive(self, number: int, attempt: int, name: str, files: Mapping[str, bytes]) -> str | None:
        """Write a trial's `checkpoint` or `adapter`; returns what is wrong with a disk that does not take it.

        Nothing is written for an attempt that another has replaced.
        """
        if name not in SHIPPED:
            raise ValueError(f"only {', '.join(SHIPPED)} are shipped, got {name!r}")
        if attempt < self._attempts.get(number, 0):
            return None
        self._attempts[number] = attempt
        try:
            write_folder(self._folder / trial_folder(number) / name, files)
        except OSError as error:
            # Not handed on as an error, which would end the worker and count against its trials.
            if not is_disk_trouble(error):
                raise
            return str(error)
        return None

    def checkpoints(self, number: int, attempt: int) -> dict[str, dict[str, bytes]]:
        """The checkpoint of a trial and the one before it, by folder name, as far as they are there."""
        self._attempts[number] = max(attempt, self._attempts.get(number, 0))
        folders = checkpoint_folders(self._folder / trial_folder(number))
        return {folder.name: read_folder(folder) for folder in folders if folder.is_dir()}

    def listing(self, folder: str) -> dict[str, int]:
        """Files of a model folder on the driver's machine."""
        return listing(Path(folder))

    def read(self, folder: str, name: str, offset: int) -> bytes:
        """A piece of one of them."""
        with (Path(folder) / name).open("rb") as file:
            file.seek(offset)
            return file.read(PIECE_BYTES)
