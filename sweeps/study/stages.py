"""What a start is doing now, while there is no training to show yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from sweeps.study.status import Stage


class SetDone(Protocol):
    """Says how much of a stage is done."""

    def __call__(self, done: float, total: float | None = ..., /) -> None: ...


@dataclass
class _Open:
    name: str
    total: float | None
    unit: str
    began: float
    done: float = 0.0


class Stages:
    """The stages that are open in this process; may be read from another thread.

    `begun` is called with each stage as it begins, for those who print a line instead of drawing.
    """

    def __init__(
        self, begun: Callable[[Stage], None] = lambda _: None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.begun = begun
        self._clock = clock
        self._open: list[_Open] = []
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str, *, total: float | None = None, unit: str = "") -> Iterator[SetDone]:
        """A stage that lasts as long as the block, which says how much of how much is done, if it knows."""
        mine = _Open(name, total, unit, self._clock())

        def set_done(done: float, total: float | None = total) -> None:
            mine.done, mine.total = done, total

        with self._lock:
            self._open.append(mine)
        self.begun(self._snapshot(mine))
        try:
            yield set_done
        finally:
            with self._lock:
                self._open.remove(mine)

    def now(self) -> list[Stage]:
        """The open stages, the first begun first."""
        with self._lock:
            return [self._snapshot(stage) for stage in self._open]

    def _snapshot(self, stage: _Open) -> Stage:
        seconds = self._clock() - stage.began
        return Stage(name=stage.name, done=stage.done, total=stage.total, unit=stage.unit, seconds=seconds)
