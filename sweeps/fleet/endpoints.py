"""The driver's own actors: the keeper and the file server, and what workers need to reach them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.artifacts.checkpoint_store import CheckpointStore
from sweeps.artifacts.file_server import FileServer, write_run_token
from sweeps.errors import SweepError
from sweeps.keeper.actor import KeeperActor
from sweeps.plan.specs import StudySpec
from sweeps.study.lease import DriverProcess

CLOSE_SECONDS = 30
SECRET_PREFIX, SECRET_SUFFIX = "sweeps-", ".secret"
"""Beginning and end of the name of a file that holds a storage's URL."""


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Actors and settings that a run passes to its workers."""

    keeper: Any
    file_server: Any
    run: str
    """Identifies this run of the sweep."""
    run_folder: str
    outage_seconds: float
    """How long a worker waits for the driver's disk or the checkpoint store."""
    store: CheckpointStore | None = None
    """Where checkpoints are kept if not in the run folder."""


@contextlib.contextmanager
def open_endpoints(study_spec: StudySpec, storage_url: str, owner: DriverProcess) -> Iterator[Endpoints]:
    """Start keeper and file server of a run, and end them with the block. Raises what `Keeper` raises."""
    with private_file(storage_url) as secret:
        keeper = _beside_driver(KeeperActor).remote(study_spec, secret, owner)
        file_server = _beside_driver(FileServer).remote(study_spec.run_folder)
        try:
            try:
                ray.get(keeper.open.remote())
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, SweepError) else error) from None
            write_run_token(Path(study_spec.run_folder), owner.run)
            yield Endpoints(
                keeper=keeper,
                file_server=file_server,
                run=owner.run,
                run_folder=study_spec.run_folder,
                outage_seconds=study_spec.reliability.outage_seconds,
                store=study_spec.checkpoint_store(),
            )
            # Without an answer, the next sweep has to wait for the lease to expire.
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(keeper.close.remote(), timeout=CLOSE_SECONDS)
        finally:
            ray.kill(keeper)
            ray.kill(file_server)


@contextlib.contextmanager
def private_file(text: str) -> Iterator[str]:
    """A temporary file that only this user can read, removed at the end of the block.

    Used because Ray would keep an actor's argument in its object store. A killed driver leaves the file
    behind unlocked; the next one removes it.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{SECRET_PREFIX}*{SECRET_SUFFIX}"):
        with contextlib.suppress(OSError), path.open("rb") as left:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    descriptor, name = tempfile.mkstemp(prefix=SECRET_PREFIX, suffix=SECRET_SUFFIX)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(text)
            file.flush()
            yield name
        finally:
            Path(name).unlink(missing_ok=True)


def _beside_driver(actor: type) -> Any:
    """An actor class on the driver's node; Ray restarts the actor when it dies, and repeats its calls."""
    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(**options)(actor)
