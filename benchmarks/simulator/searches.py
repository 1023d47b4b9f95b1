"""A search over simulated or replayed trials: seats in virtual time, one Optuna study in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import Trial, TrialState

from benchmarks.simulator.curves import Curve
from search_spaces import SearchSpace
from search_spaces.search_space import FirstTrial


class Trials(Protocol):
    """Where a trial's losses come from."""

    report_at: tuple[int, ...]

    def curve(self, params: Mapping[str, Any]) -> Curve:
        """A run of this configuration."""


SamplerFor = Callable[[int], BaseSampler]
"""The sampler for the trial of this number, as the keeper makes one for each trial."""


@dataclass
class _Seat:
    trial: Trial
    params: dict[str, Any]
    curve: Curve
    done: int = 0
    """Percent of its budget."""
    outcome: str = ""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A trial that is over."""

    at: int
    """Virtual time, in percent of a full trial."""
    params: dict[str, Any]
    outcome: str
    """complete | pruned | diverged."""
    loss: float | None
    """At the full budget."""


def search(
    trials: Trials,
    space: SearchSpace,
    first: Sequence[FirstTrial],
    sampler_for: SamplerFor,
    pruner: BasePruner,
    *,
    seats: int,
    compute: int,
) -> list[Ended]:
    """The trials of a search of `compute` full trials' worth of seat time, in order of their end.

    Trials that report at the same time are recorded before any of them is decided on, as in a pack. The first
    of `first`, the guideline default, is never pruned.
    """
    study = optuna.create_study(pruner=pruner)
    for each in first:
        study.enqueue_trial(each.params)
    running: list[_Seat] = []
    ended: list[Ended] = []
    now, end = 0, 100 * compute // seats
    while True:
        while len(running) < seats:
            study.sampler = sampler_for(_num_drawn(study))
            trial = study.ask()
            params = space.suggest(trial)
            running.append(_Seat(trial, params, trials.curve(params)))
        # All seats train at the same speed: the next report of any of them.
        step = min(_next_report(seat, trials.report_at) - seat.done for seat in running)
        now += step
        if now > end:
            return ended
        due = [seat for seat in running if _next_report(seat, trials.report_at) == seat.done + step]
        for seat in running:
            seat.done += step
        for seat in due:
            if _has_diverged(seat):
                seat.outcome = "diverged"
            else:
                seat.trial.report(seat.curve.losses[seat.done], seat.done)
        for seat in due:
            if seat.outcome:
                continue
            if seat.done == 100:
                seat.outcome = "complete"
            elif seat.trial.number > 0 and pruner.prune(study, _frozen(study, seat.trial)):
                seat.outcome = "pruned"
        for seat in due:
            if not seat.outcome:
                continue
            loss = seat.curve.losses[100] if seat.outcome == "complete" else None
            if seat.outcome == "diverged" and isinstance(study.sampler, TPESampler):
                seat.trial.set_constraint("trainable", 1.0)  # as the keeper tells TPE
            study.tell(seat.trial, loss, state=None if loss is not None else TrialState.PRUNED)
            ended.append(Ended(at=now, params=seat.params, outcome=seat.outcome, loss=loss))
        running = [seat for seat in running if not seat.outcome]


def best_by(ended: Sequence[Ended], at: float) -> Ended | None:
    """The complete trial of the lowest loss by this time; None when there is none."""
    complete = [trial for trial in ended if trial.loss is not None and trial.at <= at]
    return min(complete, key=lambda trial: trial.loss or 0.0, default=None)


def _has_diverged(seat: _Seat) -> bool:
    at = seat.curve.diverged_at
    return at is not None and seat.done >= at


def _next_report(seat: _Seat, report_at: Sequence[int]) -> int:
    return next(percent for percent in report_at if percent > seat.done)


def _num_drawn(study: optuna.Study) -> int:
    """Trials drawn so far: the number of the next one for the keeper's seeds."""
    trials = study.get_trials(deepcopy=False)
    return sum(trial.state != TrialState.WAITING for trial in trials)


def _frozen(study: optuna.Study, trial: Trial) -> optuna.trial.FrozenTrial:
    return study.get_trials(deepcopy=False)[trial.number]
