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
from results.stored_trials import FROZEN
from search_spaces import SearchSpace
from search_spaces.search_space import FirstTrial
from sweeps.study.curve_gp.curves import curves_of
from sweeps.study.curve_gp.decisions import thaw
from sweeps.study.curve_gp.pruner import FreezeThaw


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
    """complete | pruned | diverged, or frozen to the end."""
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
    of `first`, the guideline default, is never pruned. What FreezeThaw stops keeps its losses and may go on.
    """
    study = optuna.create_study(pruner=pruner)
    for each in first:
        study.enqueue_trial(each.params)
    running: list[_Seat] = []
    frozen: dict[int, _Seat] = {}
    ended: list[Ended] = []
    now, end = 0, 100 * compute // seats
    while True:
        for number in _to_thaw(study, space, frozen)[: seats - len(running)]:
            seat = frozen.pop(number)
            seat.trial.set_user_attr(FROZEN, None)
            running.append(seat)
        while len(running) < seats:
            study.sampler = sampler_for(_num_drawn(study))
            trial = study.ask()
            params = space.suggest(trial)
            running.append(_Seat(trial, params, trials.curve(params)))
        # All seats train at the same speed: the next report of any of them.
        step = min(_next_report(seat, trials.report_at) - seat.done for seat in running)
        now += step
        if now > end:
            return ended + [
                Ended(at=end, params=s.params, outcome="frozen", loss=None) for s in frozen.values()
            ]
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
            if seat.outcome == "pruned" and isinstance(pruner, FreezeThaw):
                seat.outcome, frozen[seat.trial.number] = "frozen", seat
                seat.trial.set_user_attr(FROZEN, seat.done)
            elif seat.outcome:
                _tell(study, seat)
                loss = seat.curve.losses[100] if seat.outcome == "complete" else None
                ended.append(Ended(at=now, params=seat.params, outcome=seat.outcome, loss=loss))
        running = [seat for seat in running if not seat.outcome]
        for seat in frozen.values():
            seat.outcome = ""


def best_by(ended: Sequence[Ended], at: float) -> Ended | None:
    """The complete trial of the lowest loss by this time; None when there is none."""
    complete = [trial for trial in ended if trial.loss is not None and trial.at <= at]
    return min(complete, key=lambda trial: trial.loss or 0.0, default=None)


def _tell(study: optuna.Study, seat: _Seat) -> None:
    """As the keeper does; a diverged trial is set apart for TPE alone."""
    if seat.outcome == "complete":
        study.tell(seat.trial, seat.curve.losses[100])
        return
    if seat.outcome == "diverged":
        seat.trial.set_user_attr("outcome", "diverged")
        if isinstance(getattr(study.sampler, "sampler", study.sampler), TPESampler):
            seat.trial.set_constraint("trainable", 1.0)
    study.tell(seat.trial, state=TrialState.PRUNED)


def _to_thaw(study: optuna.Study, space: SearchSpace, frozen: Mapping[int, _Seat]) -> list[int]:
    """Frozen trials to take up before new ones are drawn, as the keeper does."""
    return thaw(space, curves_of(study), has_new=True) if frozen else []


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
