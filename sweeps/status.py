"""What a sweep has come to: counted from its study, whoever is running it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState

from search_spaces import DEFAULT_LABEL, MOVED_LABEL
from sweeps.study import FINISHED

DEFAULT_LABELS = (DEFAULT_LABEL, MOVED_LABEL)
"""Labels of the trial that holds the tables' own values: every verdict compares with it."""


@dataclass
class Status:
    """A snapshot for the live view, the end of a run and `sweeps status`."""

    name: str
    target: int
    """Finished trials of the whole sweep."""
    states: dict[str, int] = field(default_factory=dict)
    """Number of trials by Optuna's state."""
    outcomes: dict[str, int] = field(default_factory=dict)
    running: list[dict[str, Any]] = field(default_factory=list)
    """number, worker, seat, percent and eval_loss of every trial that has begun and not ended."""
    best: dict[str, Any] | None = None
    """number, eval_loss and params."""
    default_loss: float | None = None
    """Of the guideline default, once it has used its full budget."""
    base_eval_loss: float | None = None
    tokens_per_second: float = 0.0
    elapsed_seconds: float = 0.0
    seconds_left: float | None = None
    """None as long as no trial has finished in this run."""
    events: list[str] = field(default_factory=list)
    """One line per change since the sweep's process began, oldest first."""

    @property
    def finished(self) -> int:
        """Trials that ended, in whatever way."""
        return sum(self.states.get(state.name, 0) for state in FINISHED)


def read_status(study: optuna.Study, target: int) -> Status:
    """Counts, best and guideline default of a study."""
    status = Status(study.study_name, target, base_eval_loss=study.user_attrs.get("base_eval_loss"))
    complete = []
    for trial in study.get_trials(deepcopy=False):
        status.states[trial.state.name] = status.states.get(trial.state.name, 0) + 1
        if trial.state.is_finished() and (outcome := trial.user_attrs.get("outcome")):
            status.outcomes[outcome] = status.outcomes.get(outcome, 0) + 1
        if trial.state == TrialState.RUNNING:
            percent = trial.last_step or 0
            status.running.append(
                {
                    "number": trial.number,
                    "worker": trial.user_attrs.get("worker"),
                    "seat": trial.user_attrs.get("seat"),
                    "percent": percent,
                    "eval_loss": trial.intermediate_values.get(percent),
                }
            )
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            complete.append(trial)
            if trial.user_attrs.get("label") in DEFAULT_LABELS:
                status.default_loss = trial.value
    if complete:
        best = min(complete, key=lambda t: (t.value, t.number))
        status.best = {"number": best.number, "eval_loss": best.value, "params": dict(best.params)}
    return status


def as_plain(status: Status) -> dict[str, Any]:
    """A status as JSON-ready builtins."""
    return asdict(status) | {"finished": status.finished}
