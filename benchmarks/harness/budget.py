"""The time that a benchmark may take: what no longer fits is left out, and its table says so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """Seconds from now on; None is no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.longest = 0.0
        """Seconds of the longest measurement so far."""
        self._started = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def allows(self, expected: float | None = None) -> bool:
        """Whether a measurement would end in time that takes `expected` seconds, by default the longest's."""
        expected = self.longest if expected is None else expected
        return self.seconds is None or self.spent + expected <= self.seconds

    @contextmanager
    def measurement(self) -> Iterator[None]:
        """The block is one measurement."""
        before = self.spent
        try:
            yield
        finally:
            self.longest = max(self.longest, self.spent - before)

    @property
    def left_out(self) -> str:
        """What a table says of a measurement that was not made."""
        return f"left out, {self.seconds:g} s were over"
