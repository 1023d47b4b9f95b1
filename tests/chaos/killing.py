"""Finding processes of one's own sweep, and ending them."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil

TARGETS = {
    "driver": 1,
    "term": 1,
    "keeper": 3,
    "file_server": 1,
    "worker": 4,
    "raylet": 1,
    "storage": 1,
    "rival": 1,
}
"""What is struck, and how often: a driver takes long to come back."""
# term: a SIGTERM to the driver, as a cluster's scheduler sends it, and SIGKILL after a time of grace;
# storage: the database server is gone for a while; rival: somebody starts the same sweep a second time.
GRACE_SECONDS = 20.0


def descendants(pid: int) -> list[psutil.Process]:
    """A process and everything that it started."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def ray_processes(pids: Iterator[int], title: str) -> list[psutil.Process]:
    """Ray's processes below `pids` whose title, which Ray sets by what they do, holds `title`."""
    found = []
    for pid in pids:
        for process in descendants(pid):
            try:
                if any(title in word for word in process.cmdline()[:1]):
                    found.append(process)
            except psutil.Error:
                continue
    return found


_TITLES = {"keeper": "ray::KeeperActor", "file_server": "ray::FileServer", "worker": "ray::ResourceTrainable"}


class Nodes:
    """A Ray cluster on this machine: a head for the driver, and two nodes for workers, which may die."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self.address = str(self.cluster.address)
        self.workers = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def strike(self, generator: random.Random) -> bool:
        """SIGKILL a node's raylet; another node takes its place."""
        node = self.workers.pop(generator.randrange(len(self.workers)))
        kill(psutil.Process(_raylet_pid(node)))
        self.cluster.remove_node(node, allow_graceful=False)
        self.workers.append(self.cluster.add_node(num_cpus=1, wait=False))
        return True

    def pids(self) -> list[int]:
        """Of all raylets: the processes of a sweep are their children."""
        return [_raylet_pid(node) for node in (self.cluster.head_node, *self.workers)]

    def close(self) -> None:
        """End all nodes."""
        self.cluster.shutdown()


def _raylet_pid(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


@dataclass
class Killer:
    """Ends processes of a sweep at random moments."""

    generator: random.Random
    roots: Callable[[], list[int]]
    """The driver, and the daemons of a cluster that was started apart from it."""
    nodes: Nodes | None = None
    """Of such a cluster."""

    def strike(self, target: str, driver: psutil.Popen) -> bool:
        """End one process of a kind; False when there was none."""
        if target == "raylet":
            return self.nodes is not None and self.nodes.strike(self.generator)
        if target == "driver":
            return kill_tree(driver)
        if target == "term":
            if driver.poll() is not None:
                return False
            driver.send_signal(signal.SIGTERM)
            try:
                driver.wait(GRACE_SECONDS)
            except psutil.TimeoutExpired:
                kill_tree(driver)
            return True
        processes = ray_processes(iter(self.roots()), _TITLES[target])
        if not processes:
            return False
        return kill(self.generator.choice(processes))


def title_of(process: psutil.Process) -> str:
    """What Ray calls a process."""
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


def kill(process: psutil.Process) -> bool:
    """SIGKILL; False when it was gone already."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def kill_tree(driver: psutil.Popen) -> bool:
    """SIGKILL to a driver alone; what Ray started below it is left to find out by itself."""
    if driver.poll() is not None:
        return False
    driver.kill()
    driver.wait()
    return True


def sweep_up(processes: list[psutil.Process], seconds: float = 15.0) -> list[psutil.Process]:
    """Wait for processes that should end by themselves; kill those that did not, and return the sweep's own.

    Ray's agents take their time, and it is not ours to say how much.
    """
    deadline = time.monotonic() + seconds
    left = [p for p in processes if _runs(p)]
    while left and time.monotonic() < deadline:
        time.sleep(0.2)
        left = [p for p in left if _runs(p)]
    for process in left:
        kill(process)
    return [p for p in left if "Agent" not in title_of(p) and title_of(p).startswith("ray::")]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
