"""Bring every tracker up to date with the study, once."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import optuna
from filelock import FileLock, Timeout

from files_and_text.nearest_name import nearest
from sweeps.config import SweepConfig, storage_url
from sweeps.config.sections.tracking import TRACKERS, TrackingSection
from sweeps.config.url_passwords import QUOTED, is_plain, without_secrets
from sweeps.errors import ConfigError, SweepError, TrackingFailed, TrackingNotInstalled
from sweeps.study.study import started_study
from sweeps.tracking.mlflow_runs import mlflow_uri, to_mlflow
from sweeps.tracking.tensorboard_runs import to_tensorboard
from sweeps.tracking.trial_record import TrialRecord, read_records
from sweeps.tracking.wandb_runs import to_wandb

_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
_LOCK = ".tracking.lock"
_LOCK_SECONDS = 60


def check_installed(trackers: Sequence[str]) -> None:
    """TrackingNotInstalled, with the command that installs it, when a tracker's package is missing."""
    missing = [name for name in trackers if importlib.util.find_spec(_PACKAGES[name]) is None]
    if missing:
        raise TrackingNotInstalled(
            f"tracking to {', '.join(missing)} needs packages that are not installed: "
            "pip install 'qlora-sweeps[tracking]'"
        )


def track(config: SweepConfig, trackers: Sequence[str]) -> dict[str, int]:
    """Update the trackers; returns for each the number of trials for which there was something new.

    Runs that exist are updated, never made twice. One process at a time does this for a run folder. Every
    tracker is tried before TrackingFailed is raised with one line per failure. ConfigError for a name that
    is no tracker's, or for none; also raises what `started_study` raises.
    """
    if unknown := [name for name in trackers if name not in TRACKERS]:
        raise ConfigError([f"no tracker is named {unknown[0]!r}.{nearest(unknown[0], TRACKERS)}"])
    if not trackers:
        known = ", ".join(TRACKERS)
        raise ConfigError([f"name a tracker (--to, or tracking: {{to: [...]}} in the file): {known}"])
    check_installed(trackers)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = config.run_folder
    study = started_study(storage_url(config.storage, folder), config.name)
    records = read_records(study, folder)
    uri = mlflow_uri(config.tracking.mlflow_tracking_uri, folder)
    updated: dict[str, int] = {}
    failed: list[str] = []
    try:
        with FileLock(folder / _LOCK, timeout=_LOCK_SECONDS):
            for tracker in trackers:
                try:
                    updated[tracker] = _update(tracker, records, folder, config.tracking, uri)
                except Exception as error:  # anything a tracker's package, its disk or its network raises
                    failed.append(f"{tracker}: {_one_line(error, uri)}")
    except Timeout:
        raise TrackingFailed(f"another process has been tracking this sweep for {_LOCK_SECONDS} s") from None
    if failed:
        raise TrackingFailed("\n".join(failed))
    return updated


def _update(
    tracker: str, records: Sequence[TrialRecord], run_folder: Path, settings: TrackingSection, uri: str
) -> int:
    if tracker == "tensorboard":
        return to_tensorboard(records, run_folder)
    if tracker == "wandb":
        return to_wandb(
            records,
            run_folder,
            project=settings.wandb_project,
            entity=settings.wandb_entity,
            mode=settings.wandb_mode,
        )
    if "://" in uri and not is_plain(uri):
        raise TrackingFailed(
            "it is not clear where the login in the tracking URI ends; in a user name or password, write "
            f"{QUOTED}"
        )
    # On a new database both log the creation of every table.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return to_mlflow(records, uri)


def _one_line(error: Exception, uri: str) -> str:
    """An error as one line, without the password that an address may hold."""
    if isinstance(error, SweepError):
        return str(error)
    text = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {without_secrets(text, uri)}"
