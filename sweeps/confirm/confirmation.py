"""A confirmation from start to end: check what may be written, tune one rate, run all arms."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.trial import TrialState

from files_and_text.numbers import plural
from results.comparison.arms import Arm
from results.comparison.constants import MARGIN
from results.sweep_result import SweepResult, read_study
from results.verdict.replicates import CONFIRM_SUFFIX
from results.verdict.verdict import Verdict
from sweeps.confirm.arms import check_finished
from sweeps.confirm.one_rate import as_arm, tuned_rate
from sweeps.confirm.request import ConfirmRequest
from sweeps.confirm.set_aside import refuse_if_running, set_aside
from sweeps.confirm.study_specs import check_same_arms, confirm_study_spec, has_work, tuning_study_spec
from sweeps.keeper.failed_trials import TRY_AGAIN, failed_trials
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.sources.replicate_source import is_settled
from sweeps.plan.replicate_plan import ReplicatePlan
from sweeps.plan.specs import StudySpec
from sweeps.study.lease import refuse_unless_free
from sweeps.study.read_status import read_status
from sweeps.study.status import Status
from sweeps.study.study import ENDED_STATES, peek

RunStudy = Callable[[StudySpec, optuna.Study | None], tuple[bool, list[str]]]
"""(what to run, its study if there is one) -> whether it was interrupted, and why it could not be
completed."""


@dataclass
class Progress:
    """How far a confirmation is."""

    status: Status
    clear: bool = False
    """Whether every arm has its relation to the best."""
    interrupted: bool = False
    added: int = 0
    """Runs finished in this call, those that tune one rate included."""
    tuned: int = 0
    """Of these, runs that tune one rate."""
    errors: tuple[str, ...] = ()
    unfinished: bool = False
    """Whether runs are missing for another reason than the budget or an interruption."""
    notes: tuple[str, ...] = ()
    failures: str | None = None
    """Runs that failed and have not been made up for, in words."""
    failed_arms: tuple[Arm, ...] = ()
    """Arms of which every run that ended has failed."""

    @property
    def advice(self) -> str:
        """What to do about runs that failed."""
        if not self.failed_arms:
            return TRY_AGAIN
        names = " and ".join(repr(arm.name) for arm in self.failed_arms)
        advice = f"Every run of {names} failed, so the verdict above says nothing about it."
        if all(arm.role not in ("best", "guideline_default") for arm in self.failed_arms):
            advice += " To leave out all rows' values: --no-rows --anew."
        return f"{advice}\n{TRY_AGAIN}"

    @property
    def counts(self) -> str:
        """The number of runs, in words."""
        status = self.status
        return (
            f"{status.finished} of at most {status.target} runs of {status.name} finished; "
            f"{plural(self.added, 'run')} ended in this call."
        )


@dataclass(frozen=True)
class ConfirmResult:
    """How a call of `Sweep.confirm` ended."""

    verdict: Verdict
    """The verdict from all runs so far."""
    progress: Progress
    run_folder: Path


def sweep_to_confirm(study: optuna.Study, *, lease_seconds: float) -> SweepResult:
    """The sweep as it is now.

    NothingToSay when no trial finished; StudyHeld while the sweep itself is running and its best may change
    (for a sweep on another machine it takes up to `lease_seconds` to find out).
    """
    check_finished(read_study(study))
    refuse_unless_free(study, seconds=lease_seconds)
    return read_study(study)  # the run that held it may have ended it meanwhile


class Confirmation:
    """One call of `sweeps confirm`; `study_spec` and `sweep` are those of the sweep that is confirmed."""

    def __init__(
        self,
        url: str,
        study_spec: StudySpec,
        sweep: SweepResult,
        request: ConfirmRequest,
        run_study: RunStudy,
    ) -> None:
        self._url, self._study_spec, self._sweep, self._request = url, study_spec, sweep, request
        self._run_study = run_study
        present = peek(url, f"{study_spec.name}{CONFIRM_SUFFIX}")
        self._stored = None if present is None else present.user_attrs.get("arms")
        self._tuning = tuning_study_spec(study_spec, sweep, request, self._stored)

    def prepare(self, *, anew: bool = False) -> Confirmation:
        """Raise, before anything is written, what makes it impossible; `anew` sets a present one aside."""
        if anew:
            self._stored = None
            self._tuning = tuning_study_spec(self._study_spec, self._sweep, self._request)
        confirm = self._confirm_study_spec(self._one_rate()[0])
        name, run_folder = self._study_spec.name, Path(self._study_spec.run_folder)
        if anew:
            refuse_if_running(self._url, name, lease_seconds=self._study_spec.reliability.lease_seconds)
            set_aside(self._url, name, run_folder)
            return self
        if self._tuning is not None:
            check_same_arms(peek(self._url, self._tuning.name), self._tuning)
        check_same_arms(peek(self._url, confirm.name), confirm)
        return self

    def run(self) -> Progress:
        """Run what is missing."""
        deadline = None if self._request.hours is None else time.monotonic() + 3600 * self._request.hours
        num_tuned = 0
        if self._tuning is not None:
            progress = self._run(self._tuning, deadline)
            if progress.interrupted or has_work(peek(self._url, self._tuning.name), self._tuning):
                return progress
            num_tuned = progress.added
        one_rate, note = self._one_rate()
        progress = self._run(self._confirm_study_spec(one_rate), deadline)
        added = progress.added + num_tuned
        return replace(progress, added=added, tuned=num_tuned, notes=(note,) if note else ())

    def _run(self, study_spec: StudySpec, deadline: float | None) -> Progress:
        plan = study_spec.replicates
        assert plan is not None
        study = peek(self._url, study_spec.name, study_spec.identity)
        taken_over = len(plan.known)
        before = taken_over if study is None else read_status(study, study_spec.trials).finished
        interrupted, errors = False, list[str]()
        if has_work(study, study_spec):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            timed = replace(study_spec, search=study_spec.search | {"timeout_seconds": left})
            interrupted, errors = self._run_study(timed, study)
            study = peek(self._url, study_spec.name)
        elif study is not None and study.user_attrs.get("margin", MARGIN) != plan.margin:
            Keeper(study_spec, self._url).leave()  # only writes the new margin into the study
        assert study is not None
        status = read_status(study, study_spec.trials)
        in_time = deadline is None or time.monotonic() < deadline
        return Progress(
            status=status,
            clear=is_settled(study, plan),
            interrupted=interrupted,
            added=status.finished - before,
            errors=tuple(errors),
            failures=failed_trials(study, Path(study_spec.run_folder)),
            failed_arms=failed_arms(study, plan),
            unfinished=has_work(study, study_spec) and not interrupted and (bool(errors) or in_time),
        )

    def _one_rate(self) -> tuple[Arm | None, str]:
        """The arm of one rate and a sentence about it; before the tuning, a candidate in its place."""
        if self._tuning is None or self._tuning.replicates is None:
            return None, ""
        plan = self._tuning.replicates
        study = peek(self._url, self._tuning.name)
        if study is None or has_work(study, self._tuning):
            return as_arm(plan.arms[0]), ""  # the checks before a run do not depend on which one it is
        return tuned_rate(study, plan)

    def _confirm_study_spec(self, one_rate: Arm | None) -> StudySpec:
        num_tuned = 0 if self._tuning is None else self._tuning.trials
        return confirm_study_spec(
            self._study_spec, self._sweep, self._request, one_rate, num_tuned, self._stored
        )


def failed_arms(study: optuna.Study, plan: ReplicatePlan) -> tuple[Arm, ...]:
    """Arms of which every run that ended has failed."""
    ended = study.get_trials(deepcopy=False, states=ENDED_STATES)
    finished = {trial.user_attrs.get("arm") for trial in ended if trial.state != TrialState.FAIL}
    failed = {trial.user_attrs.get("arm") for trial in ended} - finished
    return tuple(arm for arm in plan.arms if arm.name in failed)
