"""A study that the keeper has open: what draws, records, queues and freezes its trials, and what is left.

It is made anew after a transaction that failed, since what it holds in memory was rolled back in the study.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import optuna
from optuna.trial import FrozenTrial

from lora_runner.protocol import SeatReport
from sweeps.artifacts.checkpoint_store import CheckpointCleaner
from sweeps.keeper.sources.replicate_source import trial_source_for
from sweeps.keeper.sources.tail_source import TailReplicates
from sweeps.keeper.trials.freezer import Freezer
from sweeps.keeper.trials.recorder import Recorder
from sweeps.keeper.trials.recovery import recover_trials
from sweeps.keeper.trials.retry_queue import RetryQueue
from sweeps.keeper.trials.seats import trials_of_run, trials_without_seat
from sweeps.keeper.trials.stop_decision import final_report
from sweeps.plan.specs import StudySpec
from sweeps.study.pruners import make_pruner


class OpenStudy:
    """One study and its trials, as one run of the sweep sees them."""

    def __init__(
        self,
        study_spec: StudySpec,
        study: optuna.Study,
        run: str,
        note: Callable[[str], None],
        cleaner: CheckpointCleaner | None,
    ) -> None:
        self.study_spec, self.study = study_spec, study
        self._run, self._note = run, note
        study.pruner = make_pruner(
            study_spec.search, study_spec.report_at, study_spec.first_pruning_percent, study_spec.space
        )
        self.source = trial_source_for(study_spec, study, note)
        self.tail = TailReplicates(study_spec, study, self.source.record, note)
        self.recorder = Recorder(study_spec, study, note, cleaner)
        self.retry_queue = RetryQueue(study, (), note)
        self.freezer = Freezer(study_spec, study, self.recorder, note)

    # --- trials on seats and off them ---------------------------------------------------------------

    def on_seats(self) -> list[FrozenTrial]:
        """Trials on seats of this run."""
        return trials_of_run(self.study, self._run)

    def on(self, worker: int) -> list[FrozenTrial]:
        """Trials on seats of this worker."""
        return [trial for trial in self.on_seats() if trial.user_attrs.get("worker") == worker]

    def interrupted(self) -> list[FrozenTrial]:
        """Trials that have lost their seat, or are on a seat of an earlier run."""
        return trials_without_seat(self.study, self._run)

    def queue_interrupted(self) -> None:
        """Queue them all for other seats, as the study has them."""
        self.retry_queue = RetryQueue(self.study, [t.number for t in self.interrupted()], self._note)

    def recover(self, trials: Sequence[FrozenTrial], lost_because: str | None = None) -> int:
        """End or queue trials that have lost their worker; returns how many failed because of that."""
        num_failed = recover_trials(
            trials,
            self.recorder,
            self.retry_queue,
            self.final_report,
            self.end,
            self._note,
            lost_because=lost_because,
        )
        self.freezer.give_up_surplus()
        return num_failed

    # --- ends -------------------------------------------------------------------------------------

    def final_report(self, trial: FrozenTrial, report: SeatReport) -> SeatReport | None:
        """The report with its outcome when the trial has ended or is to end; None when it goes on."""
        return final_report(self.study, self.study_spec, trial, report)

    def end(self, trial: FrozenTrial, last: SeatReport, worker: int | None = None) -> None:
        """Record the end of a trial, or freeze it; `worker` still has it on a seat."""
        if self.freezer.takes(last):
            self.freezer.freeze(trial, last, worker)
        else:
            self.recorder.record_end(trial, last)

    # --- what is left -------------------------------------------------------------------------------

    def next_frozen(self, busy: Container[int] = ()) -> FrozenTrial | None:
        """The frozen trial to take up again; None where none may win."""
        return self.freezer.next(has_new=self.source.has_more(), busy=busy)

    def has_new_or_frozen(self) -> bool:
        """Whether there is a new trial for a free seat, or a frozen one that may win."""
        return self.source.has_more() or self.next_frozen() is not None

    def has_more(self) -> bool:
        """Whether there is a trial for a free seat: interrupted, frozen or new."""
        return bool(self.retry_queue.numbers) or self.has_new_or_frozen()

    def search_goes_on(self, is_ending: Callable[[], bool]) -> bool:
        """Whether a trial of the search runs, waits for a seat, or is still to be handed out.

        `is_ending`: whether no more trials are handed out.
        """
        return self.tail.has_running_search() or (not is_ending() and self.has_more())

    def let_frozen_rest_if_over(self, is_ending: Callable[[], bool]) -> None:
        """Once nothing trains and nothing more is handed out, frozen trials wait for more `trials`.

        `is_ending`: whether the run hands out no more although there are some; they wait for the next run.
        """
        if not is_ending():
            self.freezer.set_rest(rests=not (self.on_seats() or self.has_more()))
