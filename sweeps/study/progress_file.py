"""`progress.json` in the run folder: what the driver of a running sweep knows, for `status` and `watch`.

The study alone has the reports; steps between them, speed and time left are in the keeper's memory. Readers
must not join its Ray, so the driver writes the whole status into this file every few seconds.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from files_and_text.atomic_files import atomic_write_json
from sweeps.study.lease import DriverProcess
from sweeps.study.status import Status, as_plain, from_plain

PROGRESS_FILE = "progress.json"
WRITE_SECONDS = 2.0
STALE_SECONDS = 15.0
"""A driver that has not written for this long is taken for gone, even where its process cannot be seen."""


def write_progress(run_folder: Path, status: Status, owner: DriverProcess) -> None:
    """Replace the file. An OSError of a full or unreachable disk is passed over: the sweep goes on."""
    with suppress(OSError):
        atomic_write_json(
            run_folder / PROGRESS_FILE,
            {"written_at": time.time(), "driver": asdict(owner), "status": as_plain(status)},
        )


def read_progress(run_folder: Path) -> Status | None:
    """What the driver wrote last; None when there is no file, it is old, or that driver has ended."""
    from pydantic import TypeAdapter  # only here: a study is read without it

    try:
        found = json.loads((run_folder / PROGRESS_FILE).read_text(encoding="utf-8"))
        owner = TypeAdapter(DriverProcess).validate_python(found["driver"])
        age = time.time() - found["written_at"]
        status = from_plain(found["status"])
    except (OSError, ValueError, TypeError, KeyError):  # absent, or of another version
        return None
    if owner.is_alive is False or abs(age) > STALE_SECONDS:
        return None
    return status


def remove_progress(run_folder: Path) -> None:
    """Nothing is running any more."""
    with suppress(OSError):
        (run_folder / PROGRESS_FILE).unlink(missing_ok=True)
