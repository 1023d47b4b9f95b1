"""Ends a worker that hangs in a kernel, a lock or a file system, where no exception is ever raised."""

from __future__ import annotations

import contextlib
import faulthandler
import tempfile
from pathlib import Path
from typing import Any


class Watchdog:
    """Ends the process when a `with` block runs for `seconds` without a call of `alive`.

    It uses faulthandler's watchdog thread, which runs in C without the GIL, and so ends even a process that
    never releases it. The thread first writes all stacks to a file, which the worker's next process on this
    machine reads.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._path = Path(tempfile.gettempdir()) / f"sweeps-{name}.stall"
        self._file: Any = None
        self._depth = 0

    def pop_stall(self) -> str | None:
        """Where an earlier process of this name hung; None if none did. Given once."""
        try:
            stack = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        self._path.unlink(missing_ok=True)
        frames = [line.strip() for line in stack.splitlines() if line.strip().startswith("File ")]
        if not frames:
            return None
        return f"no progress for {self._seconds:g} s, it hung at {frames[0]}"

    def __enter__(self) -> Watchdog:
        self._depth += 1
        self.alive()
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            faulthandler.cancel_dump_traceback_later()

    def alive(self) -> None:
        """Something has been done: restart the timer."""
        if self._depth == 0:
            return
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8")
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._file)

    def close(self) -> None:
        """Stop the timer and remove the file."""
        faulthandler.cancel_dump_traceback_later()
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
