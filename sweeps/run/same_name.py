"""Another run folder that holds the sweep, as after it was renamed: a run would start from zero."""

from __future__ import annotations

import shlex
from pathlib import Path

from sweeps.config import RESOLVED_NAME, SweepConfig, load_sweep, storage_url
from sweeps.console import shown_path
from sweeps.errors import ConfigError
from sweeps.storage.journal_storage import journal_path
from sweeps.storage.open_storage import sqlite_file


def same_name_note(config: SweepConfig) -> str | None:
    """What to say before a first run when a run folder beside it holds a sweep of the same name."""
    own = config.run_folder
    if (own / RESOLVED_NAME).exists() or not own.parent.is_dir():
        return None
    found = [
        file.parent for file in own.parent.glob(f"*/{RESOLVED_NAME}") if _holds(file.parent, config.name)
    ]
    if not found:
        return None
    other = max(found, key=lambda folder: (folder / RESOLVED_NAME).stat().st_mtime)
    shown = shown_path(other)
    return (
        f"note: {shown} holds a sweep of the same name, {config.name!r}; this starts a new one in "
        f"{shown_path(own)}. To go on with that one: sweeps run {shlex.quote(str(shown))}"
    )


def _holds(folder: Path, name: str) -> bool:
    """Whether the folder is a run folder of the sweep `name` with its study inside."""
    try:
        config = load_sweep(folder, check_files=False)
    except ConfigError:
        return False
    url = storage_url(config.storage, config.run_folder)
    file = journal_path(url) or sqlite_file(url)
    return config.name == name and file is not None and file.is_file() and file.is_relative_to(folder)
