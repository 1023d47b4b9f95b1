"""Which trial is on which worker and seat, as recorded in the study."""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from files_and_text.trial_paths import trial_folder
from lora_runner.config import TrialConfig
from lora_runner.protocol import Assignment, SeatReport
from results.stored_trials import AT_REST, FROZEN, STAYS, is_frozen
from sweeps.study.study import is_prefetched, set_user_attrs


def seated_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were given a seat, in this run or an earlier one, and have not ended."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if not is_prefetched(trial)]


def trials_of_run(study: optuna.Study, run: str) -> list[FrozenTrial]:
    """Trials on seats of this run."""
    return [trial for trial in seated_trials(study) if trial.user_attrs.get("run") == run]


def trials_without_seat(study: optuna.Study, run: str) -> list[FrozenTrial]:
    """Trials that have lost their seat, or are on a seat of an earlier run; no frozen ones."""
    return [
        trial for trial in seated_trials(study) if trial.user_attrs.get("run") != run and not is_frozen(trial)
    ]


def frozen_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were stopped early and may be taken up again."""
    return [trial for trial in seated_trials(study) if is_frozen(trial)]


def current_reports(
    study: optuna.Study, reports: Iterable[SeatReport], interrupted: Container[int]
) -> list[tuple[FrozenTrial, SeatReport]]:
    """Reports of trials that are on their assigned seat, each with the trial as the study has it.

    `interrupted`: numbers of trials that have lost their seat.
    """
    trials = study.get_trials(deepcopy=False)
    return [
        (trials[report.number], report)
        for report in reports
        if report.number < len(trials)
        and report.number not in interrupted
        and trials[report.number].state == TrialState.RUNNING
        and not is_frozen(trials[report.number])
        and trials[report.number].user_attrs.get("attempt") == report.attempt
    ]


def frozen_before(study: optuna.Study, reports: Iterable[SeatReport]) -> list[int]:
    """Trials that an earlier call with these reports froze, whose reply the worker did not get."""
    frozen = {trial.number: trial.user_attrs["attempt"] for trial in frozen_trials(study)}
    return [report.number for report in reports if frozen.get(report.number) == report.attempt]


def stays_until_now(trial: FrozenTrial) -> list[list[Any]]:
    """The trial's stays on seats, of which the last ends now."""
    *before, last = trial.user_attrs.get(STAYS) or [
        [trial.user_attrs.get("worker"), trial.user_attrs.get("seat"), None, None]
    ]
    return [*before, [*last[:3], now_text()]]


def now_text() -> str:
    """The time as Optuna has it: local, without a zone."""
    return datetime.now().isoformat()


def assign_seat(
    study: optuna.Study, trial: FrozenTrial, worker: int, seat: int, *, run: str, run_folder: Path
) -> Assignment:
    """Record the seat before the trial starts: reports of earlier attempts no longer count."""
    attempt = int(trial.user_attrs.get("attempt", 0)) + 1
    attributes: dict[str, Any] = {"worker": worker, "seat": seat, "attempt": attempt, "run": run}
    if is_frozen(trial):
        attributes |= {FROZEN: None, AT_REST: None, "outcome": None, "stop_reason": None}
    if stays := list(trial.user_attrs.get(STAYS) or ()):
        began = now_text()
        if stays[-1][3] is None:  # interrupted since it was taken up again
            began = stays.pop()[2]
        attributes[STAYS] = [*stays, [worker, seat, began, None]]
    set_user_attrs(study, trial, **attributes)
    return Assignment(
        number=trial.number,
        config=TrialConfig.from_dict(trial.user_attrs["config"]),
        folder=str(run_folder / trial_folder(trial.number)),
        attempt=attempt,
        put_back=int(trial.user_attrs.get("put_back", 0)),
    )
