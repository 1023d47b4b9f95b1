"""The run folder: checking that it belongs to the sweep, and writing the resolved sweep file into it."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from files_and_text.atomic_files import atomic_write
from sweeps.config import RESOLVED_NAME, SweepConfig, load_sweep, resolved
from sweeps.errors import ConfigError, RunFolderError

DATA_FOLDER = "data"
"""Records that were given in Python, in files called by their content."""


def check_run_folder(config: SweepConfig, *, may_differ: bool = False) -> None:
    """Raises RunFolderError if the folder is another sweep's; `may_differ` allows another storage."""
    folder = config.run_folder
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"the run folder {folder} is a file")
    if not folder.is_dir() or all(_is_first_write(item) for item in folder.iterdir()):
        return
    kept = folder / RESOLVED_NAME
    if not kept.is_file():
        raise RunFolderError(
            f"the folder {folder} holds files but no {RESOLVED_NAME}, so it is not a run folder; choose "
            "another name or output"
        )
    try:
        theirs = load_sweep(kept, environ={}, check_files=False)
    except ConfigError as error:
        raise RunFolderError(f"the run folder {folder} holds a damaged {RESOLVED_NAME}:\n{error}") from None
    same = (theirs.name, theirs.model.name) == (config.name, config.model.name)
    if same and (may_differ or theirs.storage == config.storage):
        return
    move = f"; `sweeps move {folder} --to STORAGE` copies a study to another storage" if same else ""
    raise RunFolderError(
        f"the run folder {folder} belongs to another sweep (model {theirs.model.name!r}, storage "
        f"{theirs.storage!r}); give this one another name{move}"
    )


def _is_first_write(item: Path) -> bool:
    """Whether a run that was killed at its first writes may have left this in a new folder."""
    if item.name == DATA_FOLDER and item.is_dir():
        return all(fnmatch(file.name, "*-????????????.jsonl*") for file in item.iterdir())
    return fnmatch(item.name, f".{RESOLVED_NAME}.*.tmp")


def write_run_folder(config: SweepConfig) -> None:
    """Write the resolved config before anything starts, so that the folder alone can be run again.

    Records that were given in Python are written beside it, before it, once.
    """
    try:
        for path, content in config.unwritten.items():
            if not Path(path).is_file():
                atomic_write(Path(path), content)
        atomic_write(config.run_folder / RESOLVED_NAME, resolved(config))
    except OSError as error:
        raise RunFolderError(
            f"the run folder {config.run_folder} cannot be written: {error.strerror}"
        ) from error
