"""Draws trials from the guideline tables and the sampler, into the study and the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from files_and_text.atomic_files import atomic_write_json
from files_and_text.trial_paths import CONFIG_FILE, trial_folder
from lora_runner.config import TrialConfig
from lora_runner.errors import TrialConfigError
from results.stored_trials import search_trials
from search_spaces import SearchSpace
from sweeps.artifacts.trial_folder import set_aside
from sweeps.keeper.sources.look_beyond import look_beyond
from sweeps.plan.specs import StudySpec
from sweeps.plan.trial_kinds import first_trials
from sweeps.storage.optuna_private import storage_of, trial_id_of
from sweeps.study.edges.widening import present_space
from sweeps.study.read_status import is_default
from sweeps.study.samplers import GridSampler, make_sampler
from sweeps.study.study import prefetched_trials, set_user_attrs

RETRY_OF = "retry_of"
"""User attribute of a trial that retries a failed configuration: the first trial that had it."""
_CONFIG_ATTRIBUTES = ("origin", "rows", "label", "arm", "seed", "drawn_again")
"""User attributes that a retried configuration keeps."""
MAX_DRAWS = 50
"""Draws without a new configuration after which the space counts as exhausted."""


class TrialSource:
    """Draws the trials of one study, some of them before a seat is free (prefetched).

    A prefetched trial is in the study with its configuration, but has no `attempt` yet. It exists only there,
    so a crash neither loses it nor draws it twice, and it counts among the sweep's trials.

    The cost of prefetching: the sampler does not see trials that end after the draw. The next trial is
    prefetched when the previous one gets a seat, so what it misses is the report that frees its own seat, as
    if each worker had one seat more. If one report frees several seats, only the first gets a prefetched
    trial. Random search, a grid and the guideline values lose nothing.
    """

    def __init__(self, study_spec: StudySpec, study: optuna.Study, note: Callable[[str], None]) -> None:
        self.study_spec = study_spec
        """With the space as it is now; a sweep may widen it (`look_beyond`)."""
        self._use_space(present_space(study, study_spec.space))
        self.study = study
        self._note = note
        # One sampler for the whole grid: the study records which points are taken.
        self._is_grid = study_spec.search["sampler"] == "grid"
        self._may_repeat = not any(
            # Warmup is rounded to whole steps, so its ratios can repeat.
            d.kind == "float" and d.low != d.high and d.name != "warmup_ratio"
            for d in study_spec.space.dimensions
        )
        self.num_failed_before = 0
        """Failed trials when the run started."""
        self._is_exhausted = study.user_attrs.get("exhausted") == study_spec.search["sampler"]
        if self._is_grid:
            study.sampler = make_sampler(study_spec.search, study_spec.space, 0)

    def enqueue_first_trials(self) -> None:
        """Enqueue the guideline values, unless they are in the study already."""
        for first in first_trials(self.study_spec):
            self.study.enqueue_trial(
                first.params,
                user_attrs={"origin": "guideline", "rows": list(first.rows), "label": first.label},
                skip_if_exists=True,
            )

    def prefetched(self) -> list[FrozenTrial]:
        """Drawn trials for the next free seats, oldest first."""
        return prefetched_trials(self.study)

    def requeue_prefetched(self) -> None:
        """Set prefetched trials back to Optuna's state WAITING; drawn again, they keep their values.

        Otherwise they would be left running when a sweep ends, or exceed its `trials` when these were
        lowered.
        """
        for trial in prefetched_trials(self.study):
            storage_of(self.study).set_trial_state_values(trial_id_of(trial), TrialState.WAITING)

    def draw(self) -> FrozenTrial | None:
        """A new trial, recorded in the study and on disk; None when there is none to draw."""
        while (number := self._next_number()) is not None:
            if not self._has_waiting():
                self._use_space(look_beyond(self.study_spec, self.study, self._note))
            if not self._is_grid:
                self.study.sampler = make_sampler(self.study_spec.search, self.study_spec.space, number)
                if not self._ensure_new_config(number):
                    return None
            trial = self.study.ask()
            params = self.study_spec.space.suggest(trial)
            try:
                config = self.study_spec.trial_config(params)
            except TrialConfigError as error:
                attributes = self._attributes(trial)
                set_user_attrs(self.study, trial, **attributes, outcome="failed", stop_reason=str(error))
                self.study.tell(trial.number, state=TrialState.FAIL)
                self._note(f"trial {trial.number}: failed, {error}")
                continue
            return self.record(trial, params, config)
        return None

    def _use_space(self, space: SearchSpace) -> None:
        if space is not self.study_spec.space:
            self.study_spec = replace(self.study_spec, space=space)

    def _attributes(self, trial: Trial) -> dict[str, Any]:
        origin = trial.user_attrs.get("origin", "sampler")
        return {"folder": trial_folder(trial.number), "origin": origin}

    def record(self, trial: Trial, params: Mapping[str, Any], config: TrialConfig) -> FrozenTrial:
        """Write a trial's configuration to the study and into its folder."""
        values, digest = config.to_dict(), config.hash()
        set_user_attrs(self.study, trial, **self._attributes(trial), config=values, config_hash=digest)
        folder = Path(self.study_spec.run_folder) / trial_folder(trial.number)
        if moved := set_aside(folder):
            self._note(f"trial {trial.number}: files of an earlier study moved to {moved.name}")
        atomic_write_json(
            folder / CONFIG_FILE,
            {"number": trial.number, "params": dict(params), "config": values, "config_hash": digest},
        )
        return storage_of(self.study).get_trial(trial_id_of(trial))

    def _ensure_new_config(self, number: int) -> bool:
        """If the sampler would repeat a configuration, enqueue a new one; False when none is found.

        Only a space without a continuous dimension can repeat itself. The draw is tried on a copy of the
        study, because a trial's parameters cannot be changed once they are set.
        """
        if not self._may_repeat or self._has_waiting():
            return True
        trials = self.study.get_trials(deepcopy=False)
        known = {trial.user_attrs.get("config_hash") for trial in trials}
        for attempt in range(MAX_DRAWS):
            copy = optuna.create_study(
                sampler=make_sampler(self.study_spec.search, self.study_spec.space, number, attempt)
            )
            copy.add_trials(trials)
            params = self.study_spec.space.suggest(copy.ask())
            if self.study_spec.trial_config(params).hash() not in known:
                if attempt:
                    self.study.enqueue_trial(params, user_attrs={"drawn_again": attempt})
                return True
        self._is_exhausted = True
        self.study.set_user_attr("exhausted", self.study_spec.search["sampler"])
        self._note(f"no configuration is new after {MAX_DRAWS} draws: the space holds no more")
        return False

    def retry_failed(self) -> None:
        """Enqueue failed configurations as new trials, as many as the sweep has room for.

        The failed trials stay as they are. The guideline default comes first.
        """
        failed = [trial for trial in open_failures(self.study) if trial.params and self._is_wanted(trial)]
        failed.sort(key=lambda trial: (not is_default(trial), trial.number))
        for trial in failed[: max(0, self.study_spec.trials - self._num_taken(with_default=False))]:
            kept = {name: trial.user_attrs[name] for name in _CONFIG_ATTRIBUTES if name in trial.user_attrs}
            self.study.enqueue_trial(trial.params, user_attrs=kept | {RETRY_OF: _root(trial)})
            self._note(f"trial {trial.number}: failed earlier, its configuration is tried again")

    def _is_wanted(self, trial: FrozenTrial) -> bool:
        """Whether a run of this configuration is still of use."""
        return True

    def has_failed_too_often(self) -> bool:
        """Whether the run has reached its limit on failures."""
        failed = search_trials(self.study, (TrialState.FAIL,))
        return len(failed) - self.num_failed_before >= self.study_spec.reliability.max_failures

    def has_more(self) -> bool:
        """Whether there is another trial for a free seat."""
        return bool(self.prefetched()) or self._next_number() is not None

    def _next_number(self) -> int | None:
        """The number of the sampler's next draw, from 0; None when there is none to draw."""
        if self._num_taken() >= self.study_spec.trials or self.has_failed_too_often():
            return None
        sampler = self.study.sampler
        is_exhausted = self._is_exhausted or (
            isinstance(sampler, GridSampler) and not sampler.has_points_left(self.study)
        )
        if is_exhausted and not self._has_waiting():
            return None
        # A retry is no new draw: the sampler goes on as if nothing had failed.
        trials = search_trials(self.study)
        return sum(trial.state != TrialState.WAITING and RETRY_OF not in trial.user_attrs for trial in trials)

    def _has_waiting(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _num_taken(self, *, with_default: bool = True) -> int:
        """Trials that count towards the sweep's `trials`: those that are drawn and did not fail.

        A guideline default that failed counts too, to reserve its retry: every verdict compares with it.
        """
        trials = search_trials(self.study)
        taken = sum(trial.state not in (TrialState.WAITING, TrialState.FAIL) for trial in trials)
        default = [trial.state for trial in trials if is_default(trial)]
        return taken + (with_default and bool(default) and set(default) == {TrialState.FAIL})


def open_failures(study: optuna.Study) -> list[FrozenTrial]:
    """For each configuration that has only failed, its last trial."""
    trials = search_trials(study)
    not_failed = {_root(trial) for trial in trials if trial.state != TrialState.FAIL}
    last = {_root(trial): trial for trial in trials if trial.state == TrialState.FAIL}
    return [trial for root, trial in last.items() if root not in not_failed]


def _root(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get(RETRY_OF, trial.number))
