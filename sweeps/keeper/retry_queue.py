"""Trials that have begun and have no seat: which of them goes where, and which is given up.

A worker that dies takes all trials of its pack along, and nobody can see which of them, if any, was the
reason. So each of them counts a loss; a trial that has lost its worker twice without a new report in between
is a suspect and gets a worker for itself, each time another one if there is another: the machine may be
broken. One that takes its workers down again and again while it is alone is failed. A new report clears a
trial. What has been counted stands in the study, so a new keeper knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import optuna
from optuna.trial import FrozenTrial, TrialState

from lora_runner.protocol import FAILED
from sweeps.study.study import set_user_attrs

LOSSES_OF_A_SUSPECT = 2
"""A trial that lost its worker this often without a report in between goes on alone."""
MAX_LOST_ALONE = 3
"""A trial that took its worker down this often while it was alone there is failed."""


class RetryQueue:
    """The line of the trials without a seat, by number."""

    def __init__(self, study: optuna.Study, numbers: Iterable[int], note: Callable[[str], None]) -> None:
        self.study = study
        self._note = note
        self._numbers = sorted(numbers)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._numbers)

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def __bool__(self) -> bool:
        return bool(self._numbers)

    def add(self, trial: FrozenTrial) -> None:
        """Let a trial wait for a seat; the study says so, for a keeper that follows this one."""
        set_user_attrs(self.study, trial, run=None)
        self._numbers = sorted({*self._numbers, trial.number})

    def put_back(self, trial: FrozenTrial, reason: str | None) -> None:
        """Let a trial wait for another seat; that it had this chance stands in the study."""
        set_user_attrs(self.study, trial, put_back=1)
        self._note(f"trial {trial.number}: put back by worker {trial.user_attrs['worker']} ({reason})")
        self.add(trial)

    def lost(self, trial: FrozenTrial, *, alone: bool, reason: str) -> bool:
        """Count the loss of a trial's worker; False when the trial was given up for it."""
        losses, losses_alone = losses_of(trial)
        losses, losses_alone = losses + 1, losses_alone + alone
        set_user_attrs(self.study, trial, lost_workers=[losses, losses_alone])
        if losses_alone < MAX_LOST_ALONE:
            return True
        reason = f"lost its worker {losses} times, {losses_alone} of them alone on it: {reason}"
        set_user_attrs(self.study, trial, outcome=FAILED, stop_reason=reason)
        self.study.tell(trial.number, state=TrialState.FAIL)
        self._note(f"trial {trial.number}: failed, {reason}")
        return False

    def cleared(self, trial: FrozenTrial) -> None:
        """A trial has reported something new: whatever took its workers down, it got over it."""
        if losses_of(trial) != (0, 0):
            set_user_attrs(self.study, trial, lost_workers=[0, 0])

    def next_for(
        self, worker: int, companions: Iterable[FrozenTrial], *, has_others: bool
    ) -> FrozenTrial | None:
        """The next trial for a seat of `worker` beside `companions`, out of the line; None when none may go.

        `has_others`: there are other workers, for a trial that this one was lost with.
        """
        beside = list(companions)
        if any(is_suspect(trial) for trial in beside):
            return None
        trials = self.study.get_trials(deepcopy=False)
        for number in self._numbers:
            trial = trials[number]
            was_here = losses_of(trial)[1] > 0 and trial.user_attrs.get("worker") == worker
            if is_suspect(trial) and (beside or (has_others and was_here)):
                continue
            self._numbers.remove(number)
            return trial
        return None


def losses_of(trial: FrozenTrial) -> tuple[int, int]:
    """How often a trial lost its worker since its last new report, and how often alone."""
    losses, alone = trial.user_attrs.get("lost_workers") or (0, 0)
    return int(losses), int(alone)


def is_suspect(trial: FrozenTrial) -> bool:
    """Whether a trial may be what takes its workers down."""
    return losses_of(trial)[0] >= LOSSES_OF_A_SUSPECT
