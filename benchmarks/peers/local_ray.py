"""Ray on this machine alone, as both peers on Ray Tune start it."""

from __future__ import annotations

import os

import ray


def start_local_ray() -> None:
    """Start Ray with every core that this process may use."""
    ray.init(
        "local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
