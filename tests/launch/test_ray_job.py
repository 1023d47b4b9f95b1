"""submit.sh over a stand-in, and as a real job on a real Ray head with token authentication."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

LAUNCH = Path(__file__).parent.parent.parent / "launch"
SUBMIT = LAUNCH / "ray-job" / "submit.sh"
RUNTIME_ENV = LAUNCH / "ray-job" / "runtime-env.yaml"


def submit(
    environ: dict[str, str], *arguments: object, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SUBMIT, *map(str, arguments)], env=environ, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    file = tmp_path / "my-sweep" / "sweep.yaml"
    file.parent.mkdir()
    file.write_text("name: x\n", encoding="utf-8")
    return file


def test_what_is_submitted(
    stand_in: Callable[[str, str], Path], clean_environ: dict[str, str], sweep_file: Path
) -> None:
    calls = stand_in("ray", "env >&2")
    done = submit(clean_environ, sweep_file, "/data/runs", "--no-wait")
    assert done.returncode == 0, done.stderr
    assert "RAY_AUTH_MODE=token" in done.stderr
    assert calls.read_text(encoding="utf-8") == (
        f"job submit --address http://127.0.0.1:8265 --working-dir {sweep_file.parent} "
        f"--runtime-env {RUNTIME_ENV} --no-wait -- bash -c [ ! -e ~/.sweeps/env ] || . ~/.sweeps/env; "
        "exec sweeps run sweep.yaml --address auto --set output=/data/runs\n"
    )


@pytest.mark.parametrize("runs", ["runs", "/data/my runs", "/data/$(id)", "/data/x;id"])
def test_a_folder_that_a_shell_would_read_otherwise_is_refused(
    stand_in: Callable[[str, str], Path], clean_environ: dict[str, str], sweep_file: Path, runs: str
) -> None:
    calls = stand_in("ray", "")
    assert submit(clean_environ, sweep_file, runs).returncode == 2
    assert calls.read_text() == ""


def test_without_a_token_or_a_file_nothing_is_submitted(
    stand_in: Callable[[str, str], Path], clean_environ: dict[str, str], sweep_file: Path
) -> None:
    calls = stand_in("ray", "")
    assert submit(clean_environ).returncode == 2
    assert "no such file" in submit(clean_environ, sweep_file.parent / "other.yaml", "/r").stderr
    (Path(clean_environ["HOME"]) / ".ray" / "auth_token").unlink()
    refused = submit(clean_environ, sweep_file, "/r")
    assert refused.returncode == 2
    assert "no Ray token" in refused.stderr
    assert calls.read_text() == ""


def test_ray_leaves_out_what_is_excluded(tmp_path: Path) -> None:
    """Ray's own packing, over a folder with everything in it that must stay at home."""
    from ray._private.runtime_env.packaging import _get_excludes

    stays = [
        "runs/x/study.db",
        ".env",
        "prod.env",
        "auth_token",
        "base/model.safetensors",
        ".venv/x",
        ".git/x",
    ]
    goes = ["sweep.yaml", "train.jsonl"]
    for name in stays + goes:
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    environment = yaml.safe_load(RUNTIME_ENV.read_text(encoding="utf-8"))
    assert set(environment) == {"excludes"}
    excluded = _get_excludes(tmp_path / "folder", environment["excludes"])
    assert all(excluded(tmp_path / "folder" / name) for name in stays)
    assert not any(excluded(tmp_path / "folder" / name) for name in goes)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture(scope="module")
def short_folder() -> Iterator[Path]:
    """Ray's sockets need a path shorter than pytest's own."""
    with tempfile.TemporaryDirectory(prefix="r-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def head(short_folder: Path) -> Iterator[dict[str, str]]:
    """A Ray head of its own with a token made as the pages say; the environment in which to submit to it."""
    folder = short_folder
    home = folder / "home"
    home.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "SWEEPS_", "SLURM_"))
    }
    dashboard = free_port()
    environ = {
        **kept,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(LAUNCH.parent),
        "OMP_WAIT_POLICY": "PASSIVE",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
    }
    made = "(umask 077; ray get-auth-token --generate >/dev/null)"
    subprocess.run(made, shell=True, env=environ, check=True, capture_output=True, timeout=60)
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o077 == 0
    ports = {
        "port": free_port(),
        "dashboard-port": dashboard,
        "ray-client-server-port": free_port(),
        "dashboard-agent-listen-port": free_port(),
    }
    with open(folder / "head.log", "w", encoding="utf-8") as log:
        ray = subprocess.Popen(
            [
                *("ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1"),
                *("--dashboard-host=127.0.0.1", "--num-cpus=2", "--object-store-memory=100000000"),
                f"--temp-dir={folder / 'ray'}",
                *(f"--{name}={port}" for name, port in ports.items()),
            ],
            env={**environ, "RAY_AUTH_MODE": "token"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    processes = [psutil.Process(ray.pid)]
    try:
        deadline = time.monotonic() + 60
        while not answers(environ["RAY_API_SERVER_ADDRESS"]):
            if ray.poll() is not None or time.monotonic() > deadline:
                pytest.fail((folder / "head.log").read_text(encoding="utf-8"))
            time.sleep(0.2)
        processes += processes[0].children(recursive=True)
        yield environ
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes += processes[0].children(recursive=True)
        ray.terminate()
        for process in psutil.wait_procs(processes, timeout=15)[1]:
            process.kill()
        ray.wait(timeout=15)


def answers(address: str) -> bool:
    """Whether the dashboard is up: it refuses us, who show no token."""
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=2).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401
    except OSError:
        return False
    pytest.fail("the dashboard answers without a token")


@pytest.mark.slow
def test_a_wrong_token_is_turned_away(head: dict[str, str], sweep_file: Path, tmp_path: Path) -> None:
    refused = submit({**head, "RAY_AUTH_TOKEN": "0" * 32}, sweep_file, tmp_path / "runs")
    assert refused.returncode == 1
    assert "Invalid authentication token" in refused.stdout + refused.stderr


@pytest.mark.slow
def test_a_stopped_job_has_time_for_its_checkpoints(head: dict[str, str], tmp_path: Path) -> None:
    """Ray kills after three seconds by default; the head's RAY_JOB_STOP_WAIT_TIME_S gives more."""
    (tmp_path / "job.sh").write_text(
        f"trap 'sleep 4; touch {tmp_path}/saved; exit 130' TERM\n"
        f"touch {tmp_path}/started\nwhile :; do sleep 0.1; done\n",
        encoding="utf-8",
    )
    job = ["--address", head["RAY_API_SERVER_ADDRESS"]]
    environ = {**head, "RAY_AUTH_MODE": "token"}
    start = [
        "ray",
        "job",
        "submit",
        *job,
        "--no-wait",
        "--submission-id=x",
        "--",
        "bash",
        tmp_path / "job.sh",
    ]
    subprocess.run(start, env=environ, check=True, capture_output=True, timeout=60)
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    stop = ["ray", "job", "stop", *job, "x"]
    subprocess.run(stop, env=environ, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "saved").exists()


@pytest.mark.slow
def test_a_sweep_runs_as_a_job_and_the_next_job_goes_on_with_it(
    head: dict[str, str], tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    """Data travel in the job's working folder, secrets do not; results stay outside of it."""
    folder, runs = tmp_path / "my-sweep", tmp_path / "runs"
    folder.mkdir()
    records = "".join(f'{{"prompt": "a{i}:", "completion": "{i * 7}"}}\n' for i in range(40))
    (folder / "data.jsonl").write_text(records, encoding="utf-8")
    (folder / "prod.env").write_text("export SWEEPS_STORAGE=canary\n", encoding="utf-8")
    file = folder / "sweep.yaml"
    sweep = (
        f"name: tiny\nmodel: {tiny_model('llama')}\n"
        "data: {train: data.jsonl, eval_fraction: 0.2, max_length: 16}\n"
        "training: {max_steps: 4, per_device_train_batch_size: 2, report_at: [0.5, 1.0]}\n"
        "lora: {r: 2, alpha: 4}\nsearch: {sampler: random}\nseats: 2\ntrials: 2\n"
        "storage: env:SWEEPS_STORAGE\n"
    )
    file.write_text(sweep, encoding="utf-8")
    secrets = Path(head["HOME"]) / ".sweeps" / "env"
    secrets.parent.mkdir()
    secrets.write_text(f"export SWEEPS_STORAGE=sqlite:///{tmp_path}/study-canary.db\n", encoding="utf-8")

    first = submit(head, file, runs, timeout=120)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Done: 2 of 2 trials" in first.stdout
    assert (runs / "tiny" / "best" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "study-canary.db").is_file()

    # Another content is another working folder on the head.
    file.write_text(f"# seen again\n{sweep}", encoding="utf-8")
    second = submit(head, file, runs, timeout=120)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "Nothing was left to run." in second.stdout

    carried = [path.name for path in Path(head["HOME"]).parent.rglob("_ray_pkg_*/*")]
    assert carried.count("data.jsonl") == 2
    assert "prod.env" not in carried
    list_jobs = ["ray", "job", "list"]
    jobs = subprocess.run(
        list_jobs, env={**head, "RAY_AUTH_MODE": "token"}, capture_output=True, text=True, timeout=60
    )
    assert "sweeps run sweep.yaml" in jobs.stdout
    assert "canary" not in jobs.stdout + first.stdout + first.stderr
