"""The keeper: the only one that writes to the study.

Workers ask it for trials, report to it, and rejoin after a restart. It runs as a Ray actor beside the driver
(`fleet.py`), and as a plain object in tests. It imports no torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from lora_runner.config import TrialConfig
from lora_runner.errors import TrialConfigError
from lora_runner.messages import COMPLETE, DIVERGED, FAILED, OUT_OF_MEMORY, PRUNED, Assignment, SeatReport
from results.files import atomic_write_json
from search_spaces import DEFAULT_LABEL, MOVED_LABEL
from sweeps.blueprint import Ledger
from sweeps.study import FINISHED, GridSampler, make_pruner, make_sampler, open_storage, open_study

MAX_ATTEMPTS = 3
"""A trial that loses its worker this often is failed, so that it cannot hold up the sweep."""
NEVER_PRUNED = (DEFAULT_LABEL, MOVED_LABEL)
"""Labels of the trial that holds the tables' own values: every verdict compares with its full budget."""


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


@dataclass
class Status:
    """A snapshot for the live view, the end of a run and `sweeps status`."""

    name: str
    target: int
    states: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    running: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    default_loss: float | None = None
    base_eval_loss: float | None = None
    tokens_per_second: float = 0.0
    elapsed_seconds: float = 0.0
    seconds_left: float | None = None
    events: list[str] = field(default_factory=list)
    """One line per change since the sweep's process began, oldest first."""

    @property
    def finished(self) -> int:
        return sum(self.states.get(state.name, 0) for state in FINISHED)


class Keeper:
    """Draws trials, records what becomes of them, and decides which go on.

    Raises StorageUnreachable or StudyMismatch when the study cannot be used.
    """

    def __init__(self, ledger: Ledger, storage_url: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.ledger = ledger
        self.folder = Path(ledger.run_folder)
        self.study, is_new = open_study(open_storage(storage_url), ledger.name, ledger.identity)
        self.study.pruner = make_pruner(ledger.search, ledger.report_at)
        if is_new or "space" not in self.study.user_attrs:
            self._describe_study()
        self._enqueue_first_trials()
        self._started = time.monotonic()
        self._finished_before = self._count_finished()
        self._stopping = False
        self._events: list[str] = []
        self._speed: dict[int, float] = {}
        self._progress: dict[int, dict[str, Any]] = {}
        self._waiting = self._reconcile()

    # --- the study ---------------------------------------------------------------------------------------------

    def _describe_study(self) -> None:
        self.study.set_user_attr("metric", "eval_loss")
        self.study.set_user_attr("space", self.ledger.space.to_dict())
        self.study.set_user_attr("guidelines", self.ledger.guidelines)
        self.study.set_user_attr("context", self.ledger.context)
        self.study.set_user_attr("versions", self.ledger.versions)

    def _enqueue_first_trials(self) -> None:
        """The tables' own values come first; values that are in the study already are not put there again."""
        if self.ledger.search["sampler"] == "grid":
            return
        # Most important first; at least half of the trials are left to the search.
        for first in self.ledger.space.first_trials()[: max(1, self.ledger.trials // 2)]:
            self.study.enqueue_trial(
                first.params,
                user_attrs={"origin": "guideline", "rows": list(first.rows), "label": first.label},
                skip_if_exists=True,
            )

    def _reconcile(self) -> list[int]:
        """Trials that an earlier process left running: results on disk are adopted, the others wait for a seat."""
        waiting = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "config" not in trial.user_attrs:
                # Killed between drawing the trial and writing down what it is: nothing was started.
                self._set(trial.number, outcome=FAILED, stop_reason="the sweep died before the trial started")
                self.study.tell(trial.number, state=TrialState.FAIL)
                continue
            result = self._result_on_disk(trial)
            if result is not None:
                self._events.append(f"trial {trial.number}: result found on disk")
                self._conclude(trial.number, result)
            else:
                waiting.append(trial.number)
        return waiting

    def _result_on_disk(self, trial: FrozenTrial) -> SeatReport | None:
        path = self.folder / trial.user_attrs["folder"] / "result.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return None
        if values.pop("config_hash", None) != trial.user_attrs["config_hash"]:
            return None
        return SeatReport.from_dict(values)

    def _count_finished(self) -> int:
        return len(self.study.get_trials(deepcopy=False, states=FINISHED))

    def _set(self, number: int, **attributes: Any) -> None:
        trial = self._handle(number)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)

    def _handle(self, number: int) -> Trial:
        return Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)

    # --- the three calls ---------------------------------------------------------------------------------------

    def register(self, worker: int, base_eval_loss: float) -> None:
        """Take a worker's loss of the untouched base."""
        known = self.study.user_attrs.get("base_eval_loss")
        if known is None:
            self.study.set_user_attr("base_eval_loss", base_eval_loss)
        self._events.append(f"worker {worker}: ready, untouched base {base_eval_loss:.4f}")

    def ask(self, worker: int, seats: Sequence[int]) -> Reply:
        """Trials for free seats: first those that lost their worker, then new ones, until the target is met."""
        start = []
        for seat in seats:
            assignment = None if self._is_over() else (self._take_waiting() or self._draw())
            if assignment is None:
                break
            # Written before work starts, so that a crash leaves a trial that can be found again.
            self._set(assignment.number, worker=worker, seat=seat, attempt=assignment.attempt)
            start.append(Placed(seat, assignment))
            self._events.append(f"trial {assignment.number}: started on worker {worker} seat {seat}")
        return Reply(start=tuple(start), stop=self._stopping)

    def report(self, worker: int, reports: Sequence[SeatReport], free: Sequence[int], speed: float) -> Reply:
        """Record the reports of one pack together, then decide who goes on and who takes the freed seats.

        All values are in the study before the first decision, so that no trial is judged without its neighbours.
        `free` are the worker's empty seats, `speed` its tokens per second.
        """
        self._speed[worker] = speed
        ongoing = [report for report in reports if self._record(report)]
        leave = []
        for report in ongoing:
            if report.outcome is not None:
                self._conclude(report.number, report)
            elif self._should_prune(report):
                self._conclude_pruned(report)
                leave.append(report.number)
        late = [r.number for r in reports if r not in ongoing and r.outcome is None]
        freed = [trial["seat"] for n in leave if (trial := self._progress.pop(n, None)) and "seat" in trial]
        reply = self.ask(worker, [*free, *freed])
        return Reply(leave=(*leave, *late), start=reply.start, stop=reply.stop)

    def rejoin(self, worker: int) -> None:
        """A worker (re)starts: its unfinished trials go back to the head of the line."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        lost = [
            trial.number
            for trial in running
            if trial.user_attrs.get("worker") == worker and trial.number not in self._waiting
        ]
        self._waiting = sorted({*self._waiting, *lost})
        for number in lost:
            self._events.append(f"trial {number}: lost its worker {worker}, waits for a seat")

    # --- drawing -----------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        timeout = self.ledger.search["timeout_seconds"]
        return self._stopping or (timeout is not None and time.monotonic() - self._started > timeout)

    def _take_waiting(self) -> Assignment | None:
        while self._waiting:
            number = self._waiting.pop(0)
            trial = self.study.get_trials(deepcopy=False)[number]
            attempt = int(trial.user_attrs.get("attempt", 0)) + 1
            if attempt > MAX_ATTEMPTS:
                reason = f"lost its worker {MAX_ATTEMPTS} times"
                self._set(number, outcome=FAILED, stop_reason=reason)
                self.study.tell(number, state=TrialState.FAIL)
                self._events.append(f"trial {number}: failed, {reason}")
                continue
            config = TrialConfig.from_dict(trial.user_attrs["config"])
            return self._assignment(number, config, attempt)
        return None

    def _draw(self) -> Assignment | None:
        trials = self.study.get_trials(deepcopy=False)
        open_or_done = [t for t in trials if t.state != TrialState.WAITING]
        if len(open_or_done) >= self.ledger.trials:
            return None
        self.study.sampler = make_sampler(self.ledger.search, self.ledger.space, len(open_or_done))
        if isinstance(self.study.sampler, GridSampler) and self.study.sampler.is_exhausted(self.study):
            return None
        trial = self.study.ask()
        params = self.ledger.space.suggest(trial)
        folder = f"trials/{trial.number:04d}"
        try:
            config = self.ledger.trial_config(params)
        except TrialConfigError as error:
            self._set(trial.number, folder=folder, outcome=FAILED, stop_reason=str(error))
            self.study.tell(trial.number, state=TrialState.FAIL)
            return self._draw()
        attributes = {
            "folder": folder,
            "config_hash": config.hash(),
            "origin": trial.user_attrs.get("origin", "sampler"),
            "config": config.to_dict(),
        }
        for name, value in attributes.items():
            if trial.user_attrs.get(name) != value:
                trial.set_user_attr(name, value)
        atomic_write_json(
            self.folder / folder / "config.json",
            {"number": trial.number, "params": params, "config": config.to_dict(), "config_hash": config.hash()},
        )
        return self._assignment(trial.number, config, attempt=1)

    def _assignment(self, number: int, config: TrialConfig, attempt: int) -> Assignment:
        folder = self.folder / f"trials/{number:04d}"
        return Assignment(number=number, config=config, folder=str(folder), attempt=attempt)

    # --- recording ---------------------------------------------------------------------------------------------

    def _record(self, report: SeatReport) -> bool:
        """Write a report's value; False for a report that comes too late (its trial is over or was given away)."""
        trial = self.study.get_trials(deepcopy=False)[report.number]
        if trial.state != TrialState.RUNNING or trial.user_attrs.get("attempt") != report.attempt:
            return False
        if report.eval_loss is not None and report.percent not in trial.intermediate_values:
            self._handle(report.number).report(report.eval_loss, report.percent)
        self._progress[report.number] = {
            "number": report.number,
            "seat": trial.user_attrs.get("seat"),
            "worker": trial.user_attrs.get("worker"),
            "percent": report.percent,
            "eval_loss": report.eval_loss,
            "learning_rate": trial.params.get("learning_rate"),
        }
        return True

    def _should_prune(self, report: SeatReport) -> bool:
        trial = self.study.get_trials(deepcopy=False)[report.number]
        if trial.user_attrs.get("label") in NEVER_PRUNED:
            return False
        return self._handle(report.number).should_prune()

    def _conclude_pruned(self, report: SeatReport) -> None:
        rivals = [
            t.intermediate_values[report.percent]
            for t in self.study.get_trials(deepcopy=False)
            if report.percent in t.intermediate_values
        ]
        assert report.eval_loss is not None
        rank = 1 + sum(value < report.eval_loss for value in rivals)
        reason = (
            f"{self.ledger.search['pruner']} at {report.percent}% of the budget: evaluation loss "
            f"{report.eval_loss:.4f} is number {rank} of {len(rivals)} there"
        )
        self._conclude(report.number, report.ended(PRUNED, reason))

    def _conclude(self, number: int, report: SeatReport) -> None:
        """Write down how a trial ended, then tell the study: the one gate through which every trial passes."""
        outcome = report.outcome
        assert outcome is not None
        values = report.to_dict()
        self._set(
            number,
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
        if outcome == COMPLETE:
            self.study.tell(number, report.eval_loss, state=TrialState.COMPLETE)
        elif outcome in (PRUNED, DIVERGED, OUT_OF_MEMORY):
            # PRUNED, not FAIL: samplers learn from pruned trials and ignore failed ones.
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, state=TrialState.FAIL)
        loss = "" if report.eval_loss is None else f", evaluation loss {report.eval_loss:.4f}"
        self._events.append(f"trial {number}: {outcome}{loss} ({report.stop_reason})")
        if outcome != PRUNED:
            self._progress.pop(number, None)

    # --- seen from outside -------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Let every worker checkpoint its trials and end; they go on in the next run."""
        self._stopping = True

    def status(self, events_from: int = 0) -> Status:
        """A snapshot; `events_from` skips events that were read before."""
        status = read_status(self.study, self.ledger.trials)
        elapsed = time.monotonic() - self._started
        done = status.finished - self._finished_before
        status.running = sorted(self._progress.values(), key=lambda p: int(p["number"]))
        status.tokens_per_second = sum(self._speed.values())
        status.elapsed_seconds = elapsed
        status.seconds_left = (self.ledger.trials - status.finished) * elapsed / done if done > 0 else None
        status.events = self._events[events_from:]
        return status


def read_status(study: optuna.Study, target: int) -> Status:
    """Counts, best and guideline default of a study, whoever is running it."""
    trials = study.get_trials(deepcopy=False)
    status = Status(study.study_name, target, base_eval_loss=study.user_attrs.get("base_eval_loss"))
    complete = []
    for trial in trials:
        status.states[trial.state.name] = status.states.get(trial.state.name, 0) + 1
        if outcome := trial.user_attrs.get("outcome"):
            status.outcomes[outcome] = status.outcomes.get(outcome, 0) + 1
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            complete.append(trial)
            if trial.user_attrs.get("label") in NEVER_PRUNED:
                status.default_loss = trial.value
    if complete:
        best = min(complete, key=lambda t: (t.value, t.number))
        status.best = {"number": best.number, "eval_loss": best.value, "params": dict(best.params)}
    return status


def as_plain(status: Status) -> dict[str, Any]:
    """A status as JSON-ready builtins."""
    return asdict(status) | {"finished": status.finished}


