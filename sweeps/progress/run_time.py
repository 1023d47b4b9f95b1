"""How long a sweep has run, over all of its runs and without the gaps between them; kept in the study."""

from __future__ import annotations

import time
from collections.abc import Callable

import optuna

from sweeps.study.read_status import RUN_SECONDS

WRITE_SECONDS = 5.0
"""What is killed has run for at most this much longer than the study says."""


class RunTime:
    """The time of one run, added to that of the runs before it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._before = self._written = 0.0

    def begin(self, seconds_ago: float, ran_before: float) -> None:
        """The run began `seconds_ago`, and earlier ones took `ran_before` seconds."""
        self._began = self._clock() - seconds_ago
        self._before = self._written = ran_before

    @property
    def seconds(self) -> float:
        """Over all runs."""
        return self._before + self._clock() - self._began

    def write(self, study: optuna.Study, *, is_end: bool = False) -> None:
        """Into the study, every few seconds and at the end; within a transaction."""
        if is_end or self.seconds - self._written >= WRITE_SECONDS:
            self._written = self.seconds
            study.set_user_attr(RUN_SECONDS, self._written)
