"""Confirming a sweep: what may be written is checked first, then one rate is tuned, then all arms run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.trial import TrialState

from results.sweep_result import SweepResult, read_study
from results.verdict.statistics import MARGIN, Arm
from results.verdict.verdict import Verdict
from sweeps.confirm.arms import check_finished
from sweeps.confirm.confirm_plan import (
    CONFIRM_STUDIES,
    FOLDER,
    Asked,
    check_same,
    confirm_study_spec,
    has_work,
    tuned_rate,
    tuning_study_spec,
)
from sweeps.keeper.failed_trials import TRY_AGAIN, failed_trials
from sweeps.keeper.keeper import Keeper
from sweeps.keeper.replicate_source import is_settled
from sweeps.plan.replicate_plan import ReplicatePlan
from sweeps.plan.specs import StudySpec
from sweeps.storage.open_storage import open_storage
from sweeps.study.lease import refuse_unless_free
from sweeps.study.status import Status, read_status
from sweeps.study.study import ENDED_STATES, find_study, peek

RunStudy = Callable[[StudySpec, optuna.Study | None], tuple[bool, list[str]]]
"""(ledger, its study if there is one) -> whether it was interrupted, and why it could not end."""


@dataclass
class Progress:
    """What a confirmation has come to."""

    status: Status
    clear: bool = False
    interrupted: bool = False
    added: int = 0
    errors: tuple[str, ...] = ()
    unfinished: bool = False
    """Whether runs are missing that neither a budget nor an interruption explains."""
    notes: tuple[str, ...] = ()
    failures: str | None = None
    """Runs that failed and were not made up for, in words."""
    failed_arms: tuple[Arm, ...] = ()
    """Arms none of whose runs has ended in any other way."""

    @property
    def advice(self) -> str:
        """What to do about runs that failed."""
        if not self.failed_arms:
            return TRY_AGAIN
        names = " and ".join(repr(arm.name) for arm in self.failed_arms)
        said = f"Every run of {names} failed, so nothing is said of it; the verdict above is of the others."
        if all(arm.role in ("row", "one_rate") for arm in self.failed_arms):
            said += " Without it, and without the other rows' values: --no-rows --anew."
        return f"{said}\n{TRY_AGAIN}"

    @property
    def counts(self) -> str:
        """How far it is, in words."""
        status = self.status
        return (
            f"{status.finished} of at most {status.target} runs of {status.name} finished; "
            f"{self.added} runs in this call."
        )


@dataclass(frozen=True)
class ConfirmResult:
    """How a call of `Sweep.confirm` ended."""

    verdict: Verdict
    """By all runs so far."""
    progress: Progress
    run_folder: Path


def sweep_to_confirm(study: optuna.Study, *, lease_seconds: float) -> SweepResult:
    """The sweep as it is now.

    NothingToSay when no trial finished; StudyHeld while the sweep itself goes on and its best may change,
    which for one on another machine shows within `lease_seconds`.
    """
    check_finished(read_study(study))
    refuse_unless_free(study, seconds=lease_seconds)
    return read_study(study)  # its holder may have ended it meanwhile


class Confirmation:
    """One call of `sweeps confirm`: `ledger` and `sweep` are those of the sweep itself."""

    def __init__(
        self, url: str, study_spec: StudySpec, sweep: SweepResult, asked: Asked, run_study: RunStudy
    ) -> None:
        self._url, self._study_spec, self._sweep, self._asked = url, study_spec, sweep, asked
        self._run_study = run_study
        self._tuning = tuning_study_spec(study_spec, sweep, asked)

    def prepare(self, *, anew: bool = False) -> Confirmation:
        """Raise what keeps this from running, before anything is written; `anew` puts away what is there."""
        confirm = self._confirm_study_spec(self._one_rate()[0])
        if anew:
            for ending in CONFIRM_STUDIES:
                if (study := peek(self._url, f"{self._study_spec.name}{ending}")) is not None:
                    refuse_unless_free(study, seconds=self._study_spec.reliability.lease_seconds)
            put_away(self._url, self._study_spec.name, Path(self._study_spec.run_folder))
            return self
        if self._tuning is not None:
            check_same(peek(self._url, self._tuning.name), self._tuning)
        check_same(peek(self._url, confirm.name), confirm)
        return self

    def run(self) -> Progress:
        """Run what is missing."""
        deadline = None if self._asked.hours is None else time.monotonic() + 3600 * self._asked.hours
        if self._tuning is not None:
            progress = self._run(self._tuning, deadline)
            if progress.interrupted or has_work(peek(self._url, self._tuning.name), self._tuning):
                return progress
            added = progress.added
        else:
            added = 0
        one_rate, note = self._one_rate()
        progress = self._run(self._confirm_study_spec(one_rate), deadline)
        return replace(progress, added=progress.added + added, notes=(note,) if note else ())

    def _run(self, study_spec: StudySpec, deadline: float | None) -> Progress:
        plan = study_spec.replicates
        assert plan is not None
        study = peek(self._url, study_spec.name, study_spec.identity)
        before = 0 if study is None else read_status(study, study_spec.trials).finished
        interrupted, errors = False, list[str]()
        if has_work(study, study_spec):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            timed = replace(study_spec, search=study_spec.search | {"timeout_seconds": left})
            interrupted, errors = self._run_study(timed, study)
            study = peek(self._url, study_spec.name)
        elif study is not None and study.user_attrs.get("margin", MARGIN) != plan.margin:
            Keeper(study_spec, self._url).leave()  # it writes down what is asked now, without a worker
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
        """The arm of one rate, as far as it is known, and what to say about it."""
        if self._tuning is None or self._tuning.replicates is None:
            return None, ""
        plan = self._tuning.replicates
        study = peek(self._url, self._tuning.name)
        if study is None or has_work(study, self._tuning):
            return plan.arms[0], ""  # which one does not matter to what is checked before
        return tuned_rate(study, plan)

    def _confirm_study_spec(self, one_rate: Arm | None) -> StudySpec:
        tuned = 0 if self._tuning is None else self._tuning.trials
        return confirm_study_spec(self._study_spec, self._sweep, self._asked, one_rate, tuned)


def failed_arms(study: optuna.Study, plan: ReplicatePlan) -> tuple[Arm, ...]:
    """Arms of which at least one run has failed, and none has ended in any other way."""
    ended = study.get_trials(deepcopy=False, states=ENDED_STATES)
    outcomes = {
        arm.name: {trial.state for trial in ended if trial.user_attrs.get("arm") == arm.name}
        for arm in plan.arms
    }
    return tuple(arm for arm in plan.arms if outcomes[arm.name] == {TrialState.FAIL})


def put_away(url: str, name: str, run_folder: Path) -> str:
    """Give the studies and the folder of an earlier confirmation other names; returns what was added to them.

    Nothing is lost: `small.confirm` becomes `small.confirm.earlier-1`.
    """
    storage = open_storage(url)
    try:
        known = {study.study_name for study in storage.get_all_studies()}
        folder = run_folder / FOLDER
        endings = (f".earlier-{number}" for number in itertools.count(1))
        ending = next(
            e
            for e in endings
            if not any(f"{name}{suffix}{e}" in known for suffix in CONFIRM_STUDIES)
            and not folder.with_name(f"{FOLDER}{e}").exists()
        )
        with storage.transaction():
            for suffix in CONFIRM_STUDIES:
                if (study := find_study(storage, f"{name}{suffix}")) is not None:
                    _rename(storage, study, f"{name}{suffix}{ending}")
    finally:
        storage.close()
    if folder.is_dir():
        folder.rename(folder.with_name(f"{FOLDER}{ending}"))
    return ending


def _rename(storage: optuna.storages.BaseStorage, study: optuna.Study, name: str) -> None:
    """Optuna has no renaming: the study is copied under its new name, and the old one deleted."""
    copy = optuna.create_study(storage=storage, study_name=name, directions=study.directions)
    for key, value in study.user_attrs.items():
        copy.set_user_attr(key, value)
    copy.add_trials(study.get_trials(deepcopy=False))
    storage.delete_study(study._study_id)
