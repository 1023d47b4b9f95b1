"""What the watch page shows, read again when it is asked for, but never so often that a sweep feels it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from optuna.exceptions import OptunaError

from results.answer.read_answer import read_answer
from results.sweep_result import SweepResult, read_study
from results.verdict.verdict import verdict
from sweeps.console import shown_path
from sweeps.errors import RunFolderError, StorageUnreachable
from sweeps.loopback.report_page import has_report
from sweeps.progress.paused_trials import add_paused
from sweeps.storage.open_storage import STORAGE_ERRORS
from sweeps.study.progress_file import read_progress
from sweeps.study.read_status import read_status
from sweeps.study.status import Status

if TYPE_CHECKING:
    import optuna

    from results.answer.answer import Answer
    from sweeps.sweep import Sweep

State = Literal["not_started", "starting", "running", "stopping", "interrupted", "finished"]
LEAST_SECONDS = 1.5
"""The study is read at most this often."""
MOST_SHARE = 0.05
"""Share of one core that reading it may take."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A sweep at one moment."""

    name: str
    target: int
    run_folder: str
    """As on the command line."""
    state: State
    status: Status | None = None
    """From the driver while it works here, else from the study; None before there is one."""
    answer: Answer | None = None
    sweep: SweepResult | None = None
    has_report: bool = False
    problem: str = ""
    """Why the study cannot be read now; the rest is what was read last."""
    read_at: datetime | None = None
    """When the study was read last, local time."""

    @property
    def is_live(self) -> bool:
        """Whether a process works on the sweep."""
        return self.state in ("starting", "running", "stopping")


def pause_after(seconds: float) -> float:
    """How long the study is left alone after reading it took so many seconds."""
    return max(LEAST_SECONDS, seconds / MOST_SHARE)


class SnapshotReader:
    """Reads one sweep for all pages that are open; safe to be called from several threads."""

    def __init__(self, sweep: Sweep, *, pause: Callable[[float], float] = pause_after) -> None:
        """`pause`: seconds that reading took -> seconds until the study may be read again."""
        self._sweep = sweep
        self._pause = pause
        self._lock = threading.Lock()
        self._study: optuna.Study | None = None
        self._due = 0.0
        self._is_asked_to_stop = False
        folder = shown_path(sweep.run_folder)
        self._read = Snapshot(
            name=sweep.config.name, target=sweep.config.trials, run_folder=str(folder), state="not_started"
        )
        """What the study held when it was read last."""

    def snapshot(self) -> Snapshot:
        """The sweep now."""
        with self._lock:
            if time.monotonic() >= self._due:
                started = time.monotonic()
                self._read = self._read_study()
                self._due = time.monotonic() + self._pause(time.monotonic() - started)
            live = read_progress(self._sweep.run_folder)
            status = live or self._read.status
            state, written = self._state(live), has_report(self._sweep.run_folder)
            return replace(self._read, status=status, state=state, has_report=written)

    def stop_asked(self) -> None:
        """From here on the sweep is stopping, until no process works on it any more."""
        with self._lock:
            self._is_asked_to_stop = True

    def _state(self, live: Status | None) -> State:
        state = _state(self._read, live)
        self._is_asked_to_stop = self._is_asked_to_stop and state in ("starting", "running", "stopping")
        return "stopping" if self._is_asked_to_stop else state

    def _read_study(self) -> Snapshot:
        try:
            if self._study is None:
                self._study = self._sweep.study()
            now = read_status(self._study, self._read.target)
            status = add_paused(now, self._sweep.run_folder, self._read.run_folder)
            sweep = read_study(self._study)
            found = (
                verdict(sweep, self._sweep.replicates(), run_folder=self._sweep.run_folder)
                if sweep.started
                else None
            )
        except RunFolderError:
            # Not an outage: a sweep before its first trial has no study.
            return replace(self._read, status=None, answer=None, sweep=None, problem="")
        except StorageUnreachable as error:
            return self._unreadable(str(error))
        except (*STORAGE_ERRORS, OptunaError) as error:
            # Its own text may hold the URL with a password.
            return self._unreadable(f"the storage does not answer ({type(error).__name__})")
        answer = read_answer(sweep, found, run_folder=self._read.run_folder, target=self._read.target)
        return replace(
            self._read, status=status, answer=answer, sweep=sweep, problem="", read_at=datetime.now()
        )

    def _unreadable(self, problem: str) -> Snapshot:
        self._study = None
        return replace(self._read, problem=problem)


def _state(read: Snapshot, live: Status | None) -> State:
    status = live or read.status
    if status is None:
        return "not_started"
    if live is not None or status.is_live:
        if status.stopping:
            return "stopping"
        is_starting = bool(status.stages) and not status.running
        return "starting" if is_starting else "running"
    is_unfinished = status.has_work if read.answer is None else read.answer.run.is_unfinished
    return "interrupted" if is_unfinished else "finished"
