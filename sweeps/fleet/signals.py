"""Ctrl-C and SIGTERM while a fleet runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_signals(stop_wanted: threading.Event) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: ask for a clean end. Second: end at once; the next run resumes the trials."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop_wanted.is_set():
            raise KeyboardInterrupt
        stop_wanted.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
