"""Ray: the keeper as an actor, and `tune.Tuner` keeping the fleet of workers."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.artifacts.checkpoint_store import CheckpointStore
from sweeps.artifacts.file_server import FileServer, mark
from sweeps.errors import ConfigError, SweepError
from sweeps.fleet.early_exits import ReportEarlyExits, parse_ray_error
from sweeps.fleet.worker import Worker
from sweeps.keeper.actor import KeeperActor
from sweeps.plan.specs import StudySpec, WorkerSpec
from sweeps.study.lease import DriverProcess

SPARE_WORKERS = 64
"""Workers beyond those that a cluster has room for now, which start on nodes that join it."""
CLOSE_SECONDS = 30
SECRET = ("sweeps-", ".secret")
"""How the name of a file that holds a storage's URL begins and ends."""

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
    # The view tells what becomes of workers; Tune's own account is a page of traceback for each.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if not ray.is_initialized():
        ray.init(
            # Without an address a Ray of our own: not whichever somebody has started, or left dead behind.
            address=address or "local",
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


# --- the driver's own actors ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """What a run's workers talk to."""

    keeper: Any
    file_server: Any
    run: str
    """The owner's token of this run."""
    run_folder: str
    outage_seconds: float
    """How long a worker waits for a disk of the driver's."""
    store: CheckpointStore | None = None
    """Where checkpoints lie when not in the run folder."""


@contextlib.contextmanager
def open_endpoints(study_spec: StudySpec, storage_url: str, owner: DriverProcess) -> Iterator[Endpoints]:
    """Keeper and depot of a run, as actors; errors of the study are raised here as they are."""
    with private_file(storage_url) as secret:
        keeper = _beside_driver(KeeperActor).remote(study_spec, secret, owner)
        file_server = _beside_driver(FileServer).remote(study_spec.run_folder)
        try:
            try:
                ray.get(keeper.open.remote())
            except ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, SweepError) else error) from None
            mark(Path(study_spec.run_folder), owner.run)
            yield Endpoints(
                keeper=keeper,
                file_server=file_server,
                run=owner.run,
                run_folder=study_spec.run_folder,
                outage_seconds=study_spec.reliability.outage_seconds,
                store=study_spec.checkpoint_store(),
            )
            # Without an answer, the lease has to run out.
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(keeper.close.remote(), timeout=CLOSE_SECONDS)
        finally:
            ray.kill(keeper)
            ray.kill(file_server)


@contextlib.contextmanager
def private_file(text: str) -> Iterator[str]:
    """A temporary file that only this user can read, for as long as the block takes.

    Rather than an argument of an actor, which Ray would keep in its object store. A driver that is killed
    leaves it behind without its lock; the next one removes it.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{SECRET[0]}*{SECRET[1]}"):
        with contextlib.suppress(OSError), path.open("rb") as left:
            fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    descriptor, name = tempfile.mkstemp(prefix=SECRET[0], suffix=SECRET[1])
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(text)
            file.flush()
            yield name
        finally:
            Path(name).unlink(missing_ok=True)


def _beside_driver(actor: type) -> Any:
    """An actor on the driver's node that Ray starts anew when it dies, and whose calls it then repeats."""
    here = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(**options)(actor)


# --- the fleet ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """How many workers there may be, and what each reserves."""

    now: int
    """For which the cluster has room."""
    most: int
    """With those that nodes may bring along while the sweep runs."""
    resources: dict[str, float]


def plan_fleet(wanted: int | str, gpus_per_worker: int, *, may_grow: bool = False) -> Fleet:
    """The fleet's size; auto is a worker for every set of GPUs in the cluster, or one on CPU.

    Without a GPU, several workers share the cores: faster for a small base, and each loads a base of its own.
    With GPUs, each takes a core beside them. In a cluster that `may_grow`, workers beyond what it has room
    for wait for nodes that join it. Raises ConfigError for a fleet that the machine, or a worker that no
    node, can ever host.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    if any(gpus):
        by_gpus = [count // gpus_per_worker for count in gpus]
        room = sum(map(min, by_gpus, cpus))
        if not any(by_gpus):
            raise ConfigError(
                [
                    f"gpus_per_worker is {gpus_per_worker}, but a worker is on one node and no node has more "
                    f"than {max(gpus)} GPUs"
                ]
            )
        if not room:
            raise ConfigError(
                [
                    "a worker takes a CPU core beside its GPUs, but no node that has the GPUs has a core; "
                    "start Ray there with --num-cpus of at least 1 for each worker"
                ]
            )
        resources: dict[str, float] = {"GPU": gpus_per_worker, "CPU": 1}
        have = f"room for {room}: {' + '.join(str(count) for count in gpus if count)} GPUs"
        if room < sum(by_gpus):
            have += f" with {' + '.join(str(cpus[i]) for i, count in enumerate(gpus) if count)} CPU cores"
        now = room if wanted == "auto" else min(int(wanted), room)
    else:
        room = sum(cpus)
        have = f"no GPU and {room} CPU cores"
        now = 1 if wanted == "auto" else int(wanted)
        share = max(cpus) - 1 if now == 1 else min(max(cpus), room // now)
        resources = {"CPU": max(1, share)}
    if wanted != "auto" and int(wanted) > room and not may_grow:
        raise ConfigError([f"workers is {wanted}, but the cluster has {have}; set workers to at most {room}"])
    most = now if wanted == "auto" else int(wanted)
    if wanted == "auto" and may_grow and any(gpus):
        most += SPARE_WORKERS
    return Fleet(now=now, most=most, resources=resources)


class _WhenOver(tune.Stopper):  # type: ignore[misc]  # Ray ships no types
    """Ends the fleet, with the workers that still wait for a place, when no trial is left for any."""

    def __init__(self) -> None:
        self._over = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self._over = self._over or bool(result.get("over"))
        return False

    def end(self) -> None:
        """End it now."""
        self._over = True

    def stop_all(self) -> bool:
        return self._over


class _WhenNobodyIsLeft(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Ends a fleet that gets no more trials, when all of its workers wait for a node that may never come."""

    def __init__(self, when_over: _WhenOver, is_to_stop: Callable[[], bool]) -> None:
        self._when_over = when_over
        self._is_to_stop = is_to_stop

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if self._is_to_stop() and not any(trial.status == "RUNNING" for trial in trials):
            self._when_over.end()

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy on disk, which nobody ever reads."""
        return {}


def run_fleet(
    endpoints: Endpoints,
    worker_spec: WorkerSpec,
    fleet: Fleet,
    is_to_stop: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Run workers until the keeper has no more trials for them; returns errors of workers that gave up.

    Workers hear of that from the keeper; `is_to_stop` is for a fleet that has none at the time.
    """
    when_over = _WhenOver()
    early = ReportEarlyExits(endpoints.keeper, fleet.now, end=when_over.end, is_to_stop=is_to_stop)
    trainable = tune.with_resources(
        tune.with_parameters(Worker, endpoints=endpoints, worker_spec=worker_spec), fleet.resources
    )
    scratch = tempfile.mkdtemp(prefix="sweeps-fleet-")
    try:
        results = tune.Tuner(
            trainable,
            param_space={"worker": tune.grid_search(list(range(fleet.most))), "workers": fleet.now},
            run_config=tune.RunConfig(
                name="fleet",
                storage_path=scratch,
                verbose=0,
                stop=when_over,
                callbacks=[_WhenNobodyIsLeft(when_over, is_to_stop), early],
                # Without end: the keeper knows which trial, worker or base is to blame, and gives it up.
                failure_config=tune.FailureConfig(max_failures=-1),
            ),
        ).fit()
        errors = [parse_ray_error(str(error)).message for error in results.errors]
        return [error for error in errors if error not in early.given_up]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
