"""Runs the workers as a Tune experiment: one Tune trial per worker, restarted whenever it dies."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from ray import tune

from sweeps.fleet.early_exits import ReportEarlyExits, parse_ray_error
from sweeps.fleet.endpoints import Endpoints
from sweeps.fleet.fleet_size import FleetSize
from sweeps.fleet.training_session import SessionOpener
from sweeps.fleet.worker import Worker


class _StopWhenDone(tune.Stopper):  # type: ignore[misc]  # Ray ships no types
    """Ends the fleet, including workers that wait for resources, once no worker has anything left to do."""

    def __init__(self) -> None:
        self._done = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self._done = self._done or bool(result.get("fleet_done"))
        return False

    def end(self) -> None:
        self._done = True

    def stop_all(self) -> bool:
        return self._done


class _StopWhenNoneRuns(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Ends a fleet that gets no more trials if all workers wait for a node, which may never come."""

    def __init__(self, stopper: _StopWhenDone, is_to_stop: Callable[[], bool]) -> None:
        self._stopper = stopper
        self._is_to_stop = is_to_stop

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        if self._is_to_stop() and not any(trial.status == "RUNNING" for trial in trials):
            self._stopper.end()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks to disk; nothing reads them back."""
        return {}


class _NoOutput(tune.ProgressReporter):  # type: ignore[misc]  # Ray ships no types
    """In a notebook, Tune's own reporter would clear what the cell shows."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: str) -> None:
        pass


def run_fleet(
    endpoints: Endpoints,
    worker_spec: SessionOpener,
    size: FleetSize,
    is_to_stop: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Run workers until the keeper has no more trials for them; returns the errors of workers given up.

    The keeper tells running workers to stop; `is_to_stop` is asked while none runs.
    """
    stopper = _StopWhenDone()
    early_exits = ReportEarlyExits(endpoints.keeper, size.now, end=stopper.end, is_to_stop=is_to_stop)
    trainable = tune.with_resources(
        tune.with_parameters(Worker, endpoints=endpoints, worker_spec=worker_spec), size.resources
    )
    scratch = tempfile.mkdtemp(prefix="sweeps-fleet-")
    try:
        results = tune.Tuner(
            trainable,
            param_space={"worker": tune.grid_search(list(range(size.most))), "workers": size.now},
            run_config=tune.RunConfig(
                name="fleet",
                storage_path=scratch,
                verbose=0,
                progress_reporter=_NoOutput(),
                stop=stopper,
                callbacks=[_StopWhenNoneRuns(stopper, is_to_stop), early_exits],
                # Unlimited: the keeper decides when to give up a trial or a worker.
                failure_config=tune.FailureConfig(max_failures=-1),
            ),
        ).fit()
        errors = [parse_ray_error(str(error)).message for error in results.errors]
        return [error for error in errors if error not in early_exits.given_up]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
