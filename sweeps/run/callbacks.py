"""Calls the functions of `sweep.run(callbacks=...)` with every report, in this process and in order."""

from __future__ import annotations

import contextvars
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from sweeps.study.report import Report

POLL_SECONDS = 0.5

Callback = Callable[[Report], object]


class StopSweep(Exception):
    """Raised by a callback to end the run as Ctrl-C does: trials are checkpointed, the next run goes on."""


class ReportFeed:
    """Asks a keeper for its reports in a thread, which calls the callbacks one report after another.

    A report is passed on once. Those from before this run are not passed on again. A keeper that was
    restarted has forgotten the reports of its last half second: they are in the study, and not passed on.
    """

    def __init__(
        self, callbacks: Sequence[Callback], say: Callable[[str], None], stop_wanted: threading.Event
    ) -> None:
        """`say` prints a line; `stop_wanted` is set when a callback raises `StopSweep`."""
        self._callbacks, self._say, self._stop_wanted = list(callbacks), say, stop_wanted
        self._life, self._seen = "", 0
        self._passed_on: set[tuple[int, int, str | None]] = set()
        self._has_failed: set[int] = set()

    @contextmanager
    def follow(self, ask: Callable[[int], tuple[str, list[Report]]]) -> Iterator[None]:
        """Pass on reports while the block runs, and at its end those that are left.

        `ask(n)` returns a name of the keeper's process and its reports from number n on.
        """
        if not self._callbacks:
            yield
            return
        over = threading.Event()

        def work() -> None:
            while not over.wait(POLL_SECONDS):
                self._poll(ask)
            self._poll(ask)

        # In the caller's context, so that what a callback prints in a notebook is shown under its cell.
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(work,), name="callbacks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _poll(self, ask: Callable[[int], tuple[str, list[Report]]]) -> None:
        # Any error of Ray: the keeper may be starting again, and the next question reaches it.
        with suppress(Exception):
            life, reports = ask(self._seen)
            if life != self._life and self._seen:
                life, reports = ask(0)
                self._seen = 0
            self._life, self._seen = life, self._seen + len(reports)
            for report in reports:
                self._pass_on(report)

    def _pass_on(self, report: Report) -> None:
        key = (report.trial, report.percent, report.outcome)
        if key in self._passed_on:
            return
        self._passed_on.add(key)
        for number, callback in enumerate(self._callbacks):
            try:
                callback(report)
            except StopSweep:
                self._stop_wanted.set()
            except Exception:
                if number not in self._has_failed:
                    self._has_failed.add(number)
                    name = getattr(callback, "__qualname__", type(callback).__name__)
                    text = traceback.format_exc().rstrip()
                    self._say(f"the callback {name} failed; the sweep goes on, this is said once:\n{text}")
