"""Ray: the keeper as an actor, and `tune.Tuner` keeping the fleet of workers."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.blueprint import Job, Ledger
from sweeps.errors import ConfigError, SweepError
from sweeps.keeper import Keeper
from sweeps.worker import Worker

WORKER_FAILURES = 3
"""How often Tune restarts a worker that died before the sweep gives up on it."""

_ENVIRONMENT = {
    # Tune's own result files, progress bars and Ctrl-C handling: the study and the view take their place.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    # Idle OpenMP threads that spin starve the other processes of a small machine.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def start_ray(address: str | None = None) -> None:
    """Start a local Ray, or join the one at `address`; its dashboard stays off and its token private."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not ray.is_initialized():
        ray.init(
            address=address,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    make_token_private()


def make_token_private(folder: Path | None = None) -> None:
    """Ray writes its authentication token readable by everyone on the machine; take that back."""
    folder = folder or Path.home() / ".ray"
    token = folder / "auth_token"
    if token.is_file():
        folder.chmod(stat.S_IRWXU)
        token.chmod(stat.S_IRUSR | stat.S_IWUSR)


class KeeperActor(Keeper):
    """The keeper in a process of its own, on the driver's node."""

    def __init__(self) -> None:
        """Nothing yet: only an error raised by a method keeps its type on its way to the driver."""

    def open(self, ledger: Ledger, secret: str) -> None:
        """Become the keeper of a study. `secret` is a private file that holds the storage's URL."""
        super().__init__(ledger, Path(secret).read_text(encoding="utf-8"))


@contextlib.contextmanager
def keeper_for(ledger: Ledger, storage_url: str) -> Iterator[Any]:
    """The keeper actor of a sweep; errors of its study are raised here as they are."""
    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    keeper = ray.remote(num_cpus=0, scheduling_strategy=here)(KeeperActor).remote()
    # A file only we can read, rather than an argument, which Ray would keep in its object store.
    descriptor, secret = tempfile.mkstemp(prefix="sweeps-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(storage_url)
        try:
            ray.get(keeper.open.remote(ledger, secret))
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, SweepError) else error) from None
        finally:
            os.unlink(secret)
        yield keeper
    finally:
        ray.kill(keeper)


def worker_resources(workers: int, gpus_per_worker: int) -> dict[str, float]:
    """What a worker reserves: its GPUs, or its share of the CPUs of a machine without one."""
    if ray.cluster_resources().get("GPU", 0) >= gpus_per_worker:
        return {"GPU": gpus_per_worker, "CPU": 1}
    cpus = ray.cluster_resources().get("CPU", 1)
    return {"CPU": max(1, cpus - 1 if workers == 1 else cpus // workers)}


def num_workers(wanted: int | str, gpus_per_worker: int) -> int:
    """The fleet's size; auto is a worker for every set of GPUs in the cluster, or one on CPU.

    Without a GPU, several workers share the cores: faster for a small base, and each loads a base of its own.
    """
    gpus = int(ray.cluster_resources().get("GPU", 0))
    cpus = int(ray.cluster_resources().get("CPU", 1))
    possible = gpus // gpus_per_worker if gpus else cpus
    if wanted == "auto":
        if gpus and not possible:
            raise ConfigError([f"gpus_per_worker is {gpus_per_worker}, but the cluster has {gpus} GPUs"])
        return possible if gpus else 1
    if int(wanted) > possible:
        have = f"{gpus} GPUs" if gpus else f"no GPU and {cpus} CPU cores"
        raise ConfigError(
            [f"workers is {wanted}, but the cluster has {have}; set workers to at most {possible}"]
        )
    return int(wanted)


def run_fleet(keeper: Any, job: Job, *, workers: int, gpus_per_worker: int) -> list[str]:
    """Run workers until the keeper has no more trials for them; returns errors of workers that gave up."""
    trainable = tune.with_resources(
        tune.with_parameters(Worker, keeper=keeper, job=job), worker_resources(workers, gpus_per_worker)
    )
    scratch = tempfile.mkdtemp(prefix="sweeps-fleet-")
    try:
        results = tune.Tuner(
            trainable,
            param_space={"worker": tune.grid_search(list(range(workers))), "workers": workers},
            run_config=tune.RunConfig(
                name="fleet",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=WORKER_FAILURES),
            ),
        ).fit()
        return [str(error) for error in results.errors]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
