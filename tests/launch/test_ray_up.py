"""The cluster file against Ray's own schema and defaults, and its commands against bash."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "launch" / "ray-up" / "cluster.yaml"
SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return loaded


def commands(cluster: dict[str, Any]) -> list[str]:
    return [line for key, lines in cluster.items() if key.endswith("_commands") for line in lines]


def test_ray_takes_it(cluster: dict[str, Any]) -> None:
    jsonschema.validate(cluster, SCHEMA)
    filled = prepare_config(copy.deepcopy(cluster))
    validate_config(filled)
    # None of Ray's defaults came in beside ours: its own head command opens the dashboard to every interface.
    assert filled["head_start_ray_commands"] == cluster["head_start_ray_commands"]
    assert filled["setup_commands"] == cluster["setup_commands"]


def test_the_schema_is_strict_enough_to_notice_a_slip(cluster: dict[str, Any]) -> None:
    cluster["idle_timeout_minute"] = cluster.pop("idle_timeout_minutes")
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        jsonschema.validate(cluster, SCHEMA)


def test_all_gpus_are_there_from_the_start(cluster: dict[str, Any]) -> None:
    gpu = cluster["available_node_types"]["gpu"]
    assert gpu["min_workers"] == gpu["max_workers"] == cluster["max_workers"]
    assert "InstanceMarketOptions" not in cluster["available_node_types"]["head"]["node_config"]


def test_every_node_has_the_token_and_ray_starts_with_it_alone(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in line for line in cluster["setup_commands"])
    starts = [line for line in commands(cluster) if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "0.0.0.0" not in FILE.read_text(encoding="utf-8")


def test_its_commands_are_shell_and_can_run_twice(cluster: dict[str, Any]) -> None:
    for line in commands(cluster):
        parsed = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
        assert parsed.returncode == 0, f"{line}: {parsed.stderr}"
        if ">>" in line:
            assert line.startswith("grep -q"), f"{line}: adds its line again on every `ray up`"
