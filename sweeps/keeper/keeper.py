"""The keeper: the only one that writes to the study.

Workers ask it for trials, report to it, and rejoin after a restart. It runs as a Ray actor beside the driver
(`keeper_actor.py`), and as a plain object in tests. It imports no torch. Every call is one transaction, at
whose head the lease is renewed: a keeper that dies, or has lost the study to another, has either done the
whole of a call or nothing of it. So every call may be made again by a worker that got no answer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from files_and_text.trial_paths import trial_folder
from lora_runner.config import TrialConfig
from lora_runner.protocol import OUT_OF_MEMORY, PUT_BACK, Assignment, SeatReport
from sweeps.artifacts.checkpoint_store import Leftovers
from sweeps.artifacts.trial_folder import reports_in, result_in
from sweeps.keeper.protocol import Placed, Reply, SeatTime
from sweeps.keeper.pruning import judge
from sweeps.keeper.recorder import Began, Recorder
from sweeps.keeper.replicate_source import drawer_for
from sweeps.keeper.retry_queue import RetryQueue, is_suspect
from sweeps.keeper.worker_registry import FUTILE_STARTS, WorkerRegistry, pause_after
from sweeps.plan.specs import StudySpec
from sweeps.storage.cached_storage import CachedStorage
from sweeps.storage.open_storage import open_storage
from sweeps.study.base_check import BASE_EVAL_LOSS, BASE_METRIC, BASE_WEIGHTS, base_difference
from sweeps.study.lease import DriverProcess, HeldLease, lease_of, wait_until_free
from sweeps.study.samplers import make_pruner
from sweeps.study.status import Status, read_status
from sweeps.study.study import find_study, is_prefetched, open_study, set_user_attrs, study_key_of


class Keeper:
    """Draws trials, records what becomes of them, and decides which go on.

    `owner` is the driver it works for; a keeper that is started anew for the same run leaves the trials on
    their seats. Raises StorageUnreachable, StudyMismatch or StudyHeld when the study cannot be used, and
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
        self._life = secrets.token_hex(4)
        self._stopping = False
        self._events = [] if events is None else events
        self.troubles: list[str] = []
        """Why the sweep may not come to its end."""
        self._crew = WorkerRegistry()
        self._storage = open_storage(storage_url)
        self._held_lease: HeldLease | None = None
        self._leftovers: Leftovers | None = None
        self._began = Began(seconds_ago=0.0, num_finished=0, num_failed=0, is_new=True)
        self._open()

    # --- the study --------------------------------------------------------------------------------

    def _open(self) -> None:
        """Take the study over, and bring it and what lies on disk together."""
        name = self.study_spec.name
        known = find_study(self._storage, name)
        found = None
        if known is not None:
            found = wait_until_free(
                lambda: lease_of(known),
                self.owner,
                name=name,
                seconds=self.study_spec.reliability.lease_seconds,
            )
        with self._storage.transaction():
            study, is_new = open_study(CachedStorage(self._storage), name, self.study_spec.identity)
            self._held_lease = HeldLease(study._study_id, name, self.owner, found)
            lease = self._held_lease.renew(self._storage)
            self._use_study(study)
            if is_new:
                self._recorder.describe_study()
            self._drawer.enqueue_first_trials()
            self._began = self._recorder.begin(self.owner.run)
            self._drawer.num_failed_before = self._began.num_failed
            self._started -= self._began.seconds_ago
            self._drawer.put_off()
            if self._began.is_new:
                self._drawer.try_failed_again()
            # Those of this very run sit on their seats: only the keeper is new.
            self._take_back([t for t in self._running() if t.user_attrs.get("run") != self.owner.run])
            ours = [t for t in self._running() if t.user_attrs.get("run") == self.owner.run]
            self._crew.live = {t.user_attrs["worker"] for t in ours}
        self._held_lease.kept(lease)
        self._recorder.clear_away(self.study.get_trials(deepcopy=False))

    def close(self) -> None:
        """Give the lease back, so that the next sweep need not wait for it to run out."""
        if self._held_lease is not None:
            with self._storage.transaction():
                self._held_lease.release(self._storage)
        if self._leftovers is not None:
            self._leftovers.finish()

    def leave(self) -> None:
        """`close`, and let go of the storage: for a keeper that is no process of its own."""
        self.close()
        self._storage.close()

    def _use_study(self, study: optuna.Study) -> None:
        self.study = study
        self.study.pruner = make_pruner(self.study_spec.search, self.study_spec.report_at)
        self._drawer = drawer_for(self.study_spec, study, self._note)
        self._drawer.num_failed_before = self._began.num_failed
        if self._leftovers is None and (store := self.study_spec.checkpoint_store()) is not None:
            self._leftovers = Leftovers(store.of_study(study_key_of(study)))
        self._recorder = Recorder(self.study_spec, study, self._note, self._leftovers)
        self._waiting = RetryQueue(study, (), self._note)
        self._stale = False

    def _refresh(self) -> None:
        if self._stale:
            storage = CachedStorage(self._storage)
            self._use_study(optuna.load_study(storage=storage, study_name=self.study_spec.name))
            # Never from memory: of a commit without an answer only the study knows whether it stands.
            numbers = [t.number for t in self._running() if t.user_attrs.get("run") != self.owner.run]
            self._waiting = RetryQueue(self.study, numbers, self._note)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What is written inside reaches the study at once or not at all, and so with what is kept here."""
        assert self._held_lease is not None
        self._refresh()
        num_events, futile_starts = len(self._events), self._crew.futile_starts()
        try:
            with self._storage.transaction():
                lease = self._held_lease.renew(self._storage)
                yield
        except BaseException:
            self._crew.take_back(futile_starts)
            del self._events[num_events:]
            self._stale = True  # memory holds what was taken back
            raise
        self._held_lease.kept(lease)

    # --- the calls of a worker --------------------------------------------------------------------

    def rejoin(self, worker: int, reason: str | None = "its process died") -> Reply:
        """A worker (re)starts: its unfinished trials go back to the head of the line.

        `reason` is what is known of the end of its last life; None from one that is about to end by no fault
        of theirs. The reply says how long to wait before another try, or to give up after too many of them.
        """
        with self._together():
            lost = [t for t in self._running() if self._is_on(t, worker)]
            for trial in lost:
                self._note(f"trial {trial.number}: lost its worker {worker} ({reason or 'not its fault'})")
            given_up = self._take_back(lost, lost_because=reason)
            starts = self._crew.starts(worker, in_vain=reason is not None)
            if reason is not None and starts >= FUTILE_STARTS:
                trouble = f"worker {worker}: given up, it died {starts} times in a row before any report"
                self._note(f"{trouble} ({reason})")
                self.troubles.append(f"{trouble}; the last time: {reason}")
                return self._nothing(worker, stop=True)
        self._recorder.clear_away(lost)
        pause = 0.0 if given_up else pause_after(starts)
        if self._is_over() or not (self._waiting or self._drawer.has_more()):
            return self._nothing(worker, stop=True)
        self._crew.live.add(worker)
        return Reply(pause_seconds=pause, study_key=study_key_of(self.study))

    def prepare(self, worker: int, trials: int = 1) -> None:
        """Draw until `trials` lie ready for this worker, so that its next report need not wait for the draw.

        For a worker to call while it is busy with something else. One transaction per trial.
        """
        wanted = self._crew.wants(worker, trials)
        self._refresh()
        while not self._is_over() and len(self._waiting.numbers) + len(self._drawer.ahead()) < wanted:
            with self._together():
                if self._drawer.draw() is None:
                    return

    def register(self, worker: int, base_eval_loss: float, weights: str | None = None) -> Reply:
        """Take a worker's loss of the untouched base, and the digest of its weights.

        A worker whose base is not the study's is sent away.
        """
        with self._together():
            known = self.study.user_attrs
            difference = base_difference(
                known,
                weights=weights,
                base_eval_loss=base_eval_loss,
                compute_dtype=str(self.study_spec.context.get("compute_dtype")),
            )
            if difference is not None:
                trouble = f"worker {worker} has other weights under the name of the base: {difference}"
                self._note(trouble)
                self.troubles.append(trouble)
                return self._nothing(worker, stop=True)
            if known.get(BASE_EVAL_LOSS) is None:
                self.study.set_user_attr(BASE_EVAL_LOSS, base_eval_loss)
            if weights is not None and known.get(BASE_WEIGHTS) is None:
                self.study.set_user_attr(BASE_WEIGHTS, weights)
            self._note(f"worker {worker}: ready, untouched base {base_eval_loss:.4f}")
        lacks = self.study_spec.metric is not None and self.study.user_attrs.get(BASE_METRIC) is None
        return Reply(measure_base=lacks)

    def base_measured(self, worker: int, value: float) -> Reply:
        """Take the metric of the untouched base; the first worker's stays."""
        with self._together():
            if self.study.user_attrs.get(BASE_METRIC) is None:
                assert self.study_spec.metric is not None
                self.study.set_user_attr(BASE_METRIC, value)
                self._note(f"worker {worker}: untouched base, {self.study_spec.metric.name} {value:.4f}")
        return Reply()

    def ask(self, worker: int, seats: Sequence[int]) -> Reply:
        """Trials for free seats: those that lost their worker, then new ones, until the target is met."""
        with self._together():
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
        """Record the reports of one pack together, then decide who goes on and who takes the freed seats.

        All values are in the study before the first decision, so that no trial is judged without its
        neighbours. `free` are the worker's empty seats, `speed` its tokens per second. A report of a trial
        that is over, or was given to another seat, is not recorded; that trial is told to leave.
        """
        self._crew.runs_at(worker, speed)
        self._refresh()
        said = self._current(reports)
        with self._recorder.even_if_away(said), self._together():
            for trial, report in said:  # not before it is certain that the study is still ours
                self._recorder.write_down(trial, report)
            for note in notes:
                self._note(f"worker {worker}: {note}")
            self._count(seat_time)
            current = self._current(reports)
            known = {report.number for _, report in current}
            leave = [r.number for r in reports if r.number not in known and r.outcome is None]
            self._recorder.record(current)
            freed, some_over = [], False
            for trial, report in current:
                if report.percent not in trial.intermediate_values or report.is_end:
                    self._waiting.cleared(trial)
                    self._crew.got_on(worker)
                if report.outcome == PUT_BACK and not trial.user_attrs.get("put_back"):
                    self._waiting.put_back(trial, report.stop_reason)
                    continue
                ended = self._judge(trial, report)
                if ended is None:
                    continue
                self._recorder.conclude(trial, ended)
                some_over = True
                if report.outcome is None:
                    leave.append(report.number)
                    freed.append(int(trial.user_attrs["seat"]))
            if some_over and (share := self._crew.seat_busy_share) is not None:
                self.study.set_user_attr("seat_busy_share", share)
            reply = self._fill(worker, [*free, *freed])
        self._recorder.clear_away(trial for trial, _ in current)
        return replace(reply, leave=tuple(leave))

    # --- trials without a seat --------------------------------------------------------------------

    def _take_back(self, trials: Sequence[FrozenTrial], lost_because: str | None = None) -> int:
        """Unfinished trials without a worker: what lies on disk is adopted, the others wait for a seat.

        A result ends its trial. Reports that the study never heard of are recorded and judged now, since a
        trial that goes on from a checkpoint behind them will not repeat them. Returns how many were given up
        because they cost too many workers.
        """
        ended = set()
        unheard = [(t, r) for t in trials for r in reports_in(self.folder, t)]
        unheard = [(t, r) for t, r in unheard if r.percent not in t.intermediate_values]
        for percent in sorted({report.percent for _, report in unheard}):
            there = [(t, r) for t, r in unheard if r.percent == percent and t.number not in ended]
            self._recorder.record(there)
            for trial, report in there:
                if (last := self._judge(trial, report)) is not None:
                    self._recorder.conclude(trial, last)
                    ended.add(trial.number)
        given_up = 0
        for trial in trials:
            if trial.number in ended:
                continue
            if (result := result_in(self.folder, trial)) is not None:
                self._note(f"trial {trial.number}: result found on disk")
                self._recorder.record([(self._trial(trial.number), result)])
                self._recorder.conclude(trial, self._judge(trial, result) or result)
            elif lost_because is None or self._waiting.lost(
                trial, alone=len(trials) == 1, reason=lost_because
            ):
                self._waiting.add(trial)
            else:
                given_up += 1
        return given_up

    def _fill(self, worker: int, seats: Sequence[int]) -> Reply:
        beside = [t for t in self._running() if self._is_on(t, worker)]
        has_more = not self._is_over()
        if not has_more:
            self._drawer.put_off()
        if self._stopping:
            return self._nothing(worker, stop=True)
        start, unheard = [], {t.user_attrs["seat"]: t for t in beside}
        for seat in dict.fromkeys(seats):
            # Given to this seat already, but the worker that says it is free never heard of it.
            trial = unheard.get(seat)
            if trial is None and has_more:
                trial = self._next_for(worker, beside)
                has_more = trial is not None
            if trial is None:
                continue
            if seat not in unheard:
                beside.append(trial)
            start.append(Placed(seat, self._hand_out(trial, worker, seat)))
            self._note(f"trial {trial.number}: started on worker {worker} seat {seat}")
        if not beside:
            return self._nothing(worker)
        self._crew.live.add(worker)
        return Reply(start=tuple(start))

    def _next_for(self, worker: int, beside: Sequence[FrozenTrial]) -> FrozenTrial | None:
        trial = self._waiting.next_for(worker, beside, has_others=self._crew.others(worker))
        if trial is None and not any(map(is_suspect, beside)):
            trial = next(iter(self._drawer.ahead()), None) or self._drawer.draw()
        return trial

    def _nothing(self, worker: int, *, stop: bool = False) -> Reply:
        """To a worker that has nothing more to do."""
        self._crew.live.discard(worker)
        elsewhere = [t for t in self._running() if t.user_attrs.get("run") == self.owner.run]
        return Reply(stop=stop, over=not self._crew.live and (self._stopping or not elsewhere))

    def is_without(self, worker: int) -> bool:
        """Whether there is no worker left once this one has gone."""
        self._crew.live.discard(worker)
        return not self._crew.live

    def _is_over(self) -> bool:
        timeout = self.study_spec.search["timeout_seconds"]
        is_late = timeout is not None and time.monotonic() - self._started > timeout
        return self._stopping or is_late or self._drawer.has_failed_too_often()

    def _hand_out(self, trial: FrozenTrial, worker: int, seat: int) -> Assignment:
        """Written before work starts: reports of an earlier attempt no longer count."""
        attempt = int(trial.user_attrs.get("attempt", 0)) + 1
        set_user_attrs(self.study, trial, worker=worker, seat=seat, attempt=attempt, run=self.owner.run)
        return Assignment(
            number=trial.number,
            config=TrialConfig.from_dict(trial.user_attrs["config"]),
            folder=str(self.folder / trial_folder(trial.number)),
            attempt=attempt,
            put_back=int(trial.user_attrs.get("put_back", 0)),
        )

    # --- who is where -----------------------------------------------------------------------------

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _running(self) -> list[FrozenTrial]:
        """Trials that have begun and not ended."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if not is_prefetched(trial)]

    def _is_on(self, trial: FrozenTrial, worker: int) -> bool:
        return trial.user_attrs.get("worker") == worker and trial.user_attrs.get("run") == self.owner.run

    def _current(self, reports: Iterable[SeatReport]) -> list[tuple[FrozenTrial, SeatReport]]:
        """Reports of trials that are on the seat they were given, with these trials as they are."""
        trials = self.study.get_trials(deepcopy=False)
        return [
            (trials[report.number], report)
            for report in reports
            if report.number < len(trials)
            and report.number not in self._waiting
            and trials[report.number].state == TrialState.RUNNING
            and trials[report.number].user_attrs.get("attempt") == report.attempt
        ]

    def _judge(self, trial: FrozenTrial, report: SeatReport) -> SeatReport | None:
        if report.outcome == PUT_BACK:  # it had its second chance
            return report.ended(OUT_OF_MEMORY, report.stop_reason or "out of memory again")
        metric = self.study_spec.metric
        return judge(
            self.study,
            trial,
            report,
            pruner_name=self.study_spec.search["pruner"],
            metric=metric if metric is not None and metric.objective else None,
        )

    def _note(self, event: str) -> None:
        self._events.append(event)

    def _count(self, seat_time: SeatTime | None) -> None:
        """Add up what the seats did, as long as there was a trial to hand out for every one that is free."""
        if seat_time and not self._is_over() and (self._waiting or self._drawer.has_more()):
            self._crew.count_seats(seat_time.busy_seat_seconds, seat_time.seat_seconds)

    # --- seen from outside ------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Let every worker checkpoint its trials and end; they go on in the next run."""
        self._stopping = True

    def status(self, events_from: int = 0) -> Status:
        """A snapshot; `events_from` skips events that were read before."""
        self._refresh()
        if self._held_lease is not None and self._held_lease.is_due:
            with self._together():
                pass
        status = read_status(self.study, self.study_spec.trials)
        busy = {trial["worker"] for trial in status.running if trial["number"] not in self._waiting}
        done = status.finished - self._began.num_finished
        status.tokens_per_second = self._crew.tokens_per_second(busy)
        status.elapsed_seconds = time.monotonic() - self._started
        if done > 0:
            left = max(0, self.study_spec.trials - status.finished)
            status.seconds_left = left * status.elapsed_seconds / done
        status.events = self._events[events_from:]
        status.life = self._life
        status.ending = self._is_over() or not (status.running or self._drawer.has_more())
        return status
