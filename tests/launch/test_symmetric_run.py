"""The Slurm script with the real `ray symmetric-run`, in namespaces: its `ray stop` must see no other Ray."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NAMESPACES = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
RAY = f"""
# One node plays both, so one has to be enough.
exec "{Path(sys.executable).parent}/ray" "${{@/#2/1}}"
"""
DRIVER = """
trap 'touch "$HOME/saved"; exit 130' TERM
env | grep ^RAY_ >"$HOME/environ"
while :; do sleep 0.1; done
"""
INSIDE = """
ip link set lo up
bash "$1" sweep.yaml &
job=$!
while kill -0 "$job" && [ ! -e "$HOME/environ" ]; do sleep 0.2; done
kill -USR1 "$job"
wait "$job"
echo "ended with $?"
"""


def cannot() -> str | None:
    """Why no namespace can be made here; None where they can."""
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"no {program} here"
    tried = subprocess.run([*NAMESPACES, "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    return tried.stderr.strip() or None


@pytest.mark.slow
def test_ray_starts_the_driver_and_hands_its_code_back(
    stand_in: Callable[[str, str], Path], clean_environ: dict[str, str], tmp_path: Path
) -> None:
    if reason := cannot():
        pytest.skip(reason)
    stand_in("srun", 'while [[ ${1:-} == --* ]]; do shift; done\nexec "$@"')
    scontrol = stand_in("scontrol", '[ "$1" != show ] || echo 127.0.0.1')
    ray = stand_in("ray", RAY)
    stand_in("sweeps", DRIVER)
    slurm = {
        "SLURM_JOB_ID": "77",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "x",
        "SLURM_CPUS_PER_TASK": "1",
        # No .venv of this folder's before the stand-ins.
        "SWEEPS_PROJECT": str(tmp_path / "project"),
    }
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "launch").symlink_to(ROOT / "launch")
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="r-", ignore_cleanup_errors=True) as temporary:
        done = subprocess.run(
            [*NAMESPACES, "bash", "-c", INSIDE, "inside", str(ROOT / "launch" / "slurm" / "sweep.sbatch")],
            env={**clean_environ, **slurm, "RAY_TMPDIR": temporary, "RAY_USAGE_STATS_ENABLED": "0"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    output = done.stdout + done.stderr
    assert "ended with 130" in output, output
    assert (tmp_path / "home" / "saved").exists()
    assert "RAY_AUTH_MODE=token" in (tmp_path / "home" / "environ").read_text()
    assert "requeue 77" in scontrol.read_text().splitlines()
    assert ray.read_text().startswith("symmetric-run --address 127.0.0.1:6379 --min-nodes 2 ")
