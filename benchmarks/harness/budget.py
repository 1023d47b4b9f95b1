"""The time that a benchmark may take: what no longer fits is left out, and its table says so."""

from __future__ import annotations

import time


class Budget:
    """Seconds from now on; None is no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._started = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def allows(self, expected: float = 0.0) -> bool:
        """Whether a measurement of which `expected` seconds are known would end in time."""
        return self.seconds is None or self.spent + expected < self.seconds

    @property
    def left_out(self) -> str:
        """What a table says of a measurement that was not made."""
        return f"left out, {self.seconds:g} s were over"
