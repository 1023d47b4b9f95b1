"""Frozen trials: stopped early with their checkpoint, taken up again when the model says that they may win.

A frozen trial stays RUNNING in Optuna and has no seat, like an interrupted trial that waits for one; its user
attribute `frozen` (the percent of its budget) tells the two apart. So taking it up again is what resuming any
trial is, and bit-equal to never having stopped. Its checkpoint is written by the worker that it leaves, once
the study knows that it is frozen: a worker that dies in between costs steps, and no result. A frozen trial
ends as PRUNED when the checkpoints of all frozen ones exceed `reliability.frozen_gib` and it is the least
likely to win. Those left when the sweep ends are at rest: they count as finished, keep their checkpoints, and
may be taken up again once `trials` is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Container

import optuna
from optuna.trial import FrozenTrial

from files_and_text.numbers import number as number_text
from lora_runner.config import TrialConfig
from lora_runner.protocol import PRUNED, SeatReport
from results.stored_trials import is_at_rest
from search_spaces import SearchSpace
from sweeps.artifacts.trial_folder import read_reports
from sweeps.keeper.trials.recorder import Recorder
from sweeps.keeper.trials.seats import frozen_trials
from sweeps.plan.specs import StudySpec
from sweeps.study.edges.widening import present_space


def frozen_gib(study_spec: StudySpec, study: optuna.Study) -> dict[int, float]:
    """The disk that each frozen trial keeps, in GiB, by number."""
    return {
        trial.number: study_spec.frozen_gib(TrialConfig.from_dict(trial.user_attrs["config"]).lora_r)
        for trial in frozen_trials(study)
    }


def surplus_text(study_spec: StudySpec, study: optuna.Study) -> str | None:
    """That frozen trials of a finished sweep keep more disk than the sweep file now allows; None if not."""
    kept, most = sum(frozen_gib(study_spec, study).values()), study_spec.reliability.frozen_gib
    if kept <= most:
        return None
    return (
        f"Frozen trials keep {number_text(kept)} GiB; reliability.frozen_gib ({number_text(most)}) takes "
        "effect once `trials` is raised"
    )


class Freezer:
    """The frozen trials of one study."""

    def __init__(
        self, study_spec: StudySpec, study: optuna.Study, recorder: Recorder, note: Callable[[str], None]
    ) -> None:
        self.study_spec, self.study = study_spec, study
        self._recorder, self._note = recorder, note
        self.is_on = study_spec.replicates is None and study_spec.search["pruner"] == "freeze_thaw"
        """Whether trials are frozen instead of pruned."""
        self._leaving: dict[int, int] = {}
        """Trial -> the worker that may still be writing its checkpoint."""
        self._ended: list[tuple[FrozenTrial, SeatReport | None]] = []

    def takes(self, last: SeatReport) -> bool:
        """Whether a trial that is stopped by this report is frozen instead."""
        return self.is_on and last.outcome == PRUNED

    def freeze(self, trial: FrozenTrial, report: SeatReport, worker: int | None = None) -> None:
        """Freeze a trial with this report, which says why; `worker`: the one that writes its checkpoint."""
        self._recorder.record_frozen(trial, report)
        if worker is not None:
            self._leaving[trial.number] = worker

    def has_left(self, worker: int) -> None:
        """A worker has called again, or is lost: the checkpoints of what left it are written, or never."""
        trials = self.study.get_trials(deepcopy=False)
        for number in [number for number, at in self._leaving.items() if at == worker]:
            del self._leaving[number]
            if trials[number].state.is_finished():  # meanwhile, so its checkpoint came too late
                self._ended.append((trials[number], None))

    def give_up_surplus(self) -> None:
        """End those least likely to win until the checkpoints of the others may stay on disk."""
        most = self.study_spec.reliability.frozen_gib
        gib = frozen_gib(self.study_spec, self.study)
        if not gib or sum(gib.values()) <= most:
            return
        from sweeps.study.curve_gp.curves import curves_of
        from sweeps.study.curve_gp.decisions import least_promising

        why = f"frozen trials may keep {number_text(most)} GiB of disk (reliability.frozen_gib)"
        for number in least_promising(self._space(), curves_of(self.study)):
            self._end(self.study.get_trials(deepcopy=False)[number], why)
            del gib[number]
            if sum(gib.values()) <= most:
                return

    def end_all(self) -> None:
        """End every frozen trial: the sweep file asks for another pruner now."""
        for trial in frozen_trials(self.study):
            self._end(trial, f"the pruner is {self.study_spec.search['pruner']} now")

    def set_rest(self, *, rests: bool) -> None:
        """Record for every frozen trial whether the sweep has ended, so that it waits for more `trials`."""
        for trial in frozen_trials(self.study):
            if is_at_rest(trial) != rests:
                self._recorder.record_rest(trial, rests=rests)

    def take_ended(self) -> list[tuple[FrozenTrial, SeatReport | None]]:
        """Trials whose files are to go, each with its last report if it has ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def next(self, *, has_new: bool, busy: Container[int] = ()) -> FrozenTrial | None:
        """The frozen trial to take up again; None where none may win.

        `has_new`: whether new trials are still to be drawn; `busy`: workers that may still write checkpoints.
        """
        if not self.is_on or not frozen_trials(self.study):
            return None
        from sweeps.study.curve_gp.curves import curves_of
        from sweeps.study.curve_gp.decisions import thaw

        for number in thaw(self._space(), curves_of(self.study), has_new=has_new):
            if self._leaving.get(number) not in busy:
                return self.study.get_trials(deepcopy=False)[number]
        return None

    def _space(self) -> SearchSpace:
        """With the ends that the sweep has moved."""
        return present_space(self.study, self.study_spec.space)

    def _end(self, trial: FrozenTrial, why: str) -> None:
        last = next(reversed(read_reports(self._recorder.folder, trial)), None)
        reason = self._recorder.record_given_up(trial, why)
        self._ended.append((trial, None if last is None else last.ended(PRUNED, reason)))
