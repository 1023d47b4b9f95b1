"""Reports of trials as the keeper recorded them, in their order: what callbacks are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from lora_runner.protocol import COMPLETE, PUT_BACK, SeatReport
from results.stored_trials import rank, search_trials
from search_spaces.dimension import Value


@dataclass(frozen=True, kw_only=True)
class Report:
    """An evaluation of a trial, and what became of the trial there."""

    trial: int
    """Its number."""
    percent: int
    """Of its budget."""
    step: int
    """Optimizer steps done."""
    eval_loss: float | None
    """Nats per token; None where it could not be measured."""
    train_loss: float | None
    metric: float | None = None
    """The sweep's metric, where it has one and measured it here."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """The trial's searched hyperparameters."""
    outcome: str | None = None
    """How the trial ended with this report: complete, pruned, diverged, out_of_memory or failed; None: it
    goes on."""
    is_best: bool = False
    """Whether this completes the best trial so far."""


class ReportLog:
    """Grows with every report; lost with the keeper's process."""

    def __init__(self) -> None:
        self._reports: list[Report] = []

    def since(self, number: int) -> list[Report]:
        """The reports from this one on, counted from 0."""
        return self._reports[number:]

    def add(self, study: optuna.Study, reports: Iterable[tuple[FrozenTrial, SeatReport]]) -> None:
        """Reports of trials as the study holds them now, each with how it ended the trial."""
        for trial, report in reports:
            if report.outcome == PUT_BACK:
                continue
            self._reports.append(
                Report(
                    trial=trial.number,
                    percent=report.percent,
                    step=report.step,
                    eval_loss=report.eval_loss,
                    train_loss=report.train_loss,
                    metric=report.metric,
                    values=dict(trial.params),
                    outcome=report.outcome,
                    is_best=report.outcome == COMPLETE and _best(study) == trial.number,
                )
            )


def _best(study: optuna.Study) -> int | None:
    complete = search_trials(study, (TrialState.COMPLETE,))
    return min(complete, key=rank).number if complete else None
