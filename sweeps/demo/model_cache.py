"""Models that are built on first use and kept in the user's cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from files_and_text.atomic_files import atomic_write_json, whole_folder

RECORD_NAME = "base.json"
"""Describes the build and lists the sizes of its files."""


def is_built(folder: Path) -> bool:
    """Whether `folder` holds every file that its record lists, in the listed size."""
    try:
        sizes = json.loads((folder / RECORD_NAME).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def build_once(folder: Path, fill: Callable[[Path], dict[str, Any]]) -> Path:
    """`folder`, filled by `fill` on first use.

    `fill` writes files into an empty folder and returns the description for the record. The folder appears
    complete or not at all; of two processes one builds and the other waits.
    """
    if is_built(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if is_built(folder):  # the other process was first
            return folder
        with whole_folder(folder) as work:
            described = fill(work)
            sizes = {path.name: path.stat().st_size for path in sorted(work.iterdir())}
            atomic_write_json(work / RECORD_NAME, {**described, "files": sizes})
    return folder
