"""Everything that a report shows, read once from the study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from files_and_text.plain_values import finite
from results.hyperparameter_importance import Importance, read_importance
from results.stored_trials import by_percent
from results.sweep_result import SweepResult, TrialResult, read_study, study_hash
from results.verdict.verdict import Verdict

EARLY = ("pruned", "diverged", "out_of_memory", "failed")
"""Outcomes of trials that ended before their full budget."""


@dataclass(frozen=True, kw_only=True)
class SeatUse:
    """A trial's time on its seat, in UTC without a time zone, as Optuna stores it."""

    number: int
    worker: int
    seat: int
    start: datetime
    end: datetime | None
    """None while it runs."""
    outcome: str


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """A sweep as its report shows it."""

    sweep: SweepResult
    verdict: Verdict | None
    """None before the first trial was drawn."""
    curves: Mapping[int, Sequence[tuple[int, float]]]
    """Trial number -> (percent of its budget, finite loss in nats per token), in order of the percent."""
    seat_uses: Sequence[SeatUse]
    sign_details: Mapping[int, Sequence[Mapping[str, Any]]]
    """Trial number -> its stability signs as recorded: sign, step, detail."""
    importance: Importance
    study_hash: str
    sweep_file: str
    """The resolved sweep file's text; "" when there is none."""
    run_folder: str
    """As on the command line."""
    target: int | None
    """Finished trials that the sweep asks for; None when not known."""
    is_exhausted: bool
    """Whether the search space was tried completely, with fewer trials than `target`."""
    seat_busy_share: float | None

    @property
    def ended_early(self) -> list[TrialResult]:
        return [trial for trial in self.sweep.trials if trial.outcome in EARLY]

    @property
    def outcomes(self) -> Counter[str]:
        """Outcome -> number of trials; `waiting` is Optuna's state WAITING."""
        return Counter(trial.outcome for trial in self.sweep.trials)

    @property
    def num_ended(self) -> int:
        return sum(n for outcome, n in self.outcomes.items() if outcome not in ("running", "waiting"))

    @property
    def is_unfinished(self) -> bool:
        """Whether trials are running or waiting, or fewer than `target` have ended."""
        if self.outcomes["running"]:
            return True
        if self.target is None:
            return bool(self.outcomes["waiting"])
        return self.num_ended < self.target and not self.is_exhausted


def read_facts(
    study: optuna.Study,
    verdict: Verdict | None,
    *,
    sweep_file: str = "",
    run_folder: str = "",
    target: int | None = None,
) -> ReportFacts:
    """Read a study at any point of its sweep; `verdict` is the one that the report shows."""
    trials = study.get_trials(deepcopy=False)
    return ReportFacts(
        sweep=read_study(study),
        verdict=verdict,
        curves={trial.number: _curve(trial) for trial in trials},
        seat_uses=[seat_use for trial in trials if (seat_use := _seat_use(trial)) is not None],
        sign_details={t.number: list(t.user_attrs.get("signs") or ()) for t in trials},
        importance=read_importance(study),
        study_hash=study_hash(study),
        sweep_file=sweep_file,
        run_folder=run_folder or f"runs/{study.study_name}",
        target=target,
        is_exhausted=bool(study.user_attrs.get("exhausted")),
        seat_busy_share=finite(study.user_attrs.get("seat_busy_share")),
    )


def _curve(trial: FrozenTrial) -> list[tuple[int, float]]:
    points = by_percent(trial).items()
    return [(percent, loss) for percent, value in points if (loss := finite(value)) is not None]


def _seat_use(trial: FrozenTrial) -> SeatUse | None:
    """None for a trial that never had a seat, such as one in state WAITING."""
    worker, seat = trial.user_attrs.get("worker"), trial.user_attrs.get("seat")
    if worker is None or seat is None or trial.datetime_start is None or trial.state == TrialState.WAITING:
        return None
    outcome = trial.user_attrs.get("outcome")
    return SeatUse(
        number=trial.number,
        worker=int(worker),
        seat=int(seat),
        start=trial.datetime_start,
        end=trial.datetime_complete,
        outcome=str(outcome or _OUTCOMES.get(trial.state, "running")),
    )


_OUTCOMES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
