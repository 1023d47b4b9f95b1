"""The keeper: the only one that writes to the study.

Workers ask it for trials, report to it, and rejoin after a restart. It runs as a Ray actor beside the driver
(`fleet.py`), and as a plain object in tests. It imports no torch. Every call is one transaction: a keeper
that dies has either done the whole of a call or nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lora_runner.config import TrialConfig
from lora_runner.messages import (
    COMPLETE,
    DIVERGED,
    FAILED,
    OUT_OF_MEMORY,
    PRUNED,
    PUT_BACK,
    Assignment,
    SeatReport,
)
from sweeps.blueprint import Ledger
from sweeps.drawing import Drawer
from sweeps.judging import judge
from sweeps.samplers import make_pruner
from sweeps.status import Status, read_status
from sweeps.storage import open_storage, transaction
from sweeps.study import FINISHED, describe, is_drawn_ahead, open_study, storage_of
from sweeps.trial_folder import drop_checkpoint, result_in, trial_folder
from sweeps.write_through import WriteThrough

MAX_ATTEMPTS = 3
"""A trial that loses its worker this often in one run is failed, so that it cannot hold up the sweep."""
_STATES = {
    COMPLETE: TrialState.COMPLETE,
    # PRUNED, not FAIL: samplers learn from pruned trials and ignore failed ones.
    PRUNED: TrialState.PRUNED,
    DIVERGED: TrialState.PRUNED,
    OUT_OF_MEMORY: TrialState.PRUNED,
    FAILED: TrialState.FAIL,
}


@dataclass(frozen=True)
class Placed:
    """A trial and the seat it is meant for."""

    seat: int
    assignment: Assignment


@dataclass(frozen=True)
class Reply:
    """What a worker does next: which trials leave their seats, which start, and whether to stop."""

    leave: tuple[int, ...] = ()
    start: tuple[Placed, ...] = ()
    stop: bool = False


@dataclass(frozen=True, kw_only=True)
class SeatTime:
    """What a worker's seats did since its last word."""

    busy_seat_seconds: float
    """A trial sat there and the pack computed."""
    seat_seconds: float
    """Of all its seats together, whatever they did."""


class Keeper:
    """Draws trials, records what becomes of them, and decides which go on.

    Raises StorageUnreachable or StudyMismatch when the study cannot be used.
    """

    def __init__(self, ledger: Ledger, storage_url: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.ledger = ledger
        self.folder = Path(ledger.run_folder)
        self._started = time.monotonic()
        self._stopping = False
        self._events: list[str] = []
        self._speed: dict[int, float] = {}
        self._losses: dict[int, int] = {}
        self._waiting: list[int] = []
        """Trials that have begun and have no seat, by number."""
        self._wanted: dict[int, int] = {}
        """How many trials should lie ready for each worker."""
        self._busy_seat_seconds = self._seat_seconds = 0.0
        self._storage = open_storage(storage_url)
        with transaction(self._storage):
            study, is_new = open_study(WriteThrough(self._storage), ledger.name, ledger.identity)
            self._use_study(study)
            if is_new:
                self._describe_study()
            self._drawer.enqueue_first_trials()
            self._finished_before = len(self.study.get_trials(deepcopy=False, states=FINISHED))
            self._drawer.put_off()
            for trial in self._running():
                self._adopt_or_wait(trial)

    # --- the study --------------------------------------------------------------------------------

    def _use_study(self, study: optuna.Study) -> None:
        self.study = study
        self.study.pruner = make_pruner(self.ledger.search, self.ledger.report_at)
        self._drawer = Drawer(self.ledger, study, self._note)
        self._stale = False

    def _refresh(self) -> None:
        if self._stale:
            storage = WriteThrough(self._storage)
            self._use_study(optuna.load_study(storage=storage, study_name=self.ledger.name))

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What is written inside reaches the study at once or not at all, and so with what is kept here."""
        self._refresh()
        remembered = list(self._waiting), dict(self._losses), list(self._events)
        try:
            with transaction(self._storage):
                yield
        except BaseException:
            self._waiting, self._losses, self._events = remembered
            self._stale = True  # memory holds what was taken back
            raise

    def _describe_study(self) -> None:
        self.study.set_user_attr("metric", "eval_loss")
        self.study.set_user_attr("space", self.ledger.space.to_dict())
        self.study.set_user_attr("guidelines", self.ledger.guidelines)
        self.study.set_user_attr("context", self.ledger.context)
        self.study.set_user_attr("versions", self.ledger.versions)

    def _running(self) -> list[FrozenTrial]:
        """Trials that have begun and not ended."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if not is_drawn_ahead(trial)]

    def _note(self, event: str) -> None:
        self._events.append(event)

    # --- the calls of a worker --------------------------------------------------------------------

    def rejoin(self, worker: int) -> None:
        """A worker (re)starts: its unfinished trials go back to the head of the line."""
        with self._together():
            self._speed.pop(worker, None)
            for trial in self._running():
                if trial.user_attrs.get("worker") == worker and trial.number not in self._waiting:
                    self._losses[trial.number] = self._losses.get(trial.number, 0) + 1
                    self._note(f"trial {trial.number}: lost its worker {worker}")
                    self._adopt_or_wait(trial)

    def prepare(self, worker: int, trials: int = 1) -> None:
        """Draw until `trials` lie ready for this worker, so that its next report need not wait for the draw.

        For a worker to call while it is busy with something else. One transaction per trial.
        """
        self._wanted[worker] = trials
        wanted = sum(self._wanted.values())
        self._refresh()
        while not self._is_over() and len(self._waiting) + len(self._drawer.ahead()) < wanted:
            with self._together():
                if self._drawer.draw() is None:
                    return

    def register(self, worker: int, base_eval_loss: float) -> None:
        """Take a worker's loss of the untouched base."""
        with self._together():
            if self.study.user_attrs.get("base_eval_loss") is None:
                self.study.set_user_attr("base_eval_loss", base_eval_loss)
            self._note(f"worker {worker}: ready, untouched base {base_eval_loss:.4f}")

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
    ) -> Reply:
        """Record the reports of one pack together, then decide who goes on and who takes the freed seats.

        All values are in the study before the first decision, so that no trial is judged without its
        neighbours. `free` are the worker's empty seats, `speed` its tokens per second. A report of a trial
        that is over, or was given to another seat, is not recorded; that trial is told to leave.
        """
        if speed > 0:
            self._speed[worker] = speed
        with self._together():
            self._count(seat_time)
            trials = self.study.get_trials(deepcopy=False)
            current = [(trials[r.number], r) for r in reports if self._is_current(trials, r)]
            known = {report.number for _, report in current}
            leave = [r.number for r in reports if r.number not in known and r.outcome is None]
            self._record(current)
            freed, over = [], []
            for trial, report in current:
                if report.outcome == PUT_BACK and not trial.user_attrs.get("put_back"):
                    self._put_back(trial, report)
                    continue
                ended = self._judge(trial, report)
                if ended is None:
                    continue
                self._conclude(trial, ended)
                over.append(report.number)
                if report.outcome is None:
                    leave.append(report.number)
                    freed.append(int(trial.user_attrs["seat"]))
            if over and self._seat_seconds:
                self.study.set_user_attr("seat_busy_share", self._busy_seat_seconds / self._seat_seconds)
            reply = self._fill(worker, [*free, *freed])
        for number in over:  # only now is it certain that nobody goes on from there
            drop_checkpoint(self.folder, number)
        return Reply(leave=tuple(leave), start=reply.start, stop=reply.stop)

    # --- trials without a seat --------------------------------------------------------------------

    def _adopt_or_wait(self, trial: FrozenTrial) -> None:
        """An unfinished trial without a worker: a result on disk is adopted, else it waits for a seat."""
        result = result_in(self.folder, trial)
        if result is None:
            self._wait(trial)
            return
        self._note(f"trial {trial.number}: result found on disk")
        self._record([(trial, result)])
        self._conclude(trial, self._judge(trial, result) or result)

    def _wait(self, trial: FrozenTrial) -> None:
        self._waiting = sorted({*self._waiting, trial.number})

    def _put_back(self, trial: FrozenTrial, report: SeatReport) -> None:
        """Let a trial wait for another seat; that it had this chance stands in the study."""
        describe(self.study, trial, put_back=1)
        worker = trial.user_attrs["worker"]
        self._note(f"trial {trial.number}: put back by worker {worker} ({report.stop_reason})")
        self._wait(trial)

    def _fill(self, worker: int, seats: Sequence[int]) -> Reply:
        if self._is_over():
            self._drawer.put_off()
            return Reply(stop=self._stopping)
        start = []
        for seat in dict.fromkeys(seats):
            trial = self._next_waiting() or next(iter(self._drawer.ahead()), None) or self._drawer.draw()
            if trial is None:
                break
            start.append(Placed(seat, self._hand_out(trial, worker, seat)))
            self._note(f"trial {trial.number}: started on worker {worker} seat {seat}")
        return Reply(start=tuple(start))

    def _is_over(self) -> bool:
        timeout = self.ledger.search["timeout_seconds"]
        return self._stopping or (timeout is not None and time.monotonic() - self._started > timeout)

    def _next_waiting(self) -> FrozenTrial | None:
        while self._waiting:
            trial = self.study.get_trials(deepcopy=False)[self._waiting.pop(0)]
            if self._losses.get(trial.number, 0) < MAX_ATTEMPTS:
                return trial
            reason = f"lost its worker {MAX_ATTEMPTS} times"
            describe(self.study, trial, outcome=FAILED, stop_reason=reason)
            self.study.tell(trial.number, state=TrialState.FAIL)
            self._note(f"trial {trial.number}: failed, {reason}")
        return None

    def _hand_out(self, trial: FrozenTrial, worker: int, seat: int) -> Assignment:
        """Written before work starts: reports of an earlier attempt no longer count."""
        attempt = int(trial.user_attrs.get("attempt", 0)) + 1
        describe(self.study, trial, worker=worker, seat=seat, attempt=attempt)
        return Assignment(
            number=trial.number,
            config=TrialConfig.from_dict(trial.user_attrs["config"]),
            folder=str(self.folder / trial_folder(trial.number)),
            attempt=attempt,
            put_back=int(trial.user_attrs.get("put_back", 0)),
        )

    # --- recording --------------------------------------------------------------------------------

    def _is_current(self, trials: Sequence[FrozenTrial], report: SeatReport) -> bool:
        if report.number >= len(trials) or report.number in self._waiting:
            return False
        trial = trials[report.number]
        return trial.state == TrialState.RUNNING and trial.user_attrs.get("attempt") == report.attempt

    def _record(self, reports: Iterable[tuple[FrozenTrial, SeatReport]]) -> None:
        storage_of(self.study).add_intermediate_values(
            (trial._trial_id, report.percent, report.eval_loss)
            for trial, report in reports
            if report.eval_loss is not None and report.percent not in trial.intermediate_values
        )

    def _judge(self, trial: FrozenTrial, report: SeatReport) -> SeatReport | None:
        if report.outcome == PUT_BACK:  # it had its second chance
            return report.ended(OUT_OF_MEMORY, report.stop_reason or "out of memory again")
        return judge(self.study, trial, report, pruner_name=self.ledger.search["pruner"])

    def _conclude(self, trial: FrozenTrial, report: SeatReport) -> None:
        """Write down how a trial ended and tell the study: the gate of every trial that ran."""
        outcome = report.outcome
        assert outcome is not None
        values = report.to_dict()
        describe(
            self.study,
            trial,
            outcome=outcome,
            stop_reason=report.stop_reason,
            signs=values["signs"],
            eval_loss=report.eval_loss,
            train_loss=report.train_loss,
            num_steps=report.step,
            num_tokens=report.num_tokens,
            tokens_per_second=report.tokens_per_second,
            peak_memory_gib=report.peak_memory_gib,
            wall_seconds=report.wall_seconds,
            generations=values["generations"],
        )
        if outcome in (DIVERGED, OUT_OF_MEMORY) and self.ledger.search["sampler"] == "tpe":
            # By its last value alone, a trial that learned fast until it broke would rank above others.
            Trial(self.study, trial._trial_id).set_constraint("trainable", 1.0)
        value = report.eval_loss if outcome == COMPLETE else None
        self.study.tell(trial.number, value, state=_STATES[outcome])
        loss = "" if report.eval_loss is None else f", evaluation loss {report.eval_loss:.4f}"
        self._note(f"trial {trial.number}: {outcome}{loss} ({report.stop_reason})")

    def _count(self, seat_time: SeatTime | None) -> None:
        """Add up what the seats did, as long as there was a trial to hand out for every one that is free."""
        if seat_time and not self._is_over() and (self._waiting or self._drawer.has_more()):
            self._busy_seat_seconds += seat_time.busy_seat_seconds
            self._seat_seconds += seat_time.seat_seconds

    # --- seen from outside ------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Let every worker checkpoint its trials and end; they go on in the next run."""
        self._stopping = True

    def status(self, events_from: int = 0) -> Status:
        """A snapshot; `events_from` skips events that were read before."""
        self._refresh()
        status = read_status(self.study, self.ledger.trials)
        busy = {trial["worker"] for trial in status.running if trial["number"] not in self._waiting}
        done = status.finished - self._finished_before
        status.tokens_per_second = sum(speed for worker, speed in self._speed.items() if worker in busy)
        status.elapsed_seconds = time.monotonic() - self._started
        if done > 0:
            left = max(0, self.ledger.trials - status.finished)
            status.seconds_left = left * status.elapsed_seconds / done
        status.events = self._events[events_from:]
        return status
