"""How many workers a cluster has room for, what each reserves, and what is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.errors import ConfigError
from sweeps.fleet.endpoints import private_file
from sweeps.fleet.fleet_size import SPARE_WORKERS, fleet_size


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`cluster((gpus, cpus), ...)`: nodes of the Ray that is joined; a dead one has None."""

    def set_nodes(*nodes: tuple[int, int] | None) -> None:
        known = [
            {"Alive": False, "Resources": {"GPU": 8.0, "CPU": 64.0}}
            if node is None
            else {
                "Alive": True,
                "Resources": {k: float(v) for k, v in zip(("GPU", "CPU"), node, strict=True) if v},
            }
            for node in nodes
        ]
        monkeypatch.setattr("ray.nodes", lambda: known)

    return set_nodes


def test_auto_is_a_worker_for_every_gpu_of_every_living_node(cluster: Any) -> None:
    cluster((0, 4), (4, 32), (2, 16), None)
    fleet = fleet_size("auto", 1)
    assert (fleet.now, fleet.most) == (6, 6)
    assert fleet.resources == {"GPU": 1, "CPU": 1}


def test_a_worker_of_several_gpus_has_them_on_one_node(cluster: Any) -> None:
    cluster((3, 16), (1, 16))
    assert fleet_size("auto", 2).now == 1
    cluster((1, 16), (1, 16))
    with pytest.raises(ConfigError, match=r"gpus_per_worker is 2, but .* no node has more than 1 GPUs"):
        fleet_size("auto", 2)


def test_a_cluster_that_may_grow_gets_workers_that_wait_for_nodes(cluster: Any) -> None:
    cluster((2, 16))
    assert fleet_size("auto", 1, may_grow=True).most == 2 + SPARE_WORKERS
    fleet = fleet_size(8, 1, may_grow=True)
    assert (fleet.now, fleet.most) == (2, 8)
    with pytest.raises(ConfigError, match="workers is 8, but the cluster has room for 2: 2 GPUs"):
        fleet_size(8, 1)


def test_a_node_has_room_for_as_many_workers_as_it_has_cores_beside_the_gpus(cluster: Any) -> None:
    cluster((4, 0), (4, 3), (0, 16))
    assert fleet_size("auto", 1).now == 3
    assert fleet_size("auto", 2).now == 2
    with pytest.raises(ConfigError, match=r"room for 3: 4 \+ 4 GPUs with 0 \+ 3 CPU cores; .* at most 3"):
        fleet_size(4, 1)
    cluster((4, 0), (0, 16))
    for may_grow in (False, True):
        with pytest.raises(ConfigError, match=r"takes a CPU core beside its GPUs, .* --num-cpus"):
            fleet_size("auto", 1, may_grow=may_grow)


def test_without_a_gpu_workers_share_the_cores(cluster: Any) -> None:
    cluster((0, 8))
    assert fleet_size("auto", 1) == fleet_size(1, 1)
    assert (fleet_size(1, 1).most, fleet_size(1, 1).resources) == (1, {"CPU": 7})
    assert (fleet_size(4, 1).most, fleet_size(4, 1).resources) == (4, {"CPU": 2})
    with pytest.raises(ConfigError, match="workers is 9, but the cluster has no GPU and 8 CPU cores"):
        fleet_size(9, 1)


def test_a_worker_never_asks_for_more_cores_than_a_node_has(cluster: Any) -> None:
    cluster((0, 2), (0, 2), (0, 2))
    assert fleet_size(2, 1).resources == {"CPU": 2}
    cluster((0, 1), (0, 1))
    assert fleet_size(2, 1).resources == {"CPU": 1}


def test_a_machine_of_one_core_has_room_for_one_worker(cluster: Any) -> None:
    cluster((0, 1))
    assert fleet_size("auto", 1).resources == {"CPU": 1}


def test_a_driver_that_is_killed_leaves_its_secret_only_until_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed = "import os, tempfile; from sweeps.fleet.endpoints import private_file\n"
    killed += f"tempfile.tempdir = {str(tmp_path)!r}\n"
    killed += "with private_file('canary'):\n    os.kill(os.getpid(), 9)\n"
    done = subprocess.run([sys.executable, "-c", killed], timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.read_text() == "canary"
    with private_file("mine") as mine:
        assert not left.exists()
        with private_file("beside") as beside:
            assert Path(mine).read_text() == "mine", "one that lives keeps its own"
            assert Path(beside).stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []
