"""Interrupted trials, and which of them gets the next free seat.

A worker that dies interrupts all trials of its pack, and any of them may have been the cause. So each counts
a loss. A trial with two losses and no new report in between is a suspect: it runs alone, and on a different
worker where there is one, since the machine may be broken. A trial that loses its worker three times while
alone fails. A new report resets the count. Counts are kept in the study, so that a restarted keeper knows
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import optuna
from optuna.trial import FrozenTrial, TrialState

from lora_runner.protocol import FAILED
from sweeps.study.study import set_user_attrs

SUSPECT_LOSSES = 2
"""A trial that lost its worker this often without a new report in between runs alone."""
MAX_LOSSES_ALONE = 3
"""A trial that lost its worker this often while alone on it fails."""


class RetryQueue:
    """Numbers of interrupted trials, in the order in which they are seated again."""

    def __init__(self, study: optuna.Study, numbers: Iterable[int], note: Callable[[str], None]) -> None:
        self.study = study
        self._note = note
        self.numbers = sorted(numbers)

    def add(self, trial: FrozenTrial) -> None:
        """Queue a trial. The study records that it has no seat, for a keeper that follows this one."""
        set_user_attrs(self.study, trial, run=None)
        self.numbers = sorted({*self.numbers, trial.number})

    def put_back(self, trial: FrozenTrial, reason: str | None) -> None:
        """Queue a trial that ran out of memory. The study records it: a trial has this chance once."""
        set_user_attrs(self.study, trial, put_back=1)
        self._note(f"trial {trial.number}: put back by worker {trial.user_attrs['worker']} ({reason})")
        self.add(trial)

    def record_loss(self, trial: FrozenTrial, *, alone: bool, reason: str) -> bool:
        """Count a lost worker; False when the trial has now failed for it."""
        losses, losses_alone = losses_of(trial)
        losses, losses_alone = losses + 1, losses_alone + alone
        set_user_attrs(self.study, trial, lost_workers=[losses, losses_alone])
        if losses_alone < MAX_LOSSES_ALONE:
            return True
        reason = f"lost its worker {losses} times, {losses_alone} of them alone on it: {reason}"
        set_user_attrs(self.study, trial, outcome=FAILED, stop_reason=reason)
        self.study.tell(trial.number, state=TrialState.FAIL)
        self._note(f"trial {trial.number}: failed, {reason}")
        return False

    def reset_losses(self, trial: FrozenTrial) -> None:
        """The trial has reported something new, so it got past whatever ended its workers."""
        if losses_of(trial) != (0, 0):
            set_user_attrs(self.study, trial, lost_workers=[0, 0])

    def next_for(
        self, worker: int, companions: Iterable[FrozenTrial], *, has_others: bool
    ) -> FrozenTrial | None:
        """Take the next trial for a seat of `worker` beside `companions`; None when none may go there.

        `has_others`: another worker is active, so a suspect need not return to the one it was lost with.
        """
        neighbours = list(companions)
        if any(map(is_suspect, neighbours)):
            return None
        trials = self.study.get_trials(deepcopy=False)
        for number in self.numbers:
            trial = trials[number]
            was_here = losses_of(trial)[1] > 0 and trial.user_attrs.get("worker") == worker
            if is_suspect(trial) and (neighbours or (has_others and was_here)):
                continue
            self.numbers.remove(number)
            return trial
        return None


def losses_of(trial: FrozenTrial) -> tuple[int, int]:
    """How often a trial lost its worker since its last new report, and how often while alone."""
    losses, alone = trial.user_attrs.get("lost_workers") or (0, 0)
    return int(losses), int(alone)


def is_suspect(trial: FrozenTrial) -> bool:
    """Whether a trial may be what ends its workers."""
    return losses_of(trial)[0] >= SUSPECT_LOSSES
