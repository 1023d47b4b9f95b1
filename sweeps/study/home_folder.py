"""Which run folder a study belongs to, so that a copied folder does not write to its original's study."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import optuna

from sweeps.config import SweepConfig, load_sweep, storage_url
from sweeps.config.url_passwords import masked
from sweeps.errors import ConfigError, RunFolderError
from sweeps.storage.journal_storage import journal_path
from sweeps.storage.open_storage import sqlite_file
from sweeps.study.study import peek

HOME_FOLDER = "run_folder"
"""The study's user attribute: host and path of the folder in which it was run last."""


def record_home(study: optuna.Study, run_folder: Path) -> None:
    """Note in the study where it is run; called by who holds its lease."""
    home = {"host": socket.gethostname(), "path": os.path.abspath(run_folder)}
    if study.user_attrs.get(HOME_FOLDER) != home:
        study.set_user_attr(HOME_FOLDER, home)


def refuse_copy(config: SweepConfig) -> None:
    """RunFolderError if the run folder is a copy, and its study that of the original, which is still there.

    A study inside the run folder is copied with it. An original on another machine cannot be looked for:
    there the study's lease alone decides.
    """
    url, folder = storage_url(config.storage, config.run_folder), Path(os.path.abspath(config.run_folder))
    file = journal_path(url) or sqlite_file(url)
    if file is not None and file.is_relative_to(folder):
        return
    study = peek(url, config.name)
    home = None if study is None else study.user_attrs.get(HOME_FOLDER)
    if not isinstance(home, Mapping) or home.get("host") != socket.gethostname():
        return
    original = Path(str(home.get("path")))
    if original == folder or not original.is_dir() or (folder.is_dir() and folder.samefile(original)):
        return
    try:
        theirs = load_sweep(original, check_files=False)
    except ConfigError:
        return
    if (theirs.name, theirs.storage) != (config.name, config.storage):
        return
    raise RunFolderError(
        f"the study {config.name!r} in {masked(url)} is run in {original}, of which {folder} is a copy. Its "
        "results can be read here. Run it there, or give this folder a study of its own: "
        f"sweeps move {folder} --to journal:{folder / 'study.log'}"
    )
