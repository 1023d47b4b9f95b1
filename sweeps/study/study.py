"""Open a sweep's Optuna study, or create it, and check that it belongs to the sweep."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from files_and_text.plain_values import plain
from results.stored_trials import by_percent
from sweeps.config.url_passwords import masked
from sweeps.errors import RunFolderError, StorageUnreachable, StudyMismatch
from sweeps.storage.cached_storage import CachedStorage
from sweeps.storage.open_storage import STORAGE_ERRORS, check_reachable, holds_studies, open_storage
from sweeps.storage.optuna_private import storage_of, trial_id_of
from sweeps.study.base_check import BASE_METRIC, BASE_WEIGHTS, WEIGHTS

STUDY_KEY = "study_key"
"""User attribute: random digits that tell a study from an earlier one of the same name."""
ENDED_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
COUNTED_STATES = (TrialState.COMPLETE, TrialState.PRUNED)
"""Trials that count. A failure says nothing about a configuration, which is tried again."""


def peek(url: str, name: str, identity: Mapping[str, Any] | None = None) -> optuna.Study | None:
    """The study for reading, or None if there is none.

    Creates nothing, neither a file nor tables. Raises StudyMismatch if `identity` is given and differs.
    """
    try:
        if not holds_studies(url):
            return None
    except STORAGE_ERRORS:
        check_reachable(url)  # says why
        raise StorageUnreachable(f"storage {masked(url)} cannot be read") from None
    storage = open_storage(url, for_reading=True)
    try:
        study = optuna.load_study(storage=storage, study_name=name)
    except KeyError:
        return None
    if identity is not None:
        check_identity(study, identity)
    return study


def started_study(url: str, name: str) -> optuna.Study:
    """The study for reading; RunFolderError when the sweep has not started."""
    if (study := peek(url, name)) is None:
        raise RunFolderError(
            f"sweep {name!r} has no study yet; start it with `sweeps run`, in Python `sweep.run()`"
        )
    return study


def find_study(storage: optuna.storages.BaseStorage, name: str) -> optuna.Study | None:
    """The study of this name, or None."""
    # Not by loading it: the error for a missing study would end the transaction around this call.
    if name not in {study.study_name for study in storage.get_all_studies()}:
        return None
    return optuna.load_study(storage=storage, study_name=name)


def open_study(
    storage: optuna.storages.BaseStorage, name: str, identity: Mapping[str, Any]
) -> tuple[optuna.Study, bool]:
    """The sweep's study and whether it is new. Raises StudyMismatch with the fields that differ."""
    study = find_study(storage, name)
    is_new = study is None
    if study is None:
        study = optuna.create_study(storage=storage, study_name=name, direction="minimize")
        study.set_user_attr("identity", {key: value for key, value in identity.items() if key != WEIGHTS})
        study.set_user_attr(STUDY_KEY, secrets.token_hex(8))
    else:
        check_identity(study, identity)
        _accept_corrected_function(study, identity)
    if identity.get(WEIGHTS) is not None and study.user_attrs.get(BASE_WEIGHTS) is None:
        study.set_user_attr(BASE_WEIGHTS, identity[WEIGHTS])
    return study, is_new


def check_identity(study: optuna.Study, identity: Mapping[str, Any]) -> None:
    """StudyMismatch, with every field that differs, when the study is not that of this identity."""
    if differing := identity_differences(study, identity):
        raise StudyMismatch(
            f"the study {study.study_name!r} belongs to another sweep; give this one another name, or undo "
            "the change:\n" + "\n".join(f"  {line}" for line in differing)
        )


def identity_differences(study: optuna.Study, identity: Mapping[str, Any]) -> list[str]:
    """A line for each field in which a study is not that of this identity, with both values.

    Raises StudyMismatch for a study that no sweep made.
    """
    name, theirs = study.study_name, study.user_attrs.get("identity")
    if not isinstance(theirs, Mapping):
        raise StudyMismatch(
            f"the storage already holds a study named {name!r} that no sweep made; choose another name"
        )
    if (function := _corrected_function(study, identity)) is not None:
        theirs = {**theirs, "measured": {**theirs["measured"], "source": function}}
    known, ours = study.user_attrs.get(BASE_WEIGHTS), identity.get(WEIGHTS)
    # A digest that only one of the two has is not compared.
    differing = _differences({**theirs, WEIGHTS: known or ours}, {**identity, WEIGHTS: ours or known})
    if study.directions != [optuna.study.StudyDirection.MINIMIZE]:
        found = ", ".join(direction.name.lower() for direction in study.directions)
        differing.append(f"direction: the study has {found!r}, a sweep 'minimize'")
    return differing


def set_user_attrs(study: optuna.Study, trial: FrozenTrial | Trial, **attributes: Any) -> None:
    """Write user attributes of a trial, as plain builtins."""
    values = {name: plain(value) for name, value in attributes.items()}
    cached_storage_of(study).set_trial_user_attrs(trial_id_of(trial), values)


def study_key_of(study: optuna.Study) -> str:
    """The study's `STUDY_KEY`; empty for a study older than these keys."""
    return str(study.user_attrs.get(STUDY_KEY, ""))


def cached_storage_of(study: optuna.Study) -> CachedStorage:
    """The storage of a study that was opened through `CachedStorage`, as the keeper does."""
    storage = storage_of(study)
    assert isinstance(storage, CachedStorage)
    return storage


def is_prefetched(trial: FrozenTrial) -> bool:
    """Whether a trial has been drawn and not handed to a worker, which would give it an `attempt`.

    For Optuna it is RUNNING, so that samplers which look at running trials do not draw it again.
    """
    return trial.state == TrialState.RUNNING and "attempt" not in trial.user_attrs


def prefetched_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Oldest first."""
    return [t for t in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if is_prefetched(t)]


def _corrected_function(study: optuna.Study, identity: Mapping[str, Any]) -> str | None:
    """The digest of a metric's function, if it has changed and the study holds no value of the old one.

    Such a function raised in every trial, and the message was to correct it and run the same command.
    """
    theirs, ours = (
        (given or {}).get("measured") or {} for given in (study.user_attrs.get("identity"), identity)
    )
    source: str | None = ours.get("source")
    if source is None or theirs.get("source") in (None, source):
        return None
    trials = study.get_trials(deepcopy=False)
    has_value = any(value is not None for trial in trials for value in by_percent(trial, "metric").values())
    return None if has_value else source


def _accept_corrected_function(study: optuna.Study, identity: Mapping[str, Any]) -> None:
    if (source := _corrected_function(study, identity)) is None:
        return
    known, context = study.user_attrs["identity"], study.user_attrs["context"]
    study.set_user_attr("identity", known | {"measured": known["measured"] | {"source": source}})
    study.set_user_attr(BASE_METRIC, None)  # measured by the old one
    study.set_user_attr("context", context | {"metric": context["metric"] | {"source": source}})


DIGESTS = {
    WEIGHTS: "the base's weights",
    "measured.source": "the metric function's file",
    "train_data": "the training records as tokens",
    "eval_data": "the evaluation records as tokens",
}
"""Keys of an identity that are digests -> of what."""


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], at: str = "") -> list[str]:
    lines = []
    for key in sorted({*theirs, *ours}):
        path = f"{at}.{key}" if at else key
        old, new = theirs.get(key), ours.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += _differences(old, new, path)
        elif old != new:
            what = DIGESTS.get(path)
            named = f" (digests of {what})" if what else ""
            lines.append(f"{path}: the study has {old!r}, this sweep {new!r}{named}")
    return lines
