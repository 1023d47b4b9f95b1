"""The worker: one Tune trainable on one GPU, hosting a pack whose seats train many trials one after another.

Ray Tune keeps the fleet of workers; a Tune trial is a worker, not a trial of the study. Nothing is restored
from Tune's own checkpoints: a restarted worker asks the keeper, and seats go on from their own.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
from sweeps.fleet.watchdog import Watchdog
from sweeps.keeper.protocol import Reply, SeatTime
from sweeps.keeper.start_failures import StartFault
from sweeps.plan.specs import WorkerSpec

if TYPE_CHECKING:
    from sweeps.fleet.fleet import Endpoints

TURN_SECONDS = 5.0
"""Longest time between two words with the keeper, so that a stop is heard soon."""


class Worker(tune.Trainable):  # type: ignore[misc]  # Ray ships no types
    """Loads the base once and keeps its seats filled until the keeper has no more trials."""

    def setup(
        self,
        config: dict[str, Any],
        endpoints: Endpoints | None = None,
        worker_spec: WorkerSpec | None = None,
    ) -> None:
        """Load the base, measure it untouched, and take back the trials of an earlier life."""
        assert endpoints is not None
        assert worker_spec is not None
        self.index = int(config["worker"])
        self.keeper = endpoints.keeper
        self._depot = endpoints.file_server
        self._patience_seconds = endpoints.outage_seconds
        self._stopped = self._over = False
        self._said: frozenset[int] = frozenset()
        """Trials of the last report."""
        self._notes: list[str] = []
        self.session: Any = None
        self._files: SharedFiles | ShippedFiles = SharedFiles()
        self._watch = Watchdog(f"{endpoints.run}-{self.index}", worker_spec.stall_seconds)
        before = self._watch.last_words()
        reply = self._say("rejoin", "its process died" if before is None else before)
        if reply.stop:
            self._stopped = True
            return
        time.sleep(reply.pause_seconds)
        num_workers = int(config["workers"])
        try:
            self._files = self._find_files(endpoints, reply.study_key)
            # Nothing that could be learned before these trials are drawn: the base takes its time to load.
            self.keeper.prefetch.remote(self.index, worker_spec.seats)
            with self._watch:
                threads = max(1, len(os.sched_getaffinity(0)) // num_workers)
                self.session = worker_spec.open_session(threads, self._fetch, self._watch.alive)
        except Exception as error:
            # Whether another process might do better is for the keeper to say, who hears of all workers.
            if not self._say("report_start_failure", StartFault.from_error(error), num_workers).stop:
                raise
            self._stopped = True
            return
        self.session.heartbeat = self._watch.alive
        self._last_words = time.monotonic()
        self._last_tokens = 0
        self._busy_seat_seconds = 0.0
        reply = self._say("register", self.session.base_eval_loss, self.session.base_weights)
        if not reply.stop and reply.measure_base:
            reply = self._measure_base()
        if reply.stop:
            self._stopped = True
            return
        self._follow(self._say("ask", self.session.free_seats))
        self.keeper.start_succeeded.remote(self.index)

    def step(self) -> dict[str, Any]:
        """Train until a trial has something to report, and let the keeper answer.

        All seats wait for the answer. If the others trained on meanwhile, the step at which a trial takes
        over a seat would depend on how fast the keeper is, and with it which trial reports first, what the
        sampler knows, and so what a sweep finds.
        """
        if self._stopped:
            return {"done": True, "running": 0, "num_tokens": 0, "over": self._over}
        taken, started = len(self.session.trials), time.monotonic()
        with self._watch:
            reports = self.session.advance(TURN_SECONDS)
        self._busy_seat_seconds += taken * (time.monotonic() - started)
        self._deliver()
        self._follow(self._exchange(reports))
        if not (self._stopped or self.session.trials):
            # Asked once more: an answer that was lost may have given a trial to a seat that is free only now.
            self._follow(self._say("ask", self.session.free_seats))
        done = self._stopped or not self.session.trials
        return {
            "done": done,
            "running": len(self.session.trials),
            "num_tokens": self.session.num_tokens,
            "over": self._over,
        }

    def _measure_base(self) -> Reply:
        with self._watch:
            value = self.session.measure_base()
        return Reply() if value is None else self._say("record_base_metric", value)

    def _find_files(self, endpoints: Endpoints, study_key: str) -> SharedFiles | ShippedFiles:
        return choose_worker_files(
            endpoints.run_folder,
            endpoints.run,
            self._fetch,
            worker=self.index,
            patience_seconds=endpoints.outage_seconds,
            store=None if endpoints.store is None else endpoints.store.of_study(study_key),
        )

    # --- the keeper and the depot ----------------------------------------------------------------------

    def _say(self, method: str, *said: Any) -> Reply:
        """Call the keeper, again and again while its storage is away."""
        while True:
            reply: Reply = ray.get(getattr(self.keeper, method).remote(self.index, *said))
            if reply.retry_in_seconds is None:
                self._over = reply.fleet_done
                return reply
            time.sleep(reply.retry_in_seconds)

    def _fetch(self, method: str, *arguments: Any) -> Any:
        answer = ray.get(getattr(self._depot, method).remote(*arguments))
        self._watch.alive()  # many answers may take long together, and so may a disk that is waited for
        return answer

    def _exchange(self, reports: list[SeatReport]) -> Reply:
        now = time.monotonic()
        elapsed = max(now - self._last_words, 1e-9)
        speed = (self.session.num_tokens - self._last_tokens) / elapsed
        seats = SeatTime(
            busy_seat_seconds=self._busy_seat_seconds,
            seat_seconds=elapsed * self.session.num_seats,
        )
        self._last_words, self._last_tokens = now, self.session.num_tokens
        self._busy_seat_seconds = 0.0
        notes, self._notes = [*self.session.take_notes(), *self._notes], []
        self._said = frozenset(report.number for report in reports)
        return self._say("report", reports, self.session.free_seats, speed, seats, notes)

    def _say_no_more_than_notes(self) -> Reply:
        """No seat is free for the keeper to fill, and no trial has got any further."""
        notes, self._notes, self._said = self._notes, [], frozenset()
        return self._say("report", [], [], 0.0, None, notes)

    def _deliver(self) -> None:
        """What has been written travels to the driver before it hears the report that goes with it."""
        for assignment, name in self.session.take_written():
            with self._watch:  # a store may hang
                self._notes += self._files.deliver(assignment, name)

    def _follow(self, reply: Reply) -> None:
        """Empty and fill seats as the keeper said, and go on with its answer to what found no seat."""
        while broken := self._fill(reply):
            reply = self._exchange(broken)

    def _fill(self, reply: Reply) -> list[SeatReport]:
        """Reports of trials that could not be seated."""
        for number in reply.leave:
            if self.session.has_trial(number):
                self.session.remove(number)
        self._files.keep_only({running.assignment.number for running in self.session.trials})
        if reply.stop:
            if not reply.abandon:
                # A trial whose last report was not recorded goes on from before it, and makes it again.
                not_recorded = self._said if reply.not_recorded else frozenset()
                for running in self.session.trials:
                    if (number := running.assignment.number) not in not_recorded:
                        with self._watch:
                            self.session.save(number)
                self._deliver()
            self._stopped = True
            return []
        if reply.start:
            # Not waited for: the keeper draws while this worker trains, and before it answers it again.
            self.keeper.prefetch.remote(self.index)
        broken, too_large = list[SeatReport](), list[tuple[Assignment, Fault, bool]]()
        for placed in reply.start:
            local = self._localised(placed.assignment)
            if isinstance(local, Reply):
                return self._fill(local)
            alone = not self.session.trials
            failure = self._place(placed.seat, local)
            if failure is None:
                continue
            if failure.is_memory:
                too_large.append((placed.assignment, failure, alone))
            else:
                empty = SeatReport.empty(placed.assignment)
                broken.append(empty.ended(FAILED, failure.reason, error=failure.traceback))
        # After all have been tried: where one does not fit, a smaller one may.
        for assignment, failure, alone in too_large:
            empty = SeatReport.empty(assignment)
            report = self.session.report_out_of_memory(assignment, empty, failure.reason, alone=alone)
            broken.append(replace(report, error=failure.traceback))
        return broken

    def _localised(self, assignment: Assignment) -> Assignment | Reply:
        """A trial with its files on this machine, or the keeper's word to stop while their store is away.

        Raises StoreUnreachable when that takes too long: this process ends, and what it had goes to other
        workers.
        """
        since, was_said = time.monotonic(), False
        while True:
            try:
                with self._watch:
                    return self._files.fetch_checkpoints(assignment)
            except StoreUnreachable as error:
                away = time.monotonic() - since
                is_too_long = away >= self._patience_seconds
                if is_too_long or not was_said:
                    what = f"given up after {away:.0f} s" if is_too_long else "waiting"
                    self._notes.append(
                        f"trial {assignment.number}: its checkpoints cannot be reached, {what} ({error})"
                    )
                    was_said = True
                if (reply := self._say_no_more_than_notes()).stop:
                    return reply
                if is_too_long:
                    self._say("rejoin", None)
                    raise
            time.sleep(min(RETRY_SECONDS, self._patience_seconds))

    def _place(self, seat: int, assignment: Assignment) -> Fault | None:
        """Seat a trial, or say why it could not be seated.

        No exception leaves this method, not even inside a report: its traceback would hold what the seat has
        allocated so far, and nobody could use that memory.
        """
        try:
            with self._watch:
                self.session.start_trial(seat, assignment)
        except Exception as error:
            if is_disk_trouble(error) or is_device_error(error):
                raise  # this machine's
            return Fault.of(error)  # the trial's own, not the worker's: its neighbours go on
        return None

    def cleanup(self) -> None:
        """The worker ends by itself."""
        self._watch.close()
        self._files.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: seats keep their own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the keeper says what goes on."""
