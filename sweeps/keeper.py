"""The keeper: the only one that writes to the study.

Workers ask it for trials, report to it, and rejoin after a restart. It runs as a Ray actor beside the driver
(`fleet.py`), and as a plain object in tests. It imports no torch. Every call is one transaction: a keeper
that dies has either done the whole of a call or nothing of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from lora_runner.config import TrialConfig
from lora_runner.errors import TrialConfigError
from lora_runner.messages import COMPLETE, DIVERGED, FAILED, OUT_OF_MEMORY, PRUNED, Assignment, SeatReport
from results.files import atomic_write_json
from results.plain import plain
from sweeps.blueprint import Ledger
from sweeps.samplers import GridSampler, make_pruner, make_sampler
from sweeps.status import DEFAULT_LABELS, Status, read_status
from sweeps.storage import open_storage, transaction
from sweeps.study import FINISHED, open_study
from sweeps.trial_folder import drop_checkpoint, move_aside, result_in, trial_folder

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
        self._storage = open_storage(storage_url)
        with transaction(self._storage):
            study, is_new = open_study(self._storage, ledger.name, ledger.identity)
            self._use_study(study)
            if is_new:
                self._describe_study()
            self._enqueue_first_trials()
            self._finished_before = len(self.study.get_trials(deepcopy=False, states=FINISHED))
            for trial in self._running():
                self._adopt_or_wait(trial)

    # --- the study --------------------------------------------------------------------------------

    def _use_study(self, study: optuna.Study) -> None:
        self.study = study
        self.study.pruner = make_pruner(self.ledger.search, self.ledger.report_at)
        self._stale = False

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What is written inside reaches the study at once or not at all, and so with what is kept here."""
        if self._stale:
            self._use_study(optuna.load_study(storage=self._storage, study_name=self.ledger.name))
        remembered = list(self._waiting), dict(self._losses), list(self._events)
        try:
            with transaction(self._storage):
                yield
        except BaseException:
            self._waiting, self._losses, self._events = remembered
            self._stale = True  # Optuna's cache may hold what was taken back
            raise

    def _describe_study(self) -> None:
        self.study.set_user_attr("metric", "eval_loss")
        self.study.set_user_attr("space", self.ledger.space.to_dict())
        self.study.set_user_attr("guidelines", self.ledger.guidelines)
        self.study.set_user_attr("context", self.ledger.context)
        self.study.set_user_attr("versions", self.ledger.versions)

    def _enqueue_first_trials(self) -> None:
        """The tables' own values come first; values that are in the study already are not put there again."""
        # Most important first; at least half of the trials are left to the search. A grid is a list of its
        # own: only the trial that every verdict compares with comes before it.
        most = 1 if self.ledger.search["sampler"] == "grid" else max(1, self.ledger.trials // 2)
        for first in self.ledger.space.first_trials()[:most]:
            self.study.enqueue_trial(
                first.params,
                user_attrs={"origin": "guideline", "rows": list(first.rows), "label": first.label},
                skip_if_exists=True,
            )

    def _running(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _set(self, trial: FrozenTrial | Trial, **attributes: Any) -> None:
        for name, value in attributes.items():
            self.study._storage.set_trial_user_attr(trial._trial_id, name, plain(value))

    # --- the three calls --------------------------------------------------------------------------

    def register(self, worker: int, base_eval_loss: float) -> None:
        """Take a worker's loss of the untouched base."""
        with self._together():
            if self.study.user_attrs.get("base_eval_loss") is None:
                self.study.set_user_attr("base_eval_loss", base_eval_loss)
            self._events.append(f"worker {worker}: ready, untouched base {base_eval_loss:.4f}")

    def ask(self, worker: int, seats: Sequence[int]) -> Reply:
        """Trials for free seats: those that lost their worker, then new ones, until the target is met."""
        with self._together():
            return self._fill(worker, seats)

    def report(self, worker: int, reports: Sequence[SeatReport], free: Sequence[int], speed: float) -> Reply:
        """Record the reports of one pack together, then decide who goes on and who takes the freed seats.

        All values are in the study before the first decision, so that no trial is judged without its
        neighbours. `free` are the worker's empty seats, `speed` its tokens per second. A report of a trial
        that is over, or was given to another seat, is not recorded; that trial is told to leave.
        """
        if speed > 0:
            self._speed[worker] = speed
        with self._together():
            trials = self.study.get_trials(deepcopy=False)
            current = [(trials[r.number], r) for r in reports if self._is_current(trials, r)]
            known = {report.number for _, report in current}
            leave = [r.number for r in reports if r.number not in known and r.outcome is None]
            for trial, report in current:
                self._record(trial, report)
            freed, over = [], []
            for trial, report in current:
                ended = self._judge(trial, report)
                if ended is None:
                    continue
                self._conclude(trial, ended)
                over.append(report.number)
                if report.outcome is None:
                    leave.append(report.number)
                    freed.append(int(trial.user_attrs["seat"]))
            reply = self._fill(worker, [*free, *freed])
        for number in over:  # only now is it certain that nobody goes on from there
            drop_checkpoint(self.folder, number)
        return Reply(leave=tuple(leave), start=reply.start, stop=reply.stop)

    def rejoin(self, worker: int) -> None:
        """A worker (re)starts: its unfinished trials go back to the head of the line."""
        with self._together():
            self._speed.pop(worker, None)
            for trial in self._running():
                if trial.user_attrs.get("worker") == worker and trial.number not in self._waiting:
                    self._losses[trial.number] = self._losses.get(trial.number, 0) + 1
                    self._events.append(f"trial {trial.number}: lost its worker {worker}")
                    self._adopt_or_wait(trial)

    # --- trials without a seat --------------------------------------------------------------------

    def _adopt_or_wait(self, trial: FrozenTrial) -> None:
        """An unfinished trial without a worker: a result on disk is adopted, else it waits for a seat."""
        result = result_in(self.folder, trial)
        if result is None:
            self._waiting = sorted({*self._waiting, trial.number})
            return
        self._events.append(f"trial {trial.number}: result found on disk")
        self._record(trial, result)
        self._conclude(trial, self._judge(trial, result) or result)

    def _fill(self, worker: int, seats: Sequence[int]) -> Reply:
        start = []
        for seat in dict.fromkeys(seats):
            assignment = (
                None if self._is_over() else (self._take_waiting(worker, seat) or self._draw(worker, seat))
            )
            if assignment is None:
                break
            start.append(Placed(seat, assignment))
            self._events.append(f"trial {assignment.number}: started on worker {worker} seat {seat}")
        return Reply(start=tuple(start), stop=self._stopping)

    def _is_over(self) -> bool:
        timeout = self.ledger.search["timeout_seconds"]
        return self._stopping or (timeout is not None and time.monotonic() - self._started > timeout)

    def _take_waiting(self, worker: int, seat: int) -> Assignment | None:
        while self._waiting:
            trial = self.study.get_trials(deepcopy=False)[self._waiting.pop(0)]
            if self._losses.get(trial.number, 0) >= MAX_ATTEMPTS:
                self._fail(trial, f"lost its worker {MAX_ATTEMPTS} times")
                continue
            # Written before work starts: reports of an earlier attempt no longer count.
            attempt = int(trial.user_attrs["attempt"]) + 1
            self._set(trial, worker=worker, seat=seat, attempt=attempt)
            config = TrialConfig.from_dict(trial.user_attrs["config"])
            return self._assign(trial.number, config, attempt)
        return None

    def _draw(self, worker: int, seat: int) -> Assignment | None:
        """A new trial, described in the study and on disk before work starts."""
        while (sampler := self._next_sampler()) is not None:
            self.study.sampler = sampler
            trial = self.study.ask()
            params = self.ledger.space.suggest(trial)
            folder = trial_folder(trial.number)
            self._set(trial, folder=folder, origin=trial.user_attrs.get("origin", "sampler"))
            try:
                config = self.ledger.trial_config(params)
            except TrialConfigError as error:
                self._fail(trial, str(error))
                continue
            values, digest = config.to_dict(), config.hash()
            self._set(trial, config=values, config_hash=digest, worker=worker, seat=seat, attempt=1)
            if moved := move_aside(self.folder / folder):
                self._events.append(f"trial {trial.number}: files of an earlier study moved to {moved.name}")
            atomic_write_json(
                self.folder / folder / "config.json",
                {"number": trial.number, "params": params, "config": values, "config_hash": digest},
            )
            return self._assign(trial.number, config, 1)
        return None

    def _next_sampler(self) -> BaseSampler | None:
        """The sampler of the next trial; None when there is none to draw."""
        drawn = sum(t.state != TrialState.WAITING for t in self.study.get_trials(deepcopy=False))
        if drawn >= self.ledger.trials:
            return None
        if isinstance(self.study.sampler, GridSampler):
            sampler: BaseSampler = self.study.sampler
        else:
            sampler = make_sampler(self.ledger.search, self.ledger.space, drawn)
        if isinstance(sampler, GridSampler) and not sampler.has_points_left(self.study):
            return None
        return sampler

    def _assign(self, number: int, config: TrialConfig, attempt: int) -> Assignment:
        folder = str(self.folder / trial_folder(number))
        return Assignment(number=number, config=config, folder=folder, attempt=attempt)

    # --- recording --------------------------------------------------------------------------------

    def _is_current(self, trials: Sequence[FrozenTrial], report: SeatReport) -> bool:
        if report.number >= len(trials) or report.number in self._waiting:
            return False
        trial = trials[report.number]
        return trial.state == TrialState.RUNNING and trial.user_attrs.get("attempt") == report.attempt

    def _record(self, trial: FrozenTrial, report: SeatReport) -> None:
        if report.eval_loss is not None and report.percent not in trial.intermediate_values:
            self.study._storage.set_trial_intermediate_value(
                trial._trial_id, report.percent, report.eval_loss
            )

    def _judge(self, trial: FrozenTrial, report: SeatReport) -> SeatReport | None:
        """The report as the trial's last one, when it has ended or has to; None when it goes on."""
        if report.outcome not in (COMPLETE, None):
            return report
        if report.eval_loss is None or not math.isfinite(report.eval_loss):
            if report.outcome is None and report.eval_loss is None:
                return None
            loss = "no finite number" if report.eval_loss is None else report.eval_loss
            return report.ended(DIVERGED, f"evaluation loss is {loss} at {report.percent}% of the budget")
        if report.outcome == COMPLETE:
            return report
        # A trial that goes on from a checkpoint repeats reports, which were decided on when they were new.
        if report.percent in trial.intermediate_values or trial.user_attrs.get("label") in DEFAULT_LABELS:
            return None
        if not self.study.pruner.prune(self.study, self.study._storage.get_trial(trial._trial_id)):
            return None
        return report.ended(PRUNED, self._why_pruned(report))

    def _why_pruned(self, report: SeatReport) -> str:
        reported = [t.intermediate_values.get(report.percent) for t in self.study.get_trials(deepcopy=False)]
        rivals = [value for value in reported if value is not None]
        assert report.eval_loss is not None
        rank = 1 + sum(value < report.eval_loss for value in rivals)
        return (
            f"{self.ledger.search['pruner']} at {report.percent}% of the budget: evaluation loss "
            f"{report.eval_loss:.4f} is number {rank} of {len(rivals)} there"
        )

    def _conclude(self, trial: FrozenTrial, report: SeatReport) -> None:
        """Write down how a trial ended and tell the study: the gate of every trial that ran."""
        outcome = report.outcome
        assert outcome is not None
        values = report.to_dict()
        self._set(
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
        self._events.append(f"trial {trial.number}: {outcome}{loss} ({report.stop_reason})")

    def _fail(self, trial: FrozenTrial | Trial, reason: str) -> None:
        self._set(trial, outcome=FAILED, stop_reason=reason)
        self.study.tell(trial.number, state=TrialState.FAIL)
        self._events.append(f"trial {trial.number}: failed, {reason}")

    # --- seen from outside ------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Let every worker checkpoint its trials and end; they go on in the next run."""
        self._stopping = True

    def status(self, events_from: int = 0) -> Status:
        """A snapshot; `events_from` skips events that were read before."""
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
