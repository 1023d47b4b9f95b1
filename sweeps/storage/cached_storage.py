"""The study as its only writer sees it: read from memory, written to memory and storage alike."""

from __future__ import annotations

import copy
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweeps.storage.optuna_private import FrozenStudy, trial_id_of
from sweeps.storage.study_storage import StudyStorage


@dataclass
class _Study:
    trials: dict[int, FrozenTrial] = field(default_factory=dict)
    """Trials by number, rising."""
    unfinished: set[int] = field(default_factory=set)
    """Numbers: every call of the keeper asks for these, and must not cost more with every finished trial."""
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    """For each parameter, the first distribution that was set."""


class CachedStorage(BaseStorage):
    """Trials of a storage that no other process writes to: read once, then kept as the storage has them.

    Optuna's own cache reads every unfinished trial again whenever trials are asked for, dozens of times for
    each new trial. Trials are known only after `get_all_trials` was called for their study. After a
    failed transaction memory differs from the storage: make a new object.
    """

    def __init__(self, storage: StudyStorage) -> None:
        self._storage = storage
        self._studies: dict[int, _Study] = {}
        self._locations: dict[int, tuple[int, int]] = {}
        """Trial id -> (study id, number)."""

    @property
    def url(self) -> str:
        """Of the storage; may hold a password."""
        return self._storage.url

    # --- trials, read from memory -----------------------------------------------------------------

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Trials by number. Does not go through the finished trials unless `states` asks for them."""
        study = self._study(study_id)
        if states is None:
            trials = list(study.trials.values())
        elif any(state in states for state in TrialState if state.is_finished()):
            trials = [trial for trial in study.trials.values() if trial.state in states]
        else:
            trials = [study.trials[number] for number in sorted(study.unfinished)]
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A copy, because a `Trial` writes into what it is given."""
        return copy.deepcopy(self._trial(trial_id))

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return trial_id_of(self._study(study_id).trials[trial_number])

    def _study(self, study_id: int) -> _Study:
        if study_id not in self._studies:
            trials = self._storage.get_all_trials(study_id, deepcopy=False)
            self._studies[study_id] = _Study()
            for trial in sorted(trials, key=lambda trial: trial.number):
                self._keep(study_id, trial)
        return self._studies[study_id]

    def _trial(self, trial_id: int) -> FrozenTrial:
        study_id, number = self._locations[trial_id]
        return self._studies[study_id].trials[number]

    def _keep(self, study_id: int, trial: FrozenTrial) -> None:
        study = self._studies[study_id]
        study.trials[trial.number] = trial
        self._locations[trial_id_of(trial)] = (study_id, trial.number)
        (study.unfinished.discard if trial.state.is_finished() else study.unfinished.add)(trial.number)

    # --- trials, written to both ------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self._study(study_id)
        trial = copy.copy(self._storage.create_trial(study_id, template_trial))
        trial.user_attrs, trial.system_attrs = _as_stored(trial.user_attrs), _as_stored(trial.system_attrs)
        self._keep(study_id, trial)
        return trial_id_of(trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        known = self._studies[self._locations[trial_id][0]].distributions
        self._storage.set_param(
            trial_id, param_name, param_value_internal, distribution, known.get(param_name)
        )
        known.setdefault(param_name, distribution)
        self._add(trial_id, "params", {param_name: distribution.to_external_repr(param_value_internal)})
        self._add(trial_id, "distributions", {param_name: distribution})

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        done = self._storage.set_trial_state_values(trial_id, state, values)
        if done:
            trial = copy.copy(self._trial(trial_id))
            trial.state = state
            if values is not None:
                trial.values = list(values)
            if state == TrialState.RUNNING:
                trial.datetime_start = datetime.now()
            if state.is_finished():
                trial.datetime_complete = datetime.now()
            self._keep(self._locations[trial_id][0], trial)
        return done

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._storage.set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._add(trial_id, "intermediate_values", {step: intermediate_value})

    def add_intermediate_values(self, values: Iterable[tuple[int, int, float]]) -> None:
        """(trial id, step, value) of steps that have no value yet, in one statement."""
        rows = list(values)
        self._storage.add_intermediate_values(rows)
        for trial_id, step, value in rows:
            self._add(trial_id, "intermediate_values", {step: value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(trial_id, key, value)
        self._add(trial_id, "user_attrs", {key: _as_stored(value)})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._storage.set_trial_system_attr(trial_id, key, value)
        self._add(trial_id, "system_attrs", {key: _as_stored(value)})

    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Several at once: those that the trial does not have yet go to the storage in one statement."""
        known = self._trial(trial_id).user_attrs
        for key, value in attributes.items():
            if key in known:
                self.set_trial_user_attr(trial_id, key, value)
        if new := {key: value for key, value in attributes.items() if key not in known}:
            self._storage.add_trial_user_attrs(trial_id, new)
            self._add(trial_id, "user_attrs", _as_stored(new))

    def _add(self, trial_id: int, kind: str, values: Mapping[Any, Any]) -> None:
        """Makes a new trial object, so that callers who hold the old one do not see the change."""
        trial = copy.copy(self._trial(trial_id))
        setattr(trial, kind, {**getattr(trial, kind), **values})
        self._keep(self._locations[trial_id][0], trial)

    # --- studies, passed on -----------------------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._storage.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._storage.delete_study(study_id)
        if study := self._studies.pop(study_id, None):
            for trial in study.trials.values():
                del self._locations[trial_id_of(trial)]

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._storage.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._storage.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._storage.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._storage.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._storage.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._storage.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._storage.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._storage.get_all_studies()


def _as_stored(value: Any) -> Any:
    """What a reader of the storage would get: tuples are lists there, keys are text."""
    return json.loads(json.dumps(value))
