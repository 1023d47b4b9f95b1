"""The file server: an actor on the driver's node for workers that do not see its files.

Workers need no shared file system. A worker that sees the run folder writes there itself. For others,
checkpoints and adapters travel through Ray's object store, as do the files of a base model that only the
driver has.
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
"""Of a model file in one reply."""
RUN_TOKEN_FILE = ".run"
"""In the run folder: a worker that reads the run's token there sees the driver's files."""
SHIPPED = (CHECKPOINT, ADAPTER)


def write_run_token(run_folder: Path, run: str) -> None:
    atomic_write(run_folder / RUN_TOKEN_FILE, run)


def sees_run_folder(run_folder: Path, run: str) -> bool:
    """Whether this machine sees the driver's run folder, not another of the same path."""
    try:
        return (run_folder / RUN_TOKEN_FILE).read_text(encoding="utf-8") == run
    except OSError:
        return False


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a flat folder."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write these files into `folder`, all or none. ValueError for a name that is not a plain file name."""
    for name in files:
        if name != Path(name).name or name in ("", ".", ".."):
            raise ValueError(f"a file name must be plain, without folders; got {name!r}")
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
    """16 hex digits over all files of a model folder, equal for the driver's and a complete copy of it.

    Weights count as in `lora_runner.base.weights_digest`, other files by name, size and first MiB.
    """
    digest = hashlib.sha256()
    for name, size in listing(folder).items():
        digest.update(json.dumps([name, size]).encode())
        if name.endswith(".safetensors"):
            with suppress(ValueError):  # incomplete, or no safetensors file
                for tensor, content in tensor_samples(folder / name):
                    digest.update(tensor.encode() + content)
                continue
        with (folder / name).open("rb") as file:
            digest.update(file.read(1 << 20))
    return digest.hexdigest()[:16]


class FileServer:
    """Receives trials' files from workers, and serves checkpoints and model files."""

    def __init__(self, run_folder: str) -> None:
        self._folder = Path(run_folder)
        self._attempts: dict[int, int] = {}

    def receive(self, number: int, attempt: int, name: str, files: Mapping[str, bytes]) -> str | None:
        """Write a trial's `checkpoint` or `adapter`; returns the disk's error, or None if it is written.

        Nothing is written for an attempt that a later one has replaced.
        """
        if name not in SHIPPED:
            raise ValueError(f"only {', '.join(SHIPPED)} are accepted, got {name!r}")
        if attempt < self._attempts.get(number, 0):
            return None
        self._attempts[number] = attempt
        try:
            write_folder(self._folder / trial_folder(number) / name, files)
        except OSError as error:
            # Returned: an exception would end the worker and count as a loss of its trials.
            if not is_disk_trouble(error):
                raise
            return str(error)
        return None

    def checkpoints(self, number: int, attempt: int) -> dict[str, dict[str, bytes]]:
        """A trial's checkpoints by folder name; later files of earlier attempts are refused."""
        self._attempts[number] = max(attempt, self._attempts.get(number, 0))
        folders = checkpoint_folders(self._folder / trial_folder(number))
        return {folder.name: read_folder(folder) for folder in folders if folder.is_dir()}

    def listing(self, folder: str) -> dict[str, int]:
        """Files of a model folder on the driver's machine."""
        return listing(Path(folder))

    def read(self, folder: str, name: str, offset: int) -> bytes:
        """A piece of one of these files."""
        with (Path(folder) / name).open("rb") as file:
            file.seek(offset)
            return file.read(PIECE_BYTES)
