"""The keeper: alone writes to the study, hands out trials, and decides which go on.

Workers ask it for trials, report to it, and rejoin after a restart. It runs as a Ray actor beside the driver
(`actor.py`), and as a plain object in tests. It imports no torch. Every call is one transaction that begins
by renewing the lease: a keeper that dies, or has lost the study to another, has done all of a call or
nothing. So a worker that got no answer may repeat any call.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from lora_runner.protocol import FAILED, PUT_BACK, BaseSamples, ComputeRecord, SeatReport, UnquantizedBase
from sweeps.artifacts.checkpoint_store import CheckpointCleaner
from sweeps.keeper.freezer import Freezer
from sweeps.keeper.protocol import Reply, SeatAssignment, SeatTime
from sweeps.keeper.pruning import final_report
from sweeps.keeper.recorder import Recorder, RunStart
from sweeps.keeper.recovery import recover_trials
from sweeps.keeper.retry_queue import RetryQueue, is_suspect
from sweeps.keeper.seats import (
    assign_seat,
    current_reports,
    frozen_before,
    frozen_trials,
    trials_of_run,
    trials_without_seat,
)
from sweeps.keeper.sources.replicate_source import trial_source_for
from sweeps.keeper.sources.tail_source import TailReplicates
from sweeps.keeper.unquantized_base import UnquantizedMeasurement
from sweeps.keeper.worker_registry import MAX_FUTILE_STARTS, WorkerRegistry, restart_pause
from sweeps.plan.specs import StudySpec
from sweeps.progress.live_progress import LiveProgress
from sweeps.progress.run_time import RunTime
from sweeps.storage.cached_storage import CachedStorage
from sweeps.storage.open_storage import open_storage
from sweeps.storage.optuna_private import study_id_of
from sweeps.study.base_check import BASE_METRIC, base_difference, record_base
from sweeps.study.compute_paths import record_compute_path
from sweeps.study.home_folder import record_home
from sweeps.study.lease import DriverProcess, HeldLease, wait_until_free
from sweeps.study.pruners import make_pruner
from sweeps.study.read_status import never_pruned, read_status, used_shares
from sweeps.study.report import ReportLog
from sweeps.study.status import Status
from sweeps.study.study import find_study, open_study, study_key_of


class Keeper:
    """Draws trials, records what becomes of them, and decides which go on.

    `owner` is the driver that it works for; a keeper restarted for the same run leaves trials on their seats.
    Raises StorageUnreachable, StudyMismatch or StudyHeld when the study cannot be used, and
    LeaseLost from any call when another keeper has taken it over.
    """

    def __init__(
        self,
        study_spec: StudySpec,
        storage_url: str,
        owner: DriverProcess | None = None,
        events: list[str] | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study_spec = study_spec
        self.owner = owner or DriverProcess.current(secrets.token_hex(8))
        self.folder = Path(study_spec.run_folder)
        self._started = time.monotonic()
        self._process_id = secrets.token_hex(4)
        self._stopping = False
        self._run_time = RunTime()
        self.progress = LiveProgress(
            study_spec.search,
            study_spec.report_at,
            study_spec.pruning_percents,
            is_confirm=study_spec.replicates is not None,
        )
        self._events = [] if events is None else events
        self._note = self._events.append
        self.errors: list[str] = []
        """Errors that may keep the sweep from finishing."""
        self.report_log = ReportLog()
        self._workers = WorkerRegistry()
        self._unquantized = UnquantizedMeasurement(study_spec.measure_unquantized, self._note)
        self._storage = open_storage(storage_url)
        self._cleaner: CheckpointCleaner | None = None
        self._run_start = RunStart(seconds_ago=0.0, num_finished=0, num_failed=0, is_new=True)
        self._open()

    # --- the study --------------------------------------------------------------------------------

    def _open(self) -> None:
        """Take the study over, and record what the trials' folders hold that it lacks."""
        name = self.study_spec.name
        known = find_study(self._storage, name)
        found = None
        if known is not None:
            seconds = self.study_spec.reliability.lease_seconds
            found = wait_until_free(known, self.owner, seconds=seconds)
        with self._storage.transaction():
            study, is_new = open_study(CachedStorage(self._storage), name, self.study_spec.identity)
            self._held_lease = HeldLease(study_id_of(study), name, self.owner, found)
            lease = self._held_lease.renew(self._storage)
            self._use_study(study)
            if is_new:
                self._recorder.describe_study()
            self._source.enqueue_first_trials()
            record_home(study, self.folder)
            self._run_start = self._recorder.start_run(self.owner.run)
            self._source.num_failed_before = self._run_start.num_failed
            self._started -= self._run_start.seconds_ago
            self._run_time.begin(self._run_start.seconds_ago, self._run_start.ran_before)
            self._source.requeue_prefetched()
            if self._run_start.is_new:
                self._source.retry_failed()
                if (warning := self.study_spec.pruning_warning) is not None:
                    self._note(f"warning: {warning}")
            # Trials of this run are on their seats: only the keeper was restarted.
            self._recover(self._interrupted())
            if not self._freezer.is_on:  # the sweep file asks for another pruner than before
                self._freezer.end_all()
            self._end_if_over()
            self._workers.active = {trial.user_attrs["worker"] for trial in self._ours()}
        self._held_lease.committed(lease)
        self._recorder.remove_leftovers(self.study.get_trials(deepcopy=False))

    def close(self) -> None:
        """Release the lease, so that the next sweep need not wait for it to expire."""
        dropped = []
        with self._storage.transaction():
            if self._held_lease.release(self._storage):
                self._run_time.write(self.study, is_end=True)
                if not self._search_goes_on():
                    dropped = self._tail.drop()
        self._recorder.remove_leftovers(dropped)
        if self._cleaner is not None:
            self._cleaner.finish()

    def leave(self) -> None:
        """`close`, and close the storage: for a keeper that does not run in a process of its own."""
        self.close()
        self._storage.close()

    def _use_study(self, study: optuna.Study) -> None:
        self.study = study
        spec = self.study_spec
        self.study.pruner = make_pruner(spec.search, spec.report_at, spec.first_pruning_percent, spec.space)
        self._source = trial_source_for(self.study_spec, study, self._note)
        self._source.num_failed_before = self._run_start.num_failed
        self._tail = TailReplicates(self.study_spec, study, self._source.record, self._note)
        if self._cleaner is None and (store := self.study_spec.checkpoint_store()) is not None:
            self._cleaner = CheckpointCleaner(store.of_study(study_key_of(study)))
        self._recorder = Recorder(self.study_spec, study, self._note, self._cleaner)
        self._retry_queue = RetryQueue(study, (), self._note)
        self._freezer = Freezer(self.study_spec, study, self._recorder, self._note)
        self._final_report = partial(final_report, study, self.study_spec)
        self._stale = False

    def _refresh(self) -> None:
        if self._stale:
            storage = CachedStorage(self._storage)
            self._use_study(optuna.load_study(storage=storage, study_name=self.study_spec.name))
            # From the study, not from memory: a commit without an answer may have succeeded or not.
            numbers = [trial.number for trial in self._interrupted()]
            self._retry_queue = RetryQueue(self.study, numbers, self._note)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One transaction of the study; if it fails, what this object counted meanwhile is undone too."""
        self._refresh()
        num_events, futile_starts = len(self._events), dict(self._workers.futile_starts)
        try:
            with self._storage.transaction():
                lease = self._held_lease.renew(self._storage)
                self._run_time.write(self.study)
                yield
        except BaseException:
            self._workers.futile_starts = futile_starts
            del self._events[num_events:]
            self._stale = True  # the cache holds values that were rolled back
            raise
        self._held_lease.committed(lease)
        if ended := self._freezer.take_ended():
            self._recorder.remove_leftovers(trial for trial, _ in ended)
            self.report_log.add(self.study, ((trial, last) for trial, last in ended if last is not None))

    # --- calls of workers -----------------------------------------------------------------------

    def rejoin(self, worker: int, reason: str = "its process died") -> Reply:
        """A worker (re)starts: its unfinished trials go back to the head of the retry queue.

        `reason`: why its previous process ended. The reply says how long to wait before loading the base, or
        to stop after too many starts.
        """
        with self._transaction():
            lost, num_failed = self._take_trials(worker, reason)
            starts = self._workers.count_start(worker)
            if starts >= MAX_FUTILE_STARTS:
                error = f"worker {worker}: given up, it died {starts} times in a row before any report"
                self._note(f"{error} ({reason})")
                self.errors.append(f"{error}; the last time: {reason}")
                return self._no_work(worker, stop=True)
        self._recorder.remove_leftovers(lost)
        pause = 0.0 if num_failed else restart_pause(starts)
        if self._is_ending() or not self._has_more():
            return self._no_work(worker, stop=True)
        self._workers.active.add(worker)
        measure = False
        if self._unquantized.is_due(self.study):
            with self._transaction():
                measure = self._unquantized.hand_out(self.study, worker)
        return Reply(pause_seconds=pause, study_key=study_key_of(self.study), measure_unquantized=measure)

    def record_unquantized(self, worker: int, found: UnquantizedBase) -> Reply:
        """Record the loss of the base without quantization, or why it was not measured."""
        with self._transaction():
            self._unquantized.record(self.study, worker, found)
        return Reply()

    def give_back(self, worker: int, reason: str | None = None) -> Reply:
        """Queue the trials of a worker that is about to end; without a `reason` they are not to blame."""
        with self._transaction():
            lost, _ = self._take_trials(worker, reason)
        self._recorder.remove_leftovers(lost)
        return self._no_work(worker, stop=True)

    def _take_trials(self, worker: int, reason: str | None) -> tuple[list[FrozenTrial], int]:
        """The trials that a worker had, and how many of them have failed for losing too many workers."""
        lost = self._on(worker)
        self._freezer.has_left(worker)
        self.progress.forget_worker(worker, f"worker {worker} was lost" if lost else None)
        for trial in lost:
            self._note(f"trial {trial.number}: lost its worker {worker} ({reason or 'not its fault'})")
        return lost, self._recover(lost, lost_because=reason)

    def prefetch(self, worker: int, trials: int = 1) -> None:
        """Draw trials until `trials` are ready for this worker, so that its next report need not wait.

        Workers call this without waiting for it. One transaction per trial.
        """
        wanted = self._workers.request_prefetch(worker, trials)
        self._refresh()
        while (
            not self._is_ending() and len(self._retry_queue.numbers) + len(self._source.prefetched()) < wanted
        ):
            with self._transaction():
                if self._source.draw() is None:
                    return

    def register(
        self,
        worker: int,
        base_eval_loss: float,
        weights: str | None = None,
        seats: Sequence[int] | None = None,
        compute: ComputeRecord | None = None,
        samples: BaseSamples | None = None,
    ) -> Reply:
        """Record the untouched base's loss and samples, the digest of its weights, how the worker computes.

        Then fill `seats` as `ask` does, but none before the base's metric is known. A worker whose base is
        not the study's is told to stop.
        """
        with self._transaction():
            known = self.study.user_attrs
            dtype = str(self.study_spec.context.get("compute_dtype"))
            other = base_difference(
                known, weights=weights, base_eval_loss=base_eval_loss, compute_dtype=dtype
            )
            if other is not None:
                error = f"worker {worker} has a base with the same name but other weights: {other}"
                self._note(error)
                self.errors.append(error)
                return self._no_work(worker, stop=True)
            record_base(self.study, base_eval_loss, weights, samples)
            self._note(f"worker {worker}: ready, untouched base {base_eval_loss:.4f}")
            if compute is not None:
                record_compute_path(self.study, self.folder, worker, compute, self._note)
            if self.study_spec.metric is not None and known.get(BASE_METRIC) is None:
                return Reply(measure_base=True)
            return Reply() if seats is None else self._fill(worker, seats)

    def record_base_metric(self, worker: int, value: float, seats: Sequence[int] | None = None) -> Reply:
        """Record the metric of the untouched base, and fill `seats` as `ask` does.

        The first worker's value counts.
        """
        with self._transaction():
            if self.study.user_attrs.get(BASE_METRIC) is None:
                assert self.study_spec.metric is not None
                self.study.set_user_attr(BASE_METRIC, value)
                self._note(f"worker {worker}: untouched base, {self.study_spec.metric.name} {value:.4f}")
            return Reply() if seats is None else self._fill(worker, seats)

    def ask(self, worker: int, seats: Sequence[int]) -> Reply:
        """Trials for free seats: interrupted ones first, then frozen ones that may win, then new ones."""
        with self._transaction():
            self._freezer.has_left(worker)
            return self._fill(worker, seats)

    def report(
        self,
        worker: int,
        reports: Sequence[SeatReport],
        free: Sequence[int],
        speed: float,
        seat_time: SeatTime | None = None,
        notes: Sequence[str] = (),
    ) -> Reply:
        """Record the reports of one pack together, decide which trials go on, and fill the free seats.

        All values are in the study before the first decision, so that every trial is compared with its
        neighbours. `free` are the worker's empty seats, `speed` its tokens per second. A report of a trial
        that has ended, or was given to another seat, is not recorded; that trial is told to leave.
        """
        self._workers.set_speed(worker, speed)
        self._refresh()
        before = current_reports(self.study, reports, self._retry_queue.numbers)
        dropped = list[FrozenTrial]()
        with self._recorder.keep_reports_in_outage(before), self._transaction():
            for trial, report in before:  # only now that the lease is known to be ours
                self._recorder.write_report(trial, report)
            for note in notes:
                self._note(f"worker {worker}: {note}")
            self._count_seat_time(seat_time)
            self._freezer.has_left(worker)
            current = current_reports(self.study, reports, self._retry_queue.numbers)
            known = {report.number for _, report in current}
            freeze = frozen_before(self.study, reports)
            leave = [r.number for r in reports if r.number not in {*known, *freeze} and r.outcome is None]
            new = {r.number for t, r in current if r.percent not in t.intermediate_values or r.is_end}
            self._recorder.record(current)
            freed, any_ended = [], False
            told: list[tuple[FrozenTrial, SeatReport]] = []
            for trial, report in current:
                if report.percent not in trial.intermediate_values or report.is_end:
                    self._retry_queue.reset_losses(trial)
                    self._workers.made_progress(worker)
                if report.outcome == PUT_BACK and not trial.user_attrs.get("put_back"):
                    self._retry_queue.put_back(trial, report.stop_reason)
                    self.progress.worse(f"trial {trial.number} was put back")
                    continue
                last = self._final_report(trial, report)
                freezes = last is not None and self._freezer.takes(last)
                if last is not None or report.number in new:
                    told.append((trial, report if freezes else last or report))
                if last is None:
                    continue
                self._end(trial, last, worker)
                any_ended = True
                if last.outcome == FAILED:
                    self.progress.worse(f"trial {trial.number} failed")
                if report.outcome is None:
                    (freeze if freezes else leave).append(report.number)
                    freed.append(int(trial.user_attrs["seat"]))
            self._freezer.give_up_surplus()
            if not self._search_goes_on():
                dropped = self._tail.drop(worker)
                freed += [int(run.user_attrs["seat"]) for run in dropped]
                leave += [run.number for run in dropped]
            if any_ended and (share := self._workers.seat_busy_share) is not None:
                self.study.set_user_attr("seat_busy_share", share)
            reply = self._fill(worker, [*free, *freed])
            still = {trial.number for trial in frozen_trials(self.study)}
            leave += [number for number in freeze if number not in still]
        self._recorder.remove_leftovers([*(trial for trial, _ in current), *dropped])
        self.report_log.add(self.study, told)
        return replace(reply, leave=tuple(leave), freeze=tuple(n for n in freeze if n in still))

    # --- filling seats ----------------------------------------------------------------------------

    def _recover(self, trials: Sequence[FrozenTrial], lost_because: str | None = None) -> int:
        num_failed = recover_trials(
            trials,
            self._recorder,
            self._retry_queue,
            self._final_report,
            self._end,
            self._note,
            lost_because=lost_because,
        )
        self._freezer.give_up_surplus()
        return num_failed

    def _end(self, trial: FrozenTrial, last: SeatReport, worker: int | None = None) -> None:
        """Record the end of a trial, or freeze it; `worker` still has it on a seat."""
        if self._freezer.takes(last):
            self._freezer.freeze(trial, last, worker)
        else:
            self._recorder.record_end(trial, last)

    def _has_more(self) -> bool:
        """Whether there is a trial for a free seat: interrupted, frozen or new."""
        return bool(self._retry_queue.numbers) or self._source.has_more() or self._thawed() is not None

    def _thawed(self, busy: Container[int] = ()) -> FrozenTrial | None:
        return self._freezer.next(has_new=self._source.has_more(), busy=busy)

    def _end_if_over(self) -> None:
        """Once nothing trains and nothing more is handed out, no frozen trial is taken up again."""
        if not (self._is_ending() or self._ours() or self._has_more()):
            self._freezer.end_all()

    def _fill(self, worker: int, seats: Sequence[int]) -> Reply:
        on_worker = self._on(worker)
        hand_out = not self._is_ending()
        if not hand_out:
            self._source.requeue_prefetched()
        if self._stopping:
            return self._no_work(worker, stop=True)
        start, assigned = [], {t.user_attrs["seat"]: t for t in on_worker}
        for seat in dict.fromkeys(seats):
            # Assigned to this seat before, in a reply that the worker did not get.
            trial = assigned.get(seat)
            if trial is None and hand_out:
                trial = self._next_trial(worker, on_worker)
                hand_out = trial is not None
            if trial is None:
                continue
            if seat not in assigned:
                on_worker.append(trial)
            assignment = assign_seat(
                self.study, trial, worker, seat, run=self.owner.run, run_folder=self.folder
            )
            start.append(SeatAssignment(seat, assignment))
            self._note(f"trial {trial.number}: started on worker {worker} seat {seat}")
        if not on_worker:
            self._end_if_over()
            return self._no_work(worker)
        self._workers.active.add(worker)
        return Reply(start=tuple(start))

    def _next_trial(self, worker: int, on_worker: Sequence[FrozenTrial]) -> FrozenTrial | None:
        others = self._workers.active - {worker}
        trial = self._retry_queue.next_for(worker, on_worker, has_others=bool(others))
        if trial is None and not any(map(is_suspect, on_worker)):
            if (trial := self._thawed(self._workers.active)) is not None:
                self.progress.worse(f"trial {trial.number} was taken up again")
            else:
                trial = next(iter(self._source.prefetched()), None) or self._source.draw()
                trial = trial or self._tail.draw()
        return trial

    def _search_goes_on(self) -> bool:
        """Whether a trial of the search runs, waits for a seat, or is still to be drawn."""
        return self._tail.has_running_search() or (not self._is_ending() and self._has_more())

    def _no_work(self, worker: int, *, stop: bool = False) -> Reply:
        """The reply to a worker that has nothing more to do."""
        self._workers.active.discard(worker)
        self.progress.forget_worker(worker)
        is_idle = not self._workers.active and (self._stopping or not self._ours())
        return Reply(stop=stop, fleet_done=is_idle)

    def is_last_worker(self, worker: int) -> bool:
        """Whether no worker is active once this one has ended."""
        self._workers.active.discard(worker)
        return not self._workers.active

    def _is_ending(self) -> bool:
        """Whether no more trials are handed out."""
        timeout = self.study_spec.search["timeout_seconds"]
        is_late = timeout is not None and time.monotonic() - self._started > timeout
        return self._stopping or is_late or self._source.has_failed_too_often()

    # --- the study's trials -----------------------------------------------------------------------

    def _ours(self) -> list[FrozenTrial]:
        return trials_of_run(self.study, self.owner.run)

    def _on(self, worker: int) -> list[FrozenTrial]:
        return [trial for trial in self._ours() if trial.user_attrs.get("worker") == worker]

    def _interrupted(self) -> list[FrozenTrial]:
        return trials_without_seat(self.study, self.owner.run)

    def _count_seat_time(self, seat_time: SeatTime | None) -> None:
        """Only as long as there is a trial for every free seat."""
        if seat_time and not self._is_ending() and self._has_more():
            self._workers.count_seat_time(seat_time.busy_seat_seconds, seat_time.seat_seconds)

    # --- calls of the driver ----------------------------------------------------------------------

    def request_stop(self) -> None:
        """Make every worker checkpoint its trials and end; the next run resumes them."""
        self._stopping = True

    def status(self, events_from: int = 0) -> Status:
        """A snapshot, with the events from number `events_from` on."""
        self._refresh()
        if self._held_lease.is_due:
            with self._transaction():  # renews the lease
                pass
        status = read_status(self.study, self.study_spec.trials)
        without_seat = self._retry_queue.numbers
        busy = {t.worker for t in status.running if t.number not in without_seat and t.worker is not None}
        status.tokens_per_second = self._workers.tokens_per_second(busy)
        status.elapsed_seconds = time.monotonic() - self._started
        status.run_seconds = self._run_time.seconds
        status.stopping = self._stopping
        has_more = not self._is_ending() and (self._source.has_more() or self._thawed() is not None)
        self.progress.fill(
            status,
            without_seat=without_seat,
            ended=used_shares(self.study),
            whole=never_pruned(self.study),
            has_more=has_more,
        )
        status.events = self._events[events_from:]
        status.life = self._process_id
        status.ending = self._is_ending() or not (status.running or has_more)
        return status
