"""Keeps the run folder's `progress.json` up to date while a sweep runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sweeps.study.lease import DriverProcess
from sweeps.study.progress_file import WRITE_SECONDS, remove_progress, write_progress
from sweeps.study.stages import Stages
from sweeps.study.status import Stage, Status

KEPT_EVENTS = 50
STARTING = "starting the workers"


class ProgressWriter:
    """Passes on what a keeper says, and writes it into the run folder every few seconds until closed.

    `ask(n)` returns the present status with its events from number n on.
    """

    def __init__(
        self,
        ask: Callable[[int], Status | None],
        run_folder: Path,
        owner: DriverProcess,
        stages: Stages,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._run_folder, self._owner, self._stages = ask, run_folder, owner, stages
        self._clock = clock
        self._began = clock()
        self._next = 0.0
        self._has_worked = False
        self._events: deque[str] = deque(maxlen=KEPT_EVENTS)
        self._life = ""

    def __call__(self, events_from: int) -> Status | None:
        """The keeper's answer, with a stage for the time before the first worker says anything."""
        status = self._ask(events_from)
        if status is None:
            return None
        self._has_worked = self._has_worked or bool(status.stages or status.running)
        if not self._has_worked and not status.ending:
            status.stages = [Stage(name=STARTING, seconds=self._clock() - self._began)]
        if status.life != self._life:
            self._life = status.life
            self._events.clear()
        elif events_from == 0:
            self._events.clear()  # all of them are in the answer
        self._events += status.events
        if self._clock() >= self._next:
            self._next = self._clock() + WRITE_SECONDS
            stages = [*self._stages.now(), *status.stages]
            shown = replace(status, stages=stages, events=list(self._events))
            write_progress(self._run_folder, shown, self._owner)
        return status

    def close(self) -> None:
        """Nothing is running any more."""
        remove_progress(self._run_folder)
