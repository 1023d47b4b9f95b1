"""A worker on a machine without access to the driver's run folder, data, model and database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from results.adapter_files import check_adapter_loads
from sweeps.fleet.ray_start import ENVIRONMENT
from sweeps.sweep import Sweep
from tests.on_ray import ON_RAY

pytestmark = ON_RAY
SWEEP = """\
name: far
model: {model}
data: {{train: {data}, eval_fraction: 0.2, max_length: 32}}
space: {{learning_rate: {{low: 1.0e-4, high: 3.0e-2, log: true}}}}
training: {{max_steps: 6, per_device_train_batch_size: 4, report_at: [0.5, 1.0]}}
lora: {{r: 4, alpha: 8}}
search: {{seed: 3, sampler: random, pruner: none}}
reliability: {{checkpoint_seconds: 0}}
trials: 4
seats: 2
output: {output}
"""


def can_hide() -> bool:
    """Whether this process may have a mount namespace, and hide folders in it."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True)
    return tried.returncode == 0


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """The driver's own disk; the other machine sees an empty folder there."""
    folder = tmp_path / "disk-of-the-driver"
    folder.mkdir()
    return folder


@pytest.fixture
def other_machine(hidden: Path, tmp_path: Path) -> Iterator[None]:
    """A head with no core for workers, and a node with cores and its own disk."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.shutdown()
    context = ray.init(
        "local", num_cpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    token = Path.home() / ".ray" / "auth_token"
    environment = os.environ | {"HOME": str(tmp_path / "home-of-the-other"), "RAY_AUTH_MODE": "token"}
    if token.is_file():
        environment["RAY_AUTH_TOKEN_PATH"] = str(token)
    Path(environment["HOME"]).mkdir()
    command = (
        f"mount -t tmpfs none {hidden} && exec {Path(sys.executable).parent}/ray start "
        f"--address={context.address_info['gcs_address']} --num-cpus=2 --block"
    )
    log = (tmp_path / "node.log").open("w")
    node = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", command], env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 90
        while sum(n["Alive"] for n in ray.nodes()) < 2:
            assert node.poll() is None, (tmp_path / "node.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield
    finally:
        node.terminate()
        node.wait(60)
        log.close()
        ray.shutdown()


@pytest.mark.skipif(not can_hide(), reason="needs root and mount namespaces")
def test_a_sweep_whose_worker_has_no_file_of_the_drivers(
    hidden: Path, tiny_model: Callable[..., Path], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model("llama"), hidden / "model")
    words = ["".join(chr(97 + (i * k + k) % 26) for k in range(3 + i % 5)) for i in range(1, 81)]
    data = hidden / "data.jsonl"
    records = [{"prompt": f"{word}{i}:", "completion": word[::-1]} for i, word in enumerate(words)]
    data.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    file = hidden / "sweep.yaml"
    file.write_text(SWEEP.format(model=model, data=data, output=hidden / "runs"), encoding="utf-8")
    request.getfixturevalue("other_machine")
    sweep = Sweep.load(file)
    result = sweep.run()
    assert result.added == 4
    trials = [t for t in sweep.study().get_trials() if t.state.name == "COMPLETE"]
    assert len(trials) == 4
    for trial in trials:
        folder = sweep.run_folder / trial.user_attrs["folder"]
        assert check_adapter_loads(folder / "adapter") > 0
        assert len((folder / "reports.jsonl").read_text().splitlines()) == 2
        assert len(json.loads((folder / "record_losses.json").read_text())["nats"]) > 1
        config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(model), "the name of the copy is nobody else's"
        assert not (folder / "checkpoint").exists()
    assert (sweep.run_folder / "best" / "adapter_model.safetensors").is_file()
    copies = list(
        (tmp_path / "home-of-the-other" / ".cache" / "qlora-sweeps" / "models").glob("*/config.json")
    )
    assert len(copies) == 1
