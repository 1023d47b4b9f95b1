"""The storage that optuna-dashboard reads: one study of the database, with notes, without writes."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from results.tables import DERIVED
from sweeps.storage.optuna_private import FrozenStudy, study_id_of, trial_id_of
from sweeps.study.lease import LEASE
from sweeps.study.study import is_prefetched

# As `Study.set_metric_names` writes it.
_METRIC_NAMES = "study:metric_names"
_FIRST = ("outcome", "stop_reason", "label")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+\-!|~])")


class ReadOnlyError(RuntimeError):
    """A write to the study from a dashboard that is read-only."""


class StudyView(BaseStorage):
    """One study of a storage, for optuna-dashboard.

    Other studies of the database are hidden. Prefetched trials are shown as waiting, as in `sweeps status`.
    The value is named after the metric. Of a trial's configuration, which would be one long line, only the
    values derived from its parameters are shown; of the study's attributes, only readable ones. A trial
    without a note of the user's gets one about its outcome, and the study gets `study_note()`. None of this
    is written to the study.
    """

    def __init__(
        self, storage: BaseStorage, study_id: int, *, writable: bool, study_note: Callable[[], str]
    ) -> None:
        self._storage = storage
        self._study_id = study_id
        self._writable = writable
        self._study_note = study_note

    # --- read -------------------------------------------------------------------------------------

    def get_all_studies(self) -> list[FrozenStudy]:
        studies = [s for s in self._storage.get_all_studies() if study_id_of(s) == self._study_id]
        return [self._described(study) for study in studies]

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._ours(self._storage.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._storage.get_study_name_from_id(self._ours(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._storage.get_study_directions(self._ours(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._storage.get_study_user_attrs(self._ours(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._noted(self._storage.get_study_system_attrs(self._ours(study_id)))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return _as_shown(self._storage.get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = map(_as_shown, self._storage.get_all_trials(self._ours(study_id), deepcopy))
        return [trial for trial in trials if states is None or trial.state in states]

    def remove_session(self) -> None:
        self._storage.remove_session()

    def _ours(self, study_id: int) -> int:
        if study_id != self._study_id:
            raise KeyError(f"no study {study_id} here")
        return study_id

    def _described(self, study: FrozenStudy) -> FrozenStudy:
        shown = copy.copy(study)
        name = _name_of_value(study.user_attrs)
        names = {} if name is None else {_METRIC_NAMES: [name]}
        shown.system_attrs = names | self._noted(study.system_attrs)
        shown.user_attrs = _facts(study.user_attrs)
        return shown

    def _noted(self, attributes: dict[str, Any]) -> dict[str, Any]:
        notes: dict[str, Any] = {"dashboard:note_ver": 1, "dashboard:note_str:0": self._study_note()}
        if "dashboard:note_ver" in attributes:
            notes = {}
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
            at = f"dashboard:{trial_id_of(trial)}:note"
            if f"{at}_ver" not in attributes and (note := trial_note(trial)):
                notes |= {f"{at}_ver": 1, f"{at}_str:0": note}
        return {**attributes, **notes}

    # --- write ------------------------------------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        raise ReadOnlyError("the dashboard of a sweep cannot create studies")

    def delete_study(self, study_id: int) -> None:
        self._for_writing().delete_study(self._ours(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._for_writing().set_study_user_attr(self._ours(study_id), key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._for_writing().set_study_system_attr(self._ours(study_id), key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._for_writing().create_new_trial(self._ours(study_id), template_trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._for_writing().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        return self._for_writing().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._for_writing().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._for_writing().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._for_writing().set_trial_system_attr(trial_id, key, value)

    def _for_writing(self) -> BaseStorage:
        if not self._writable:
            raise ReadOnlyError("this dashboard is read-only")
        return self._storage


def trial_note(trial: FrozenTrial) -> str:
    """Markdown: the trial's label, outcome and reason, as far as it has them."""
    attributes = trial.user_attrs
    lines = [f"**{_escaped(attributes['label'])}**"] if attributes.get("label") else []
    if outcome := attributes.get("outcome"):
        reason = attributes.get("stop_reason")
        lines.append(f"**{_escaped(outcome)}**" + (f": {_escaped(reason)}" if reason else ""))
    return "\n\n".join(lines)


def _as_shown(trial: FrozenTrial) -> FrozenTrial:
    shown = copy.copy(trial)
    if is_prefetched(trial):
        shown.state = TrialState.WAITING
    attributes = dict(trial.user_attrs)
    config = attributes.pop("config", None) or {}
    first = {name: attributes[name] for name in _FIRST if attributes.get(name)}
    derived = {name: config[name] for name in DERIVED if config.get(name) is not None}
    rest = {name: value for name, value in attributes.items() if value not in ("", [])}
    shown.user_attrs = {**first, **derived, **rest}
    return shown


def _facts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of the study that are a number or a word each."""
    facts = {**attributes, **(attributes.get("context") or {})}
    versions = attributes.get("versions") or {}
    return {
        **{k: v for k, v in facts.items() if isinstance(v, str | int | float) and k != LEASE},
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _escaped(text: object) -> str:
    return _MARKDOWN.sub(r"\\\1", str(text))


def _name_of_value(attributes: Mapping[str, Any]) -> str | None:
    """What the study's values are; a metric to be maximized is stored as its negative."""
    name, spec = attributes.get("metric"), (attributes.get("context") or {}).get("metric") or {}
    if name is None:
        return None
    negated = spec.get("objective") and spec.get("direction") == "maximize"
    return f"negative {name}" if negated else str(name)
