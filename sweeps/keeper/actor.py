"""The keeper as a Ray actor: it waits for a storage that is away, and Ray restarts it when it dies.

Ray restarts it with the same arguments and repeats the calls that got no answer. So the study is opened by
the first call that needs it, and every call may be made twice (`keeper.py`).
"""

from __future__ import annotations

import contextlib
import secrets
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from files_and_text.atomic_files import atomic_write
from sweeps.errors import LeaseLost, StartFailed, StartRefused, StudyHeld, SweepError
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.protocol import Reply
from sweeps.keeper.start_failures import START_ERROR_FILE, StartDecision, StartFailures, StartFault
from sweeps.plan.specs import StudySpec
from sweeps.progress.messages import WorkerProgress
from sweeps.storage.outages import is_outage, outage_reason
from sweeps.study.lease import DriverProcess
from sweeps.study.report import Report
from sweeps.study.status import Status

MAX_RETRY_SECONDS = 5.0
_ABANDON = Reply(stop=True, abandon=True, fleet_done=True)


class KeeperActor:
    """Answers workers and the driver; while the storage is away, callers are told to retry."""

    def __init__(self, study_spec: StudySpec, secret: str, owner: DriverProcess) -> None:
        """Opens nothing: Ray passes on the type of an error raised by a method, but not by a constructor.

        `secret`: a private file with the storage's URL; as an argument, Ray would keep it in its object
        store.
        """
        self._study_spec = study_spec
        self._life = secrets.token_hex(4)
        self._secret = secret
        self._owner = owner
        self._opened: Keeper | None = None
        self._away_since: dict[int | None, float] = {}
        """Caller (None: the driver) -> since when its calls fail; a full disk may fail reports only."""
        self._refusals = 0
        self._start_failures = StartFailures()
        self._has_called: set[int] = set()
        """Workers whose present process has called."""
        self._stopping = False
        self._lost = False
        self._errors: list[str] = []
        self._events: list[str] = []
        """The keeper's and this actor's."""
        self._last_status: Status | None = None

    def open(self) -> None:
        """Become the keeper of the study; raises what `Keeper` raises."""
        self._keeper()

    def close(self) -> None:
        """Release the study's lease."""
        if self._opened is not None and not self._lost:
            self._opened.close()

    # --- workers ----------------------------------------------------------------------------------

    def rejoin(self, worker: int, reason: str) -> Reply:
        self._has_called.add(worker)
        # The error of a failed start says more than the new process knows.
        return self._answer("rejoin", worker, self._start_failures.pop_last_error(worker) or reason)

    def give_back(self, worker: int, reason: str | None = None) -> Reply:
        return self._answer("give_back", worker, reason)

    def record_unquantized(self, worker: int, found: Any) -> Reply:
        return self._answer("record_unquantized", worker, found)

    def register(self, worker: int, *arguments: Any) -> Reply:
        return self._answer("register", worker, *arguments)

    def start_succeeded(self, worker: int) -> None:
        """A worker has completed its start: earlier failures no longer count."""
        self._start_failures.record_success(worker)

    def record_base_metric(self, worker: int, *arguments: Any) -> Reply:
        return self._answer("record_base_metric", worker, *arguments)

    def ask(self, worker: int, seats: list[int]) -> Reply:
        return self._answer("ask", worker, seats)

    def report(self, worker: int, *arguments: Any) -> Reply:
        return self._answer("report", worker, *arguments)

    def prefetch(self, worker: int, trials: int = 1) -> None:
        self._answer("prefetch", worker, trials)

    def note_progress(self, worker: int, progress: WorkerProgress) -> None:
        """A worker's progress between reports: no transaction, and nothing to do without a study."""
        if self._opened is not None:
            self._opened.progress.note(worker, progress)

    def report_start_failure(self, worker: int, fault: StartFault, num_workers: int) -> Reply:
        """A worker could not start. The reply tells it to stop, or else it is restarted."""
        decision = self._start_failures.record_failure(worker, fault, num_workers)
        self._events.append(f"worker {worker}: could not start, {decision.value}: {fault.message}")
        if decision is StartDecision.RETRY:
            return Reply()
        if decision is StartDecision.GIVE_UP:
            self._errors.append(f"worker {worker} cannot start: {fault.message}")
        else:
            with contextlib.suppress(OSError):
                atomic_write(Path(self._study_spec.run_folder) / START_ERROR_FILE, fault.traceback)
            self.request_stop()
        is_last = self._opened is None or self._opened.is_last_worker(worker)
        return Reply(stop=True, fleet_done=decision is StartDecision.END_SWEEP and is_last)

    def report_early_exit(self, worker: int, fault: StartFault, num_workers: int) -> Reply:
        """The driver learned from Ray that a worker ended before it could call.

        Does nothing if it has called: then it reported its error itself.
        """
        if worker in self._has_called:
            self._has_called.discard(worker)
            return Reply()
        if not fault.is_transient:
            return self.report_start_failure(worker, fault, num_workers)
        return self._answer("rejoin", worker, fault.message)

    # --- the driver -------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Make every worker checkpoint its trials and end, even while the storage is away."""
        self._stopping = True
        if self._opened is not None:
            self._opened.request_stop()

    def errors(self) -> list[str]:
        """Why the sweep could not go on, except for `start_error`."""
        return [*self._errors, *(self._opened.errors if self._opened is not None else [])]

    def start_error(self) -> SweepError | None:
        """The error that kept every worker from starting, if that ended the sweep."""
        if self._start_failures.fatal is None:
            return None
        kind = StartRefused if self._start_failures.fatal.is_bad_input else StartFailed
        return kind(self._start_failures.fatal_message(Path(self._study_spec.run_folder)))

    def reports(self, reports_from: int = 0) -> tuple[str, list[Report]]:
        """A random name of this process, and the reports it has recorded from this number on."""
        return self._life, [] if self._opened is None else self._opened.report_log.since(reports_from)

    def status(self, events_from: int = 0) -> Status | None:
        """A snapshot; while the storage is away the last one, or None if there is none."""
        status: Status | None
        try:
            status = self._keeper().status(events_from)
            self._storage_is_back(None)
        except Exception as error:
            self._handle(error, None)
            status = self._last_status
        is_ending = self._stopping or self._lost
        if status is None:
            if not is_ending:
                return None
            status = Status(self._study_spec.name, self._study_spec.trials)
        self._last_status = status
        return replace(
            status,
            ending=status.ending or is_ending,
            stopping=self._stopping,
            events=self._events[events_from:],
            storage_away_seconds=self._away_seconds(),
        )

    # --- storage outages --------------------------------------------------------------------------

    def _keeper(self) -> Keeper:
        if self._opened is None:
            url = Path(self._secret).read_text(encoding="utf-8")
            self._opened = Keeper(self._study_spec, url, self._owner, events=self._events)
            if self._stopping:
                self._opened.request_stop()
        return self._opened

    def _answer(self, method: str, worker: int, *arguments: Any) -> Reply:
        if self._lost:
            return _ABANDON
        try:
            reply = getattr(self._keeper(), method)(worker, *arguments) or Reply()
        except Exception as error:
            reply = self._handle(error, worker)
            if reply.stop and self._opened is not None and method != "prefetch":  # nobody waits for its reply
                reply = replace(reply, fleet_done=reply.fleet_done or self._opened.is_last_worker(worker))
            return reply
        if method != "prefetch":  # it may have written nothing
            self._storage_is_back(worker)
        return reply

    def _handle(self, error: Exception, caller: int | None) -> Reply:
        """The reply after an error of the keeper: retry, or stop."""
        # StudyHeld: this actor was restarted, and another keeper has the study.
        if isinstance(error, LeaseLost | StudyHeld):
            if not self._lost:
                self._errors.append(str(error))
            self._lost = True
            return _ABANDON
        if not is_outage(error):
            text = str(error) if isinstance(error, SweepError) else traceback.format_exc()
            if text not in self._errors:
                self._errors.append(text)
            self.request_stop()
            return Reply(stop=True, not_recorded=True)
        if not self._away_since:
            self._refusals = 0
            self._events.append(f"the storage is away, waiting for it: {outage_reason(error)}")
        self._refusals += 1
        away = time.monotonic() - self._away_since.setdefault(caller, time.monotonic())
        if self._stopping or away > self._study_spec.reliability.outage_seconds:
            if not self._stopping:
                self._errors.append(
                    f"the storage was away for {away:.0f} s (reliability.outage_seconds is "
                    f"{self._study_spec.reliability.outage_seconds:g}): {outage_reason(error)}"
                )
            self.request_stop()
            return Reply(stop=True, not_recorded=True)
        return Reply(retry_in_seconds=min(MAX_RETRY_SECONDS, 0.1 * 2.0 ** min(10, self._refusals)))

    def _storage_is_back(self, caller: int | None) -> None:
        away = self._away_seconds()
        if self._away_since.pop(caller, None) is not None and not self._away_since:
            self._events.append(f"the storage is back after {away:.0f} s")

    def _away_seconds(self) -> float:
        return time.monotonic() - min(self._away_since.values()) if self._away_since else 0.0
