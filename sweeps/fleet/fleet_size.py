"""How many workers a cluster has room for, and what each reserves."""

from __future__ import annotations

from dataclasses import dataclass

import ray

from sweeps.errors import ConfigError

SPARE_WORKERS = 64
"""With `workers: auto` in a cluster that may grow: workers beyond its present room."""


@dataclass(frozen=True, kw_only=True)
class FleetSize:
    """How many workers there may be, and what each reserves."""

    now: int
    """Workers that the cluster has room for at the start."""
    most: int
    """Including those that may start on nodes that join later."""
    resources: dict[str, float]
    """Ray resources of each worker."""


def fleet_size(wanted: int | str, gpus_per_worker: int, *, may_grow: bool = False) -> FleetSize:
    """The size for `workers: wanted`; auto is a worker for every set of GPUs in the cluster, or one on CPU.

    Without a GPU, several workers share the cores: faster for a small base, but each loads its own base. With
    GPUs, each worker also takes a core. In a cluster that `may_grow`, workers that do not fit yet wait for
    nodes that join it. Raises ConfigError for a fleet that does not fit, or a worker that fits on no node.
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
                    f"gpus_per_worker is {gpus_per_worker}, but a worker runs on one node and no node has "
                    f"more than {max(gpus)} GPUs"
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
    return FleetSize(now=now, most=most, resources=resources)
