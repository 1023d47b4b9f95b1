"""One pass over a sweep: every tracker is brought up to date with the study."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna
from filelock import FileLock, Timeout

from sweeps.config.logins import QUOTED, is_plain, without_secrets
from sweeps.errors import SweepError, TrackingFailed, TrackingNotInstalled
from sweeps.tracking.mlflow_runs import mlflow_uri, to_mlflow
from sweeps.tracking.record import read_records
from sweeps.tracking.tensorboard_runs import to_tensorboard
from sweeps.tracking.wandb_runs import to_wandb

if TYPE_CHECKING:
    from sweeps.sweep import Sweep

_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
_LOCK = ".tracking.lock"
_LOCK_SECONDS = 60


def check_installed(trackers: Sequence[str]) -> None:
    """TrackingNotInstalled, with the command that mends it, when a tracker's package is missing."""
    missing = [name for name in trackers if importlib.util.find_spec(_PACKAGES[name]) is None]
    if missing:
        raise TrackingNotInstalled(
            f"tracking to {', '.join(missing)} needs packages that are not installed: "
            "pip install 'qlora-sweeps[tracking]'"
        )


def track(sweep: Sweep, trackers: Sequence[str]) -> dict[str, int]:
    """Bring trackers up to date; return for each the number of trials that there was something new of.

    Runs already there are updated, never made twice; one pass at a time per run folder. Every tracker is
    tried before TrackingFailed says what became of those that failed. Also raises what `Sweep.study` raises.
    """
    check_installed(trackers)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = sweep.run_folder
    records = read_records(sweep.study(), folder)
    config = sweep.config.tracking
    uri = mlflow_uri(config.mlflow_tracking_uri, folder)
    done: dict[str, int] = {}
    failed: list[str] = []
    try:
        with FileLock(folder / _LOCK, timeout=_LOCK_SECONDS):
            for tracker in trackers:
                try:
                    if tracker == "tensorboard":
                        done[tracker] = to_tensorboard(records, folder)
                    elif tracker == "mlflow":
                        if "://" in uri and not is_plain(uri):
                            raise TrackingFailed(
                                "it cannot be told where the login in the tracking URI ends; in a user name "
                                f"or password, write {QUOTED}"
                            )
                        # Its first words on a new database are about making tables.
                        for name in ("mlflow", "alembic"):
                            logging.getLogger(name).setLevel(logging.ERROR)
                        done[tracker] = to_mlflow(records, uri)
                    else:
                        done[tracker] = to_wandb(
                            records,
                            folder,
                            project=config.wandb_project,
                            entity=config.wandb_entity,
                            mode=config.wandb_mode,
                        )
                except Exception as error:  # whatever another program makes of its disk or its network
                    failed.append(f"{tracker}: {_told(error, uri)}")
    except Timeout:
        raise TrackingFailed(f"another process has been tracking this sweep for {_LOCK_SECONDS} s") from None
    if failed:
        raise TrackingFailed("\n".join(failed))
    return done


def _told(error: Exception, uri: str) -> str:
    """An error as one line, without the password that an address may hold."""
    if isinstance(error, SweepError):
        return str(error)
    text = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {without_secrets(text, uri)}"
