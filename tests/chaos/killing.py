"""Finds the processes of a sweep and kills them."""

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
"""Targets and their relative frequencies; a driver is rare because its restart takes long."""
# term: SIGTERM to the driver, as from a scheduler, and SIGKILL after a grace period; storage: the database
# server stops for a while; rival: the same sweep is started a second time.
GRACE_SECONDS = 20.0


def descendants(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def ray_processes(pids: Iterator[int], title: str) -> list[psutil.Process]:
    """Ray processes below `pids` whose process title contains `title`."""
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
    """Kills processes of a sweep."""

    generator: random.Random
    roots: Callable[[], list[int]]
    """The driver, or the raylets of a separate cluster."""
    nodes: Nodes | None = None
    """The nodes of such a cluster."""

    def strike(self, target: str, driver: psutil.Popen) -> bool:
        """Kill one process of this kind; False if there was none."""
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
    """SIGKILL to the driver alone; Ray's processes below it must notice by themselves."""
    if driver.poll() is not None:
        return False
    driver.kill()
    driver.wait()
    return True


def sweep_up(processes: list[psutil.Process], seconds: float = 15.0) -> list[psutil.Process]:
    """Wait for processes to end by themselves; kill the others, and return those that the sweep started.

    Ray's own agents are not returned: they may take longer.
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
