"""The worker: one Tune trainable on one GPU, whose pack trains many trials of the study one after another.

A Tune trial is a worker, not a trial of the study. Nothing is restored from Tune's own checkpoints: a
restarted worker asks the keeper for its trials, which resume from their own checkpoints.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import ray
from ray import tune

from lora_runner.errors import Fault, is_device_error, is_disk_trouble
from lora_runner.protocol import FAILED, Assignment, SeatReport
from sweeps.artifacts.worker_files import (
    RETRY_SECONDS,
    SharedFiles,
    ShippedFiles,
    StoreUnreachable,
    choose_worker_files,
)
from sweeps.fleet.endpoints import Endpoints
from sweeps.fleet.progress_reports import ProgressReports
from sweeps.fleet.training_session import SessionOpener, TrainingSession
from sweeps.fleet.watchdog import Watchdog
from sweeps.keeper.protocol import Reply, SeatTime
from sweeps.keeper.start_failures import StartFault
from sweeps.progress.messages import TURN_SECONDS
from sweeps.study.stages import Stages


class Worker(tune.Trainable):  # type: ignore[misc]  # Ray ships no types
    """Loads the base once and keeps its seats filled until the keeper has no more trials."""

    session: TrainingSession

    def setup(self, config: dict[str, Any], endpoints: Endpoints, worker_spec: SessionOpener) -> None:
        """Give trials of an earlier process back, load the base, measure it untouched, and fill the seats."""
        self.index = int(config["worker"])
        self.keeper = endpoints.keeper
        self._file_server = endpoints.file_server
        self._patience_seconds = endpoints.outage_seconds
        self._stopped = self._fleet_done = False
        self._last_reported: frozenset[int] = frozenset()
        """Trials of the last report."""
        self._notes: list[str] = []
        self._files: SharedFiles | ShippedFiles = SharedFiles()
        self._watchdog = Watchdog(f"{endpoints.run}-{self.index}", worker_spec.stall_seconds)
        self._progress = ProgressReports(
            send=lambda progress: self.keeper.note_progress.remote(self.index, progress),
            is_taken=lambda sent: bool(ray.wait([sent], timeout=0)[0]),
        )
        reply = self._call_keeper("rejoin", self._watchdog.pop_stall() or "its process died")
        if reply.stop:
            self._stopped = True
            return
        time.sleep(reply.pause_seconds)
        num_workers = int(config["workers"])
        try:
            self._open_session(endpoints, worker_spec, reply, num_workers)
            self._start_trials()
        except Exception as error:
            # The keeper decides whether another process may do better: it sees the failures of all workers.
            fault = StartFault.from_error(error)
            if hasattr(self, "session"):
                self._call_keeper("give_back", fault.message)
            if not self._call_keeper("report_start_failure", fault, num_workers).stop:
                raise
            self._stopped = True
            return
        self.keeper.start_succeeded.remote(self.index)

    def _open_session(
        self, endpoints: Endpoints, worker_spec: SessionOpener, reply: Reply, num_workers: int
    ) -> None:
        self._files = choose_worker_files(
            endpoints.run_folder,
            endpoints.run,
            self._call_file_server,
            worker=self.index,
            patience_seconds=endpoints.outage_seconds,
            store=None if endpoints.store is None else endpoints.store.of_study(reply.study_key),
        )
        # No trial reports while the base loads, so the sampler would know no more if it drew them later.
        self.keeper.prefetch.remote(self.index, worker_spec.seats)
        stages = Stages()
        with self._watchdog, self._progress.starting(stages):
            threads = max(1, len(os.sched_getaffinity(0)) // num_workers)
            how = (threads, self._call_file_server, self._watchdog.alive, stages)
            if reply.measure_unquantized:
                self._call_keeper("record_unquantized", worker_spec.measure_unquantized(*how))
            self.session = worker_spec.open_session(*how)
        self.session.heartbeat = self._after_work
        self._reported_at = time.monotonic()
        self._reported_tokens = 0
        self._busy_seat_seconds = 0.0

    def _start_trials(self) -> None:
        """Register the base, measure its metric if the study lacks it, and fill the seats.

        The reply to the registration fills all of them: a worker's start takes two calls that it waits for.
        """
        session = self.session
        reply = self._call_keeper(
            "register",
            session.base_eval_loss,
            session.base_weights,
            session.free_seats,
            session.compute_record,
            session.base_samples,
        )
        if not reply.stop and reply.measure_base:
            stages = Stages()
            with self._watchdog, self._progress.starting(stages), stages.stage("measuring the base"):
                value = session.measure_base()
            if value is None:
                reply = self._call_keeper("ask", session.free_seats)
            else:
                reply = self._call_keeper("record_base_metric", value, session.free_seats)
        self._apply(reply)

    def step(self) -> dict[str, Any]:
        """Train until a trial has something to report, and do what the keeper replies.

        All seats wait for the reply. If the others trained on meanwhile, the step at which a trial takes over
        a seat would depend on the keeper's speed, and so would the order of reports, what the sampler knows,
        and what the sweep finds.
        """
        if not self._stopped:
            self._train_and_report()
        return {"done": self._stopped or not self.session.trials, "fleet_done": self._fleet_done}

    def _train_and_report(self) -> None:
        num_trials, started = len(self.session.trials), time.monotonic()
        with self._watchdog:
            reports = self.session.advance(TURN_SECONDS)
        self._busy_seat_seconds += num_trials * (time.monotonic() - started)
        self._deliver_files()
        self._apply(self._report(reports))
        if not (self._stopped or self.session.trials):
            # Ask again: a reply that was lost may have assigned a trial to a seat that is free only now.
            self._apply(self._call_keeper("ask", self.session.free_seats))

    def _after_work(self) -> None:
        self._watchdog.alive()
        self._progress.training(self.session)

    # --- calls to the keeper and the file server --------------------------------------------------

    def _call_keeper(self, method: str, *arguments: Any) -> Reply:
        """Call the keeper, again and again while its storage is away."""
        while True:
            reply: Reply = ray.get(getattr(self.keeper, method).remote(self.index, *arguments))
            if reply.retry_in_seconds is None:
                self._fleet_done = reply.fleet_done
                return reply
            time.sleep(reply.retry_in_seconds)

    def _call_file_server(self, method: str, *arguments: Any) -> Any:
        answer = ray.get(getattr(self._file_server, method).remote(*arguments))
        self._watchdog.alive()  # many answers together may take long, as may a disk that is waited for
        return answer

    def _report(self, reports: list[SeatReport]) -> Reply:
        now = time.monotonic()
        elapsed = max(now - self._reported_at, 1e-9)
        speed = (self.session.num_tokens - self._reported_tokens) / elapsed
        seat_time = SeatTime(
            busy_seat_seconds=self._busy_seat_seconds,
            seat_seconds=elapsed * self.session.num_seats,
        )
        self._reported_at, self._reported_tokens = now, self.session.num_tokens
        self._busy_seat_seconds = 0.0
        notes, self._notes = [*self.session.take_notes(), *self._notes], []
        self._last_reported = frozenset(report.number for report in reports)
        return self._call_keeper("report", reports, self.session.free_seats, speed, seat_time, notes)

    def _report_notes(self) -> Reply:
        """Report notes only: no seat is offered, and no trial has got any further."""
        notes, self._notes, self._last_reported = self._notes, [], frozenset()
        return self._call_keeper("report", [], [], 0.0, None, notes)

    def _deliver_files(self) -> None:
        """Send what was written before the keeper gets the report that belongs to it."""
        for assignment, name in self.session.take_written():
            with self._watchdog:  # a store may hang
                self._notes += self._files.deliver(assignment, name)

    # --- seats ------------------------------------------------------------------------------------

    def _apply(self, reply: Reply) -> None:
        """Empty and fill seats; trials that could not be seated are reported, and that reply applied too."""
        while failed := self._apply_once(reply):
            reply = self._report(failed)

    def _apply_once(self, reply: Reply) -> list[SeatReport]:
        """Returns reports of trials that could not be seated."""
        for number in reply.freeze:
            if self.session.has_trial(number):
                with self._watchdog:
                    self.session.save(number)
        if reply.freeze:
            self._deliver_files()
        for number in (*reply.leave, *reply.freeze):
            if self.session.has_trial(number):
                self.session.remove(number)
        self._files.keep_only({trial.assignment.number for trial in self.session.trials})
        if reply.stop:
            self._stop(reply)
            return []
        if reply.start:
            # Not waited for: the keeper draws while this worker trains.
            self.keeper.prefetch.remote(self.index)
        failed, out_of_memory = list[SeatReport](), list[tuple[Assignment, Fault, bool]]()
        for placement in reply.start:
            local = self._fetch_checkpoints(placement.assignment)
            if isinstance(local, Reply):
                return self._apply_once(local)
            alone = not self.session.trials
            fault = self._start_trial(placement.seat, local)
            if fault is None:
                continue
            if fault.is_memory:
                out_of_memory.append((placement.assignment, fault, alone))
            else:
                empty = SeatReport.empty(placement.assignment)
                failed.append(empty.ended(FAILED, fault.reason, error=fault.traceback))
        # After all have been tried: where one does not fit, a smaller one may.
        for assignment, fault, alone in out_of_memory:
            empty = SeatReport.empty(assignment)
            report = self.session.report_out_of_memory(assignment, empty, fault.reason, alone=alone)
            failed.append(replace(report, error=fault.traceback))
        return failed

    def _stop(self, reply: Reply) -> None:
        """Checkpoint all trials, unless the study belongs to another sweep by now."""
        self._stopped = True
        if reply.abandon:
            return
        # A checkpoint behind a report that was not recorded would lose it: that trial resumes before it.
        skipped = self._last_reported if reply.not_recorded else frozenset()
        for trial in self.session.trials:
            if (number := trial.assignment.number) not in skipped:
                with self._watchdog:
                    self.session.save(number)
        self._deliver_files()

    def _fetch_checkpoints(self, assignment: Assignment) -> Assignment | Reply:
        """A trial with its files on this machine, or the keeper's reply to stop while their store is away.

        Raises StoreUnreachable when that takes too long: this process ends, and other workers get its trials.
        """
        since, was_noted = time.monotonic(), False
        while True:
            try:
                with self._watchdog:
                    return self._files.fetch_checkpoints(assignment)
            except StoreUnreachable as error:
                away = time.monotonic() - since
                is_too_long = away >= self._patience_seconds
                if is_too_long or not was_noted:
                    what = f"given up after {away:.0f} s" if is_too_long else "waiting"
                    self._notes.append(
                        f"trial {assignment.number}: its checkpoints cannot be reached, {what} ({error})"
                    )
                    was_noted = True
                if (reply := self._report_notes()).stop:
                    return reply
                if is_too_long:
                    self._call_keeper("give_back")
                    raise
            time.sleep(min(RETRY_SECONDS, self._patience_seconds))

    def _start_trial(self, seat: int, assignment: Assignment) -> Fault | None:
        """Seat a trial, or say why it could not be seated.

        A trial's own exception does not leave this method, not even in a report: its traceback would keep
        alive what the seat has allocated so far. Raises for a disk or a device that fails.
        """
        try:
            with self._watchdog:
                self.session.start_trial(seat, assignment)
        except Exception as error:
            if is_disk_trouble(error) or is_device_error(error):
                raise
            return Fault.of(error)
        return None

    # --- Tune -------------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """Leave no files behind."""
        self._watchdog.close()
        self._files.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: trials keep their own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the keeper says what to resume."""
