"""The real fleet with trials that train nothing: part of `benchmarks.orchestration` and `.scale`.

`python -m benchmarks.empty_trials.fleet OUTCOME --trials N --seats K` writes when Ray was ready, when trials
ended, and what the keeper used.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.empty_trials.session import EmptyWorkerSpec, empty_study_spec
from sweeps.fleet.endpoints import open_endpoints
from sweeps.fleet.fleet_size import fleet_size
from sweeps.fleet.ray_start import start_ray
from sweeps.fleet.run_fleet import run_fleet
from sweeps.storage.open_storage import open_storage
from sweeps.study.lease import DriverProcess
from sweeps.study.study import open_study


class KeeperProcess(threading.Thread):
    """Measures the keeper's process until `end` is called."""

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
        """Stop measuring."""
        self._end.set()
        self.join()


@contextmanager
def started_ray(nodes: int) -> Iterator[None]:
    """Ray on this machine, or on that many logical nodes of one core each."""
    if not nodes:
        start_ray()
        yield
        return
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        start_ray(str(cluster.address))
        yield
    finally:
        ray.shutdown()  # a cluster does not end the node that its driver is connected to
        cluster.shutdown()


def main() -> None:
    """Run the fleet and write the outcome; moments are in seconds since the epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outcome", type=Path)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seats", type=int, required=True, help="of each worker")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--nodes", type=int, default=0, help="logical, a worker on each; 0: no cluster")
    parser.add_argument("--seconds", type=float, help="no trial is started later than that")
    options = parser.parse_args()
    folder = Path.cwd() / "run"
    folder.mkdir()
    study_spec, url = empty_study_spec(folder, options.trials), f"sqlite:///{folder / 'study.db'}"
    search = study_spec.search | {"sampler": options.sampler, "timeout_seconds": options.seconds}
    study_spec = replace(study_spec, search=search)
    # A worker of many seats sends long reports, between which it hears nothing from the keeper.
    worker_spec = EmptyWorkerSpec(options.seats, stall_seconds=600.0)
    with started_ray(options.nodes):
        keeper = KeeperProcess()
        keeper.start()
        ready = time.time()
        with open_endpoints(study_spec, url, DriverProcess.current("benchmark")) as endpoints:
            errors = run_fleet(endpoints, worker_spec, fleet_size(max(1, options.nodes), 1))
        keeper.end()
    if errors:
        raise SystemExit("\n".join(errors))
    study, _ = open_study(open_storage(url, for_reading=True), study_spec.name, study_spec.identity)
    trials: list[Any] = study.get_trials(deepcopy=False)
    over = [t for t in trials if t.state.is_finished()]
    outcome = {
        "ready": ready,
        "ended": sorted(t.datetime_complete.timestamp() for t in over),
        "states": Counter(t.state.name for t in trials),
        "most_at_once": most_at_once(over),
        "workers": len({t.user_attrs.get("worker") for t in over}),
        "keeper_peak_mib": keeper.peak_mib,
        "keeper_cpu_seconds": keeper.cpu_seconds,
    }
    options.outcome.write_text(json.dumps(outcome))


def most_at_once(trials: list[Any]) -> int:
    """How many trials had started and not ended, at most."""
    changes = [(t.datetime_start, 1) for t in trials] + [(t.datetime_complete, -1) for t in trials]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


if __name__ == "__main__":
    main()
