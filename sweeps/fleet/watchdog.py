"""A worker that hangs ends itself: in a kernel, a lock or a file system, where no exception ever comes."""

from __future__ import annotations

import contextlib
import faulthandler
import tempfile
from pathlib import Path
from typing import Any


class Watchdog:
    """Ends the process when a `with` block goes on for `seconds` without a call of `alive`.

    Python's own watchdog thread does it, in C and without the interpreter's lock, so it also ends a process
    that holds this lock for ever. Before that it writes down where every thread stood, and the worker's next
    life on this machine reads it.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._path = Path(tempfile.gettempdir()) / f"sweeps-{name}.stall"
        self._file: Any = None
        self._depth = 0

    def last_words(self) -> str | None:
        """Why an earlier process of this name ended itself; None when it did not. Read once."""
        try:
            stack = self._path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        self._path.unlink(missing_ok=True)
        where = [line.strip() for line in stack.splitlines() if line.strip().startswith("File ")]
        if not where:
            return None
        return f"no progress for {self._seconds:g} s, it stood at {where[0]}"

    def __enter__(self) -> Watchdog:
        self._depth += 1
        self.alive()
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            faulthandler.cancel_dump_traceback_later()

    def alive(self) -> None:
        """Something has been done: the time starts anew."""
        if self._depth == 0:
            return
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8")
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._file)

    def close(self) -> None:
        """Leave nothing behind."""
        faulthandler.cancel_dump_traceback_later()
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
