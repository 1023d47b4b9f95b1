"""Writing files and folders so that a crash leaves the old or the new state, never half of one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write `text` beside `path`, sync it, and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON; NaN and infinities as Python's JSON writes them."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Fill a temporary folder that becomes `target` when the block ends well.

    The previous `target` is kept as `<name>.previous` until the new one stands, so one of the two is always
    whole. What writers that were killed left behind is cleared away.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    previous = target.with_name(f"{target.name}.previous")
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        _sync_folder(temporary)
        if target.exists():
            # A `previous` beside a `target` was left by a crash; either may be the one that can be read.
            target.rename(target.with_name(f".{target.name}.old.tmp") if previous.exists() else previous)
        temporary.rename(target)
        _sync_folder(target.parent)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        for leftover in target.parent.glob(f".{target.name}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
