"""An earlier confirmation kept under another name, so that a new one can start."""

from __future__ import annotations

import itertools
from pathlib import Path

import optuna

from results.verdict.replicates import CONFIRM_FOLDER, CONFIRM_SUFFIX
from sweeps.storage.open_storage import open_storage
from sweeps.storage.optuna_private import study_id_of
from sweeps.study.lease import refuse_unless_free
from sweeps.study.study import find_study, peek

ONE_RATE_SUFFIX = f"{CONFIRM_SUFFIX}.one-rate"
CONFIRM_SUFFIXES = (CONFIRM_SUFFIX, ONE_RATE_SUFFIX)
"""Of the names of a confirmation's studies, after the sweep's own."""
"""In the run folder."""


def refuse_if_running(url: str, name: str, *, lease_seconds: float) -> None:
    """StudyHeld while another process works on the confirmation of the sweep `name`."""
    for suffix in CONFIRM_SUFFIXES:
        if (study := peek(url, f"{name}{suffix}")) is not None:
            refuse_unless_free(study, seconds=lease_seconds)


def set_aside(url: str, name: str, run_folder: Path) -> str:
    """Rename the studies and the folder of an earlier confirmation; returns what was added to their names.

    Nothing is lost: `small.confirm` becomes `small.confirm.earlier-1`.
    """
    storage = open_storage(url)
    try:
        taken = {study.study_name for study in storage.get_all_studies()}
        folder = run_folder / CONFIRM_FOLDER
        endings = (f".earlier-{number}" for number in itertools.count(1))
        ending = next(
            e
            for e in endings
            if not any(f"{name}{suffix}{e}" in taken for suffix in CONFIRM_SUFFIXES)
            and not folder.with_name(f"{CONFIRM_FOLDER}{e}").exists()
        )
        with storage.transaction():
            for suffix in CONFIRM_SUFFIXES:
                if (study := find_study(storage, f"{name}{suffix}")) is not None:
                    _rename(storage, study, f"{name}{suffix}{ending}")
    finally:
        storage.close()
    if folder.is_dir():
        folder.rename(folder.with_name(f"{CONFIRM_FOLDER}{ending}"))
    return ending


def _rename(storage: optuna.storages.BaseStorage, study: optuna.Study, name: str) -> None:
    """Optuna cannot rename: the study is copied under its new name, and the old one deleted."""
    copy = optuna.create_study(storage=storage, study_name=name, directions=study.directions)
    for key, value in study.user_attrs.items():
        copy.set_user_attr(key, value)
    copy.add_trials(study.get_trials(deepcopy=False))
    storage.delete_study(study_id_of(study))
