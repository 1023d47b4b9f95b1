"""The study as its only writer sees it: read from memory, written to memory and storage alike."""

from __future__ import annotations

import copy
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.storage.study_storage import StudyStorage


class CachedStorage(_CachedStorage):
    """Optuna's cache, but for a process that nobody writes beside: trials are read from the storage once.

    Optuna's own reads every unfinished trial again, with all its attributes, whenever anybody asks for
    trials, dozens of times per drawn trial. That was most of what a pack's report cost. What is kept here is
    what the storage would give back; after a transaction that failed it is not, so make a new one.
    """

    def __init__(self, backend: StudyStorage) -> None:
        super().__init__(backend)  # type: ignore[arg-type]  # Optuna's own is for databases only
        self._storage = backend
        self._read: set[int] = set()
        self._unfinished: dict[int, set[int]] = {}
        """Numbers by study: asked for at every call of the keeper, which must not cost more with every trial
        that has ended."""

    # --- read -------------------------------------------------------------------------------------

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if study_id not in self._read:
            super()._read_trials_from_remote_storage(study_id)
            self._read.add(study_id)
            trials = self._studies[study_id].trials
            self._studies[study_id].trials = {number: trials[number] for number in sorted(trials)}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """By number. Only unfinished ones are looked at where only those are wanted."""
        self._read_trials_from_remote_storage(study_id)
        kept = self._studies[study_id].trials
        if states is None:
            trials = list(kept.values())
        elif any(state in states for state in TrialState if state.is_finished()):
            trials = [trial for trial in kept.values() if trial.state in states]
        else:
            unfinished = sorted(self._unfinished.get(study_id, ()))
            trials = [kept[number] for number in unfinished if kept[number].state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A copy, because a `Trial` writes into what it is given."""
        return copy.deepcopy(self._kept(trial_id))

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        return BaseStorage.get_best_trial(self, study_id)

    def get_heartbeat_interval(self) -> None:
        """Optuna's heartbeats have no part in asking and telling."""

    def _kept(self, trial_id: int) -> FrozenTrial:
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        return self._studies[study_id].trials[number]

    # --- write ------------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        if template_trial is not None:
            for kind in ("user_attrs", "system_attrs"):
                self._add(trial_id, kind, _as_stored(getattr(template_trial, kind)))
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        self._add(trial_id, "params", {param_name: distribution.to_external_repr(param_value_internal)})
        self._add(trial_id, "distributions", {param_name: distribution})

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        if done:
            trial = copy.copy(self._kept(trial_id))
            trial.state = state
            if values is not None:
                trial.values = list(values)
            if state == TrialState.RUNNING:
                trial.datetime_start = datetime.now()
            if state.is_finished():
                trial.datetime_complete = datetime.now()
            self._replace(trial)
        return done

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._add(trial_id, "intermediate_values", {step: intermediate_value})

    def add_intermediate_values(self, values: Iterable[tuple[int, int, float]]) -> None:
        """(trial id, step, value) of steps that have no value yet, in one statement."""
        rows = list(values)
        self._storage.add_intermediate_values(rows)
        for trial_id, step, value in rows:
            self._add(trial_id, "intermediate_values", {step: value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_user_attr(trial_id, key, value)
        self._add(trial_id, "user_attrs", {key: _as_stored(value)})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        self._add(trial_id, "system_attrs", {key: _as_stored(value)})

    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Several at once: those that the trial does not have yet go to the storage in one statement."""
        known = self._kept(trial_id).user_attrs
        for key, value in attributes.items():
            if key in known:
                self.set_trial_user_attr(trial_id, key, value)
        new = {key: value for key, value in attributes.items() if key not in known}
        if not new:
            return
        self._storage.add_trial_user_attrs(trial_id, new)
        self._add(trial_id, "user_attrs", {key: _as_stored(value) for key, value in new.items()})

    def _add(self, trial_id: int, kind: str, values: Mapping[Any, Any]) -> None:
        """Into a new trial object: whoever got the old one goes on seeing what was true then."""
        trial = copy.copy(self._kept(trial_id))
        setattr(trial, kind, {**getattr(trial, kind), **values})
        self._replace(trial)

    def _replace(self, trial: FrozenTrial) -> None:
        study_id, number = self._trial_id_to_study_id_and_number[trial._trial_id]
        self._studies[study_id].trials[number] = trial
        self._count(study_id, trial)

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        super()._add_trials_to_cache(study_id, trials)
        for trial in trials:
            self._count(study_id, trial)

    def _count(self, study_id: int, trial: FrozenTrial) -> None:
        unfinished = self._unfinished.setdefault(study_id, set())
        if trial.state.is_finished():
            unfinished.discard(trial.number)
        else:
            unfinished.add(trial.number)


def _as_stored(value: Any) -> Any:
    """What a reader of the storage would get: tuples are lists there, keys are text."""
    return json.loads(json.dumps(value))
