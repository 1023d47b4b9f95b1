"""Starts a local Ray or joins a running one, with Tune's own output off and the token private."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import ray
from ray._private import services  # Ray has no public way to say how its daemons are started

ENVIRONMENT = {
    # No result files, progress bars or Ctrl-C handling of Tune: the study and the live view replace them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    # Spinning idle OpenMP threads would slow down the other processes of a small machine.
    "OMP_WAIT_POLICY": "PASSIVE",
}


VERBOSE = "SWEEPS_VERBOSE"
"""Environment variable: with 1, what Ray, Tune and the workers print is shown."""


def start_ray(address: str | None = None) -> None:
    """Start a local Ray without a dashboard, or join the one at `address`."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    is_verbose = os.environ.get(VERBOSE) == "1"
    if not is_verbose:
        # The live view reports on workers; Tune would log a page of traceback for each failure.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if not ray.is_initialized():
        with _daemons_in_own_session():
            ray.init(
                # "local": always a new Ray, never one that happens to run, or that died and left its address.
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=is_verbose,
                logging_level="INFO" if is_verbose else "ERROR",
            )
    make_token_private()


@contextmanager
def _daemons_in_own_session() -> Iterator[None]:
    """What `ray.init` starts in the block gets no signal that is sent to the whole group of this process.

    `timeout`, job schedulers and terminals send SIGTERM or Ctrl-C to the group. Trials write their
    checkpoints then, for which they need Ray. Ray's daemons end with this process in any case.
    """
    popen = getattr(services, "ConsolePopen", None)
    if popen is None:  # another version of Ray: its daemons stay in the group
        yield
        return
    services.ConsolePopen = partial(popen, start_new_session=True)
    try:
        yield
    finally:
        services.ConsolePopen = popen


def make_token_private() -> None:
    """Ray writes its authentication token readable by every user of the machine: make it private."""
    folder = Path.home() / ".ray"
    token = folder / "auth_token"
    if token.is_file():
        folder.chmod(stat.S_IRWXU)
        token.chmod(stat.S_IRUSR | stat.S_IWUSR)
