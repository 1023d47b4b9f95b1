"""All that a report tells of, read once from the study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from files_and_text.plain_values import finite
from results.report.importance_facts import Importance, read_importance
from results.stored_trials import by_percent
from results.sweep_result import SweepResult, TrialResult, read_study, study_hash
from results.verdict.verdict import Verdict

EARLY = ("pruned", "diverged", "out_of_memory", "failed")
"""Outcomes of a trial that ended before its full budget."""


@dataclass(frozen=True, kw_only=True)
class Stay:
    """A trial on its seat; times are UTC without a zone, as Optuna keeps them."""

    number: int
    worker: int
    seat: int
    start: datetime
    end: datetime | None
    """None while it runs."""
    outcome: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A sweep as its report tells it."""

    sweep: SweepResult
    verdict: Verdict | None
    """None before the first trial was drawn."""
    curves: Mapping[int, Sequence[tuple[int, float]]]
    """Number of a trial -> (percent of its budget, finite loss in nats per token), by percent."""
    stays: Sequence[Stay]
    sign_details: Mapping[int, Sequence[Mapping[str, Any]]]
    """Number of a trial -> its stability signs as it wrote them down: sign, step, detail."""
    importance: Importance
    study_hash: str
    sweep_file: str
    """The resolved sweep file's text; "" when there is none."""
    run_folder: str
    """As a user would name it on the command line."""
    target: int | None
    """Finished trials that were wanted; None when not known."""
    is_exhausted: bool
    """Whether the search had nothing more to try, so that fewer trials than wanted are all there are."""
    seat_busy_share: float | None

    @property
    def finished(self) -> list[TrialResult]:
        """Trials at the full budget with a finite loss, best first."""
        return self.sweep.finished

    @property
    def ended_early(self) -> list[TrialResult]:
        return [trial for trial in self.sweep.trials if trial.outcome in EARLY]

    @property
    def outcomes(self) -> Counter[str]:
        """Outcome -> number of trials; a trial that only waits to be tried is `waiting`."""
        return Counter(trial.outcome for trial in self.sweep.trials)

    @property
    def num_ended(self) -> int:
        return sum(n for outcome, n in self.outcomes.items() if outcome not in ("running", "waiting"))

    @property
    def is_unfinished(self) -> bool:
        """Whether trials run or wait, or fewer have ended than were wanted."""
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
) -> Facts:
    """Read a study, at whatever point it is; `verdict` is the one that the report shows."""
    trials = study.get_trials(deepcopy=False)
    sampler_done = study.user_attrs.get("exhausted")
    return Facts(
        sweep=read_study(study),
        verdict=verdict,
        curves={trial.number: _curve(trial) for trial in trials},
        stays=[stay for trial in trials if (stay := _stay(trial)) is not None],
        sign_details={t.number: list(t.user_attrs.get("signs") or ()) for t in trials},
        importance=read_importance(study),
        study_hash=study_hash(study),
        sweep_file=sweep_file,
        run_folder=run_folder or f"runs/{study.study_name}",
        target=target,
        is_exhausted=bool(sampler_done),
        seat_busy_share=finite(study.user_attrs.get("seat_busy_share")),
    )


def _curve(trial: FrozenTrial) -> list[tuple[int, float]]:
    points = by_percent(trial).items()
    return [(percent, loss) for percent, value in points if (loss := finite(value)) is not None]


def _stay(trial: FrozenTrial) -> Stay | None:
    """None for a trial that never had a seat, such as one that waits."""
    worker, seat = trial.user_attrs.get("worker"), trial.user_attrs.get("seat")
    if worker is None or seat is None or trial.datetime_start is None or trial.state == TrialState.WAITING:
        return None
    outcome = trial.user_attrs.get("outcome")
    return Stay(
        number=trial.number,
        worker=int(worker),
        seat=int(seat),
        start=trial.datetime_start,
        end=trial.datetime_complete,
        outcome=str(outcome or _OUTCOMES.get(trial.state, "running")),
    )


_OUTCOMES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
