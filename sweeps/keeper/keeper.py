"""The keeper: alone writes to the study, hands out trials, and decides which go on.

Workers ask it for trials, report to it, and rejoin after a restart. It runs as a Ray actor beside the driver
(`actor.py`), and as a plain object in tests. It imports no torch. Every call is one transaction that begins
by renewing the lease: a keeper that dies, or has lost the study to another, has done all of a call or
nothing. So a worker that got no answer may repeat any call.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from lora_runner.protocol import BaseSamples, ComputeRecord, SeatReport, UnquantizedBase
from sweeps.artifacts.checkpoint_store import CheckpointCleaner
from sweeps.keeper.begin_run import begin_run
from sweeps.keeper.free_seats import FreeSeats
from sweeps.keeper.pack_reports import decide_on_pack
from sweeps.keeper.protocol import Reply, SeatTime
from sweeps.keeper.trials.open_study import OpenStudy
from sweeps.keeper.trials.recorder import RunStart
from sweeps.keeper.trials.seats import current_reports
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
from sweeps.study.lease import DriverProcess, HeldLease, wait_until_free
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
        self._seats = FreeSeats(
            self.owner.run,
            self.folder,
            self._workers,
            self.progress,
            self._note,
            is_ending=self._is_ending,
            is_stopping=lambda: self._stopping,
        )
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
            self._run_start = begin_run(self.opened, self.owner.run, self._note, is_new_study=is_new)
            self._started -= self._run_start.seconds_ago
            self._run_time.begin(self._run_start.seconds_ago, self._run_start.ran_before)
            self.opened.let_frozen_rest_if_over(self._is_ending)
            self._workers.active = {trial.user_attrs["worker"] for trial in self.opened.on_seats()}
        self._held_lease.committed(lease)
        self.opened.recorder.remove_leftovers(self.study.get_trials(deepcopy=False))

    def close(self) -> None:
        """Release the lease, so that the next sweep need not wait for it to expire."""
        dropped = []
        with self._storage.transaction():
            if self._held_lease.release(self._storage):
                self._run_time.write(self.study, is_end=True)
                if not self.opened.search_goes_on(self._is_ending):
                    dropped = self.opened.tail.drop()
        self.opened.recorder.remove_leftovers(dropped)
        if self._cleaner is not None:
            self._cleaner.finish()

    def leave(self) -> None:
        """`close`, and close the storage: for a keeper that does not run in a process of its own."""
        self.close()
        self._storage.close()

    def _use_study(self, study: optuna.Study) -> None:
        self.study = study
        if self._cleaner is None and (store := self.study_spec.checkpoint_store()) is not None:
            self._cleaner = CheckpointCleaner(store.of_study(study_key_of(study)))
        self.opened = OpenStudy(self.study_spec, study, self.owner.run, self._note, self._cleaner)
        self.opened.source.num_failed_before = self._run_start.num_failed
        self._stale = False

    def _refresh(self) -> None:
        if self._stale:
            storage = CachedStorage(self._storage)
            self._use_study(optuna.load_study(storage=storage, study_name=self.study_spec.name))
            # From the study, not from memory: a commit without an answer may have succeeded or not.
            self.opened.queue_interrupted()

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
        if ended := self.opened.freezer.take_ended():
            self.opened.recorder.remove_leftovers(trial for trial, _ in ended)
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
                return self._no_work(worker)
        self.opened.recorder.remove_leftovers(lost)
        pause = 0.0 if num_failed else restart_pause(starts)
        if self._is_ending() or not self.opened.has_more():
            return self._no_work(worker)
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
        self.opened.recorder.remove_leftovers(lost)
        return self._no_work(worker)

    def _take_trials(self, worker: int, reason: str | None) -> tuple[list[FrozenTrial], int]:
        """The trials that a worker had, and how many of them have failed for losing too many workers."""
        lost = self.opened.on(worker)
        self.opened.freezer.has_left(worker)
        self.progress.forget_worker(worker, f"worker {worker} was lost" if lost else None)
        for trial in lost:
            self._note(f"trial {trial.number}: lost its worker {worker} ({reason or 'not its fault'})")
        return lost, self.opened.recover(lost, lost_because=reason)

    def prefetch(self, worker: int, trials: int = 1) -> None:
        """Draw trials until `trials` are ready for this worker, so that its next report need not wait.

        Workers call this without waiting for it. One transaction per trial.
        """
        wanted = self._workers.request_prefetch(worker, trials)
        self._refresh()
        while (
            not self._is_ending()
            and len(self.opened.retry_queue.numbers) + len(self.opened.source.prefetched()) < wanted
        ):
            with self._transaction():
                if self.opened.source.draw() is None:
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
                return self._no_work(worker)
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
            self.opened.freezer.has_left(worker)
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
        opened = self.opened
        before = current_reports(self.study, reports, opened.retry_queue.numbers)
        with opened.recorder.keep_reports_in_outage(before), self._transaction():
            for trial, report in before:  # only now that the lease is known to be ours
                opened.recorder.write_report(trial, report)
            for note in notes:
                self._note(f"worker {worker}: {note}")
            self._count_seat_time(seat_time)
            opened.freezer.has_left(worker)
            decision = decide_on_pack(
                opened, self._workers, self.progress, worker, reports, is_ending=self._is_ending
            )
            if decision.any_ended and (share := self._workers.seat_busy_share) is not None:
                self.study.set_user_attr("seat_busy_share", share)
            reply = self._fill(worker, [*free, *decision.freed])
            leave, freeze = decision.seats_to_empty(self.study)
        opened.recorder.remove_leftovers([*decision.reported, *decision.dropped])
        self.report_log.add(self.study, decision.told)
        return replace(reply, leave=leave, freeze=freeze)

    def _fill(self, worker: int, seats: Sequence[int]) -> Reply:
        return self._seats.fill(self.opened, worker, seats)

    def _no_work(self, worker: int) -> Reply:
        """The reply to a worker that is to end."""
        return self._seats.no_work(self.opened, worker, stop=True)

    def is_last_worker(self, worker: int) -> bool:
        """Whether no worker is active once this one has ended."""
        self._workers.active.discard(worker)
        return not self._workers.active

    def _is_ending(self) -> bool:
        """Whether no more trials are handed out."""
        timeout = self.study_spec.search["timeout_seconds"]
        is_late = timeout is not None and time.monotonic() - self._started > timeout
        return self._stopping or is_late or self.opened.source.has_failed_too_often()

    def _count_seat_time(self, seat_time: SeatTime | None) -> None:
        """Only as long as there is a trial for every free seat."""
        if seat_time and not self._is_ending() and self.opened.has_more():
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
        without_seat = self.opened.retry_queue.numbers
        busy = {t.worker for t in status.running if t.number not in without_seat and t.worker is not None}
        status.tokens_per_second = self._workers.tokens_per_second(busy)
        status.elapsed_seconds = time.monotonic() - self._started
        status.run_seconds = self._run_time.seconds
        status.stopping = self._stopping
        has_more = not self._is_ending() and self.opened.has_new_or_frozen()
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
