"""The real fleet on a Ray of several logical nodes, with nothing to train: one of `benchmarks.scale`'s sides.

`python -m benchmarks.scale_fleet OUTCOME --trials N --workers W --seats K --seconds S` writes how it went.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil

from benchmarks.empty_fleet import EmptyJob, empty_study_spec
from sweeps.fleet.fleet import open_endpoints, plan_fleet, run_fleet, start_ray
from sweeps.plan.specs import WorkerSpec
from sweeps.storage.open_storage import open_storage
from sweeps.study.lease import DriverProcess
from sweeps.study.study import open_study


class Watch(threading.Thread):
    """Looks at the keeper's process until it is told to end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mib = self.cpu_seconds = 0.0
        self._end = threading.Event()

    def run(self) -> None:
        keeper: psutil.Process | None = None
        while not self._end.wait(0.5):
            with suppress(psutil.Error):
                if keeper is None or not keeper.is_running():
                    mine = psutil.Process().children(recursive=True)
                    keeper = next((p for p in mine if "KeeperActor" in " ".join(p.cmdline()[:1])), None)
                if keeper is not None:
                    self.peak_mib = max(self.peak_mib, keeper.memory_info().rss / 2**20)
                    used = keeper.cpu_times()
                    self.cpu_seconds = used.user + used.system

    def end(self) -> None:
        """Stop looking."""
        self._end.set()
        self.join()


def main() -> None:
    """Run the fleet and write what became of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outcome", type=Path)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True, help="each on a node of its own")
    parser.add_argument("--seats", type=int, required=True, help="of each worker")
    parser.add_argument("--seconds", type=float, required=True, help="no trial is handed out later than that")
    options = parser.parse_args()
    import ray
    from ray.cluster_utils import Cluster

    folder = Path.cwd() / "run"
    folder.mkdir()
    study_spec = empty_study_spec(folder, options.trials)
    search = {"sampler": "random", "timeout_seconds": options.seconds}
    study_spec, url = (
        replace(study_spec, search=study_spec.search | search),
        f"sqlite:///{folder / 'study.db'}",
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(options.workers):
            cluster.add_node(num_cpus=1)
        start_ray(str(cluster.address))
        watch = Watch()
        watch.start()
        began = time.time()
        with open_endpoints(study_spec, url, DriverProcess.current("benchmark")) as endpoints:
            # Its reports are as many as its seats, so it hears from the keeper seldom: hence the patience.
            worker_spec = cast(WorkerSpec, EmptyJob(options.seats, stall_seconds=600.0))
            errors = run_fleet(endpoints, worker_spec, plan_fleet(options.workers, 1))
        watch.end()
    finally:
        ray.shutdown()  # a cluster does not end the node that its driver is connected to
        cluster.shutdown()
    if errors:
        raise SystemExit("\n".join(errors))
    study, _ = open_study(open_storage(url, for_reading=True), study_spec.name, study_spec.identity)
    trials: list[Any] = study.get_trials(deepcopy=False)
    over = [t for t in trials if t.state.is_finished()]
    outcome = {
        "began": began,
        "ended": sorted(t.datetime_complete.timestamp() for t in over),
        "most_at_once": most_at_once(over),
        "workers": len({t.user_attrs.get("worker") for t in over}),
        "keeper_peak_mib": watch.peak_mib,
        "keeper_cpu_seconds": watch.cpu_seconds,
        "left": sum(t.state.name == "RUNNING" for t in trials),
    }
    options.outcome.write_text(json.dumps(outcome))


def most_at_once(trials: list[Any]) -> int:
    """How many trials had been drawn and had not ended, at most."""
    moves = [(t.datetime_start, 1) for t in trials] + [(t.datetime_complete, -1) for t in trials]
    now = most = 0
    for _, step in sorted(moves):
        now += step
        most = max(most, now)
    return most


if __name__ == "__main__":
    main()
