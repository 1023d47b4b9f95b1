"""The keeper as a Ray actor: patient with its storage, started anew by Ray when it dies.

Ray starts it again with the same arguments and repeats the calls that got no answer. That is why it opens the
study by itself when a call finds it closed, and why no call does anything twice (`keeper.py`).
"""

from __future__ import annotations

import contextlib
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from files_and_text.atomic_files import atomic_write
from sweeps.errors import LeaseLost, StartFailed, StartRefused, StudyHeld, SweepError
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.protocol import Reply
from sweeps.keeper.start_failures import FILE, StartFault, Starts, Verdict
from sweeps.plan.specs import StudySpec
from sweeps.storage.outages import is_outage, outage_reason
from sweeps.study.lease import DriverProcess
from sweeps.study.status import Status

LONGEST_WAIT_SECONDS = 5.0
_ABANDON = Reply(stop=True, abandon=True, over=True)


class KeeperActor:
    """Answers workers and the driver; a call that the storage refuses for now is to be made again."""

    def __init__(self, study_spec: StudySpec, secret: str, owner: DriverProcess) -> None:
        """Only remember: Ray hands errors of a method on with their type, but none of a constructor.

        `secret` is a private file that holds the storage's URL, which Ray would keep in its object store.
        """
        self._study_spec = study_spec
        self._secret = secret
        self._owner = owner
        self._opened: Keeper | None = None
        self._away_since: dict[int | None, float] = {}
        """Who is refused, worker or driver (None), and since when: a full disk may refuse reports alone."""
        self._refusals = 0
        self._starts = Starts()
        self._begun: set[int] = set()
        """Workers whose present life has said a word."""
        self._stopping = False
        self._lost = False
        self._errors: list[str] = []
        self._events: list[str] = []
        """The keeper's own and this actor's, in one list."""
        self._last_status: Status | None = None

    def open(self) -> None:
        """Become the keeper of the study; raises what `Keeper` raises."""
        self._keeper()

    def close(self) -> None:
        """Give the study's lease back."""
        if self._opened is not None and not self._lost:
            self._opened.close()

    # --- workers ----------------------------------------------------------------------------------

    def rejoin(self, worker: int, reason: str | None) -> Reply:
        self._begun.add(worker)
        # A worker whose start raised could not know that its next life would be told.
        known = None if reason is None else self._starts.last_words(worker)
        return self._answer("rejoin", worker, known or reason)

    def register(self, worker: int, *said: Any) -> Reply:
        self._starts.started(worker)
        return self._answer("register", worker, *said)

    def base_measured(self, worker: int, value: float) -> Reply:
        return self._answer("base_measured", worker, value)

    def ask(self, worker: int, seats: list[int]) -> Reply:
        return self._answer("ask", worker, seats)

    def report(self, worker: int, *said: Any) -> Reply:
        return self._answer("report", worker, *said)

    def prepare(self, worker: int, trials: int = 1) -> None:
        self._answer("prepare", worker, trials)

    def start_failed(self, worker: int, fault: StartFault, num_workers: int) -> Reply:
        """A worker could not load the base or the data: whether it stops, or tries once more."""
        verdict = self._starts.failed(worker, fault, num_workers)
        self._events.append(f"worker {worker}: could not start, {verdict.value}: {fault.said}")
        if verdict is Verdict.AGAIN:
            return Reply()
        if verdict is Verdict.GIVEN_UP:
            self._errors.append(f"worker {worker} cannot start: {fault.said}")
        else:
            with contextlib.suppress(OSError):
                atomic_write(Path(self._study_spec.run_folder) / FILE, fault.traceback)
            self.request_stop()
        is_last = self._opened is None or self._opened.is_without(worker)
        return Reply(stop=True, over=verdict is Verdict.OVER and is_last)

    def ended_early(self, worker: int, fault: StartFault, num_workers: int) -> Reply:
        """The driver heard that a worker ended before it had started: what becomes of it.

        One that told why itself has its answer, and so it has none here.
        """
        if worker in self._begun:
            self._begun.discard(worker)
            return Reply()
        if not fault.may_pass:
            return self.start_failed(worker, fault, num_workers)
        return self._answer("rejoin", worker, fault.said)

    # --- the driver -------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Let every worker checkpoint its trials and end, also while the storage is away."""
        self._stopping = True
        if self._opened is not None:
            self._opened.request_stop()

    def errors(self) -> list[str]:
        """Why the sweep could not go on, beside what no worker could start for."""
        return [*self._errors, *(self._opened.troubles if self._opened is not None else [])]

    def start_error(self) -> SweepError | None:
        """What no worker could start for, when that ended the sweep."""
        if self._starts.fatal is None:
            return None
        kind = StartRefused if self._starts.fatal.is_bad_input else StartFailed
        return kind(self._starts.described(Path(self._study_spec.run_folder)))

    def status(self, events_from: int = 0) -> Status | None:
        """A snapshot, the last known one while the storage is away; None before there is one."""
        status: Status | None
        try:
            status = self._keeper().status(events_from)
            self._back(None)
        except Exception as error:
            self._judge(error, None)
            status = self._last_status
        gave_up = self._stopping or self._lost
        if status is None:
            if not gave_up:
                return None
            status = Status(self._study_spec.name, self._study_spec.trials)
        self._last_status = status
        return replace(
            status,
            ending=status.ending or gave_up,
            events=self._events[events_from:],
            storage_away_seconds=self._away_seconds(),
        )

    # --- patience ---------------------------------------------------------------------------------

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
            reply = self._judge(error, worker)
            if reply.stop and self._opened is not None and method != "prepare":  # whose answer nobody hears
                reply = replace(reply, over=reply.over or self._opened.is_without(worker))
            return reply
        if method != "prepare":  # may have had nothing to write
            self._back(worker)
        return reply

    def _judge(self, error: Exception, caller: int | None) -> Reply:
        """What an error of the keeper means for whoever called: wait, or stop."""
        # Held: this actor was started anew, and found its study with another.
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
            return Reply(stop=True, unheard=True)
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
            return Reply(stop=True, unheard=True)
        return Reply(again_in=min(LONGEST_WAIT_SECONDS, 0.1 * 2.0 ** min(10, self._refusals)))

    def _back(self, caller: int | None) -> None:
        away = self._away_seconds()
        if self._away_since.pop(caller, None) is not None and not self._away_since:
            self._events.append(f"the storage is back after {away:.0f} s")

    def _away_seconds(self) -> float:
        return time.monotonic() - min(self._away_since.values()) if self._away_since else 0.0
