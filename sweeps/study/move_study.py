"""Copy a sweep's studies to another storage and compare the copy; the old storage stays as it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from sweeps.config.url_passwords import masked
from sweeps.errors import RunFolderError, StorageUnreachable, StudyMismatch, SweepFailed
from sweeps.storage.journal_storage import journal_path
from sweeps.storage.open_storage import STORAGE_ERRORS, check_reachable, open_storage, sqlite_file
from sweeps.storage.optuna_private import storage_of, study_id_of
from sweeps.storage.outages import outage_reason
from sweeps.storage.study_storage import StudyStorage
from sweeps.study.lease import LEASE, refuse_unless_free
from sweeps.study.study import find_study, peek

_CLOCK_SECONDS = 1.0
"""Largest difference of equal times: some databases store whole seconds."""


@dataclass(frozen=True, kw_only=True)
class MovedStudies:
    """The result of moving a sweep."""

    storage: str
    """The new storage, as written in the sweep file: `storage: ...`."""
    studies: Mapping[str, int]
    """Number of trials by study name."""


def copy_studies(source: str, target: str, names: Iterable[str], *, lease_seconds: float) -> dict[str, int]:
    """Copy studies from one storage to another, all or none; returns their numbers of trials by name.

    Trials keep their number, state, parameters, values, attributes and times; the lease is not copied. The
    copy is then read and compared with the source as it is by then. Names without a study in the source are
    skipped, and so is a complete copy that no sweep has used, which an interrupted move leaves behind. Raises
    StudyHeld, StudyMismatch for a name that is taken, RunFolderError if there is nothing to copy,
    StorageUnreachable, and SweepFailed for a copy that differs, after removing it.
    """
    if _is_same(source, target):
        raise StudyMismatch(f"the study is in {masked(target)} already; name another storage")
    studies = _to_copy(source, names, lease_seconds)
    check_reachable(target)
    missing = list[optuna.Study]()
    for study in studies:
        there = peek(target, study.study_name)
        if there is None:
            missing.append(study)
        elif LEASE in there.user_attrs or _difference(study, there) is not None:
            raise StudyMismatch(
                f"the storage {masked(target)} already holds a study named {study.study_name!r}; nothing was "
                "copied"
            )
    storage = open_storage(target)
    try:
        with storage.transaction():
            for study in missing:
                _copy(study, storage)
        _compare(source, target, [study.study_name for study in missing], storage)
    except STORAGE_ERRORS as error:
        raise StorageUnreachable(f"the study cannot be copied: {outage_reason(error)}") from None
    finally:
        storage.close()
    return {study.study_name: len(study.get_trials(deepcopy=False)) for study in studies}


def _to_copy(source: str, names: Iterable[str], lease_seconds: float) -> list[optuna.Study]:
    asked = list(names)
    studies = [study for name in asked if (study := peek(source, name)) is not None]
    if not studies:
        raise RunFolderError(f"there is no study {asked[0]!r} in {masked(source)} to move")
    for study in studies:
        refuse_unless_free(study, seconds=lease_seconds)
    return studies


def _is_same(source: str, target: str) -> bool:
    def location(url: str) -> object:
        file = journal_path(url) or sqlite_file(url)
        return url if file is None else file.resolve()

    return location(source) == location(target)


def _copy(study: optuna.Study, storage: StudyStorage) -> None:
    study_id = storage.create_new_study(study.directions, study.study_name)
    for key, value in _system_attrs(study).items():
        storage.set_study_system_attr(study_id, key, value)
    for key, value in _without_lease(study).items():
        storage.set_study_user_attr(study_id, key, value)
    for trial in study.get_trials(deepcopy=False):
        storage.create_new_trial(study_id, template_trial=trial)


def _compare(source: str, target: str, names: list[str], storage: StudyStorage) -> None:
    """Compare with the source as it is now, since the sweep may have been started meanwhile."""
    for name in names:
        old, new = peek(source, name), peek(target, name)
        difference = "it is not there" if old is None or new is None else _difference(old, new)
        if difference is None:
            continue
        for made in names:
            if (study := find_study(storage, made)) is not None:
                storage.delete_study(study_id_of(study))
        raise SweepFailed(
            f"the copy of the study {name!r} differs from the original ({difference}) and was removed; "
            "is the sweep still running?"
        )


def _difference(old: optuna.Study, new: optuna.Study) -> str | None:
    if old.directions != new.directions:
        return "direction"
    if _text(_without_lease(old)) != _text(_without_lease(new)):
        return "the study's attributes"
    if _text(_system_attrs(old)) != _text(_system_attrs(new)):
        return "the study's system attributes"
    theirs, ours = old.get_trials(deepcopy=False), new.get_trials(deepcopy=False)
    if len(theirs) != len(ours):
        return f"{len(theirs)} trials became {len(ours)}"
    for before, after in zip(theirs, ours, strict=True):
        same_times = _same_time(before.datetime_start, after.datetime_start) and _same_time(
            before.datetime_complete, after.datetime_complete
        )
        if not same_times or _facts(before) != _facts(after):
            return f"trial {before.number}"
    return None


def _without_lease(study: optuna.Study) -> dict[str, Any]:
    return {key: value for key, value in study.user_attrs.items() if key != LEASE}


def _system_attrs(study: optuna.Study) -> dict[str, Any]:
    return storage_of(study).get_study_system_attrs(study_id_of(study))


def _facts(trial: FrozenTrial) -> str:
    names = ("number", "values", "params", "intermediate_values", "user_attrs", "system_attrs")
    distributions = {name: repr(each) for name, each in trial.distributions.items()}
    facts = {name: getattr(trial, name) for name in names}
    return _text(facts | {"state": trial.state.name, "distributions": distributions})


def _text(value: Any) -> str:
    """JSON text, so that NaN equals NaN and the order of keys does not matter."""
    return json.dumps(value, sort_keys=True)


def _same_time(old: datetime | None, new: datetime | None) -> bool:
    if old is None or new is None:
        return old is new
    return abs((old - new).total_seconds()) <= _CLOCK_SECONDS
