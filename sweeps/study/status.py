"""The state of a sweep, counted from its study; works for a sweep that runs elsewhere or has ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from results.stored_trials import by_percent, full_budget_loss, rank
from search_spaces import DEFAULT_LABEL, MOVED_LABEL
from sweeps.study.compute_paths import COMPUTE_PATHS
from sweeps.study.study import COUNTED_STATES, is_prefetched


@dataclass
class Status:
    """A snapshot for the live view, the end of a run and `sweeps status`."""

    name: str
    target: int
    """Finished trials of the whole sweep; failed ones do not count."""
    states: dict[str, int] = field(default_factory=dict)
    """Trials by Optuna's state; a prefetched one counts as WAITING, though Optuna has it RUNNING."""
    outcomes: dict[str, int] = field(default_factory=dict)
    running: list[dict[str, Any]] = field(default_factory=list)
    """number, worker, seat, percent and eval_loss of every trial that has started and not ended."""
    metric: str | None = None
    """Name of the metric, if one is measured beside the loss."""
    is_objective: bool = False
    """Whether `best` is the best by the metric."""
    best: dict[str, Any] | None = None
    """number, eval_loss, params, and metric if there is one."""
    default_loss: float | None = None
    """Loss of the guideline default, once it has used its full budget."""
    base_eval_loss: float | None = None
    base_metric: float | None = None
    """Metric of the untouched base."""
    compute_paths: list[dict[str, Any]] = field(default_factory=list)
    """How its workers computed: device, path, details and notes; more than one where trials mix rounding."""
    num_put_back: int = 0
    """Trials that ran out of memory in a pack and were put back to be tried again."""
    seat_busy_share: float | None = None
    """Share of the seats' time in which they held a trial and the pack computed, while there were trials to
    hand out. Of the latest run; known once a trial has ended."""
    tokens_per_second: float = 0.0
    elapsed_seconds: float = 0.0
    seconds_left: float | None = None
    """None until a trial has finished in this run."""
    storage_away_seconds: float = 0.0
    """How long the storage has been unavailable; 0 while it answers."""
    ending: bool = False
    """Whether the keeper hands out no more trials: none is left, it was stopped or failed, or time is up."""
    events: list[str] = field(default_factory=list)
    """One line per change since the keeper's process started, oldest first."""
    life: str = ""
    """Random name of that process; when it changes, `events` starts over."""

    @property
    def finished(self) -> int:
        """Trials that ended and did not fail."""
        return sum(self.states.get(state.name, 0) for state in COUNTED_STATES)

    @property
    def failed(self) -> int:
        """Trials that failed. A configuration that is tried again is another trial."""
        return self.states.get(TrialState.FAIL.name, 0)

    @property
    def has_work(self) -> bool:
        """Whether trials are missing or have not ended."""
        return self.finished < self.target or self.states.get(TrialState.RUNNING.name, 0) > 0


def is_default(trial: FrozenTrial) -> bool:
    """Whether a trial is the guideline default, with which every verdict compares."""
    return trial.user_attrs.get("label") in (DEFAULT_LABEL, MOVED_LABEL)


def read_status(study: optuna.Study, target: int) -> Status:
    """Counts, best and guideline default of a study."""
    attributes = study.user_attrs
    status = Status(
        study.study_name,
        target,
        base_eval_loss=attributes.get("base_eval_loss"),
        base_metric=attributes.get("base_metric"),
        seat_busy_share=attributes.get("seat_busy_share"),
        compute_paths=[
            {name: value for name, value in path.items() if name != "certificate"}
            for path in attributes.get(COMPUTE_PATHS) or []
        ],
    )
    metric = (attributes.get("context") or {}).get("metric") or {}
    status.metric, status.is_objective = metric.get("name"), bool(metric.get("objective"))
    complete = []
    for trial in study.get_trials(deepcopy=False):
        state = TrialState.WAITING if is_prefetched(trial) else trial.state
        status.states[state.name] = status.states.get(state.name, 0) + 1
        status.num_put_back += bool(trial.user_attrs.get("put_back"))
        if trial.state.is_finished() and (outcome := trial.user_attrs.get("outcome")):
            status.outcomes[outcome] = status.outcomes.get(outcome, 0) + 1
        if state == TrialState.RUNNING:
            losses = by_percent(trial)
            percent = max(losses, default=0)
            status.running.append(
                {
                    "number": trial.number,
                    "worker": trial.user_attrs.get("worker"),
                    "seat": trial.user_attrs.get("seat"),
                    "percent": percent,
                    "eval_loss": losses.get(percent),
                }
            )
        if (loss := full_budget_loss(trial)) is not None:
            complete.append(trial)
            if is_default(trial):
                status.default_loss = loss
    if complete:
        best = min(complete, key=rank)
        status.best = {
            "number": best.number,
            "eval_loss": full_budget_loss(best),
            "params": dict(best.params),
        }
        if metric:
            status.best["metric"] = best.user_attrs.get("metric")
    return status


def as_plain(status: Status) -> dict[str, Any]:
    """A status as JSON-ready builtins."""
    return asdict(status) | {"finished": status.finished, "failed": status.failed}
