"""The Slurm script over stand-ins: what starts, who gets which signal, what is requeued."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parent.parent.parent / "launch"
SCRIPT = LAUNCH / "slurm" / "sweep.sbatch"
SRUN = """
while [[ ${1:-} == --* ]]; do shift; done
env >"$(dirname "$0")/../srun.environ"
"$@" || code=$?
exit "${SRUN_CODE:-${code:-0}}"
"""
"""Drops its options, runs the command; SRUN_CODE is what a step ends with whose other tasks were killed."""
SCONTROL = """
if [ "$1 $2" = "show hostnames" ]; then printf '%s\\n' node1 node2; fi
"""
RAY = """
sleep "${RAY_SECONDS:-0}"
[ -z "${RAY_FAILS:-}" ] || exit 0
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""
SWEEPS = """
here="$(dirname "$0")/.."
env >"$here/sweeps.environ"
trap 'echo TERM >>"$here/signals"; [ "${DRIVER:-}" = deaf ] || exit 130' TERM
touch "$here/started"
[ "${DRIVER:-}" != importing ] || trap - TERM
case "${DRIVER:-wait}" in
    wait|deaf|importing) while :; do sleep 0.05; done ;;
    *) exit "$DRIVER" ;;
esac
"""


@dataclass(kw_only=True)
class Job:
    """One job of the script, as Slurm would start it."""

    folder: Path
    environ: dict[str, str]
    calls: dict[str, Path]
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self, *, nodes: int = 2, **environ: str) -> Job:
        slurm = {
            "SLURM_JOB_ID": "77",
            "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_JOB_NUM_NODES": str(nodes),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_CPUS_PER_TASK": "32",
            "SLURM_GPUS_ON_NODE": "8",
            "TMPDIR": str(self.folder),
        }
        (self.folder / "started").unlink(missing_ok=True)
        # A project with driver.sh and no .venv, so that the stand-ins are found.
        (self.folder / "launch").mkdir(exist_ok=True)
        link = self.folder / "launch" / "driver.sh"
        if not link.exists():
            link.symlink_to(LAUNCH / "driver.sh")
        with open(self.folder / "log", "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["bash", str(SCRIPT), "sweep.yaml"],
                env={**self.environ, **slurm, **environ},
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def signal(self, number: int) -> None:
        """To the batch shell alone, as `--signal=B:` and `scancel --batch` send it."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 10
        while not (self.folder / name).exists():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no {name}: {self.end()}")
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Exit code and output; nothing of the job is left when this returns."""
        assert self.process is not None
        try:
            code = self.process.wait(timeout=15)
            return code, (self.folder / "log").read_text(encoding="utf-8")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def said(self, program: str) -> list[str]:
        return self.calls[program].read_text(encoding="utf-8").splitlines()


@pytest.fixture
def job(tmp_path: Path, stand_in: Callable[[str, str], Path], clean_environ: dict[str, str]) -> Iterator[Job]:
    bodies = {"srun": SRUN, "scontrol": SCONTROL, "ray": RAY, "sweeps": SWEEPS}
    made = Job(
        folder=tmp_path,
        environ=clean_environ,
        calls={name: stand_in(name, body) for name, body in bodies.items()},
    )
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def requeued(job: Job) -> bool:
    return "requeue 77" in job.said("scontrol")


def test_the_warning_before_the_time_limit_checkpoints_and_requeues_and_the_same_command_goes_on(
    job: Job,
) -> None:
    job.start().wait_for("started")
    job.signal(signal.SIGUSR1)
    code, output = job.end()
    assert code == 130, output
    assert (job.folder / "signals").read_text() == "TERM\n"
    assert requeued(job)

    code, output = job.start(DRIVER="0", SLURM_RESTART_COUNT="1").end()
    assert code == 0, output
    assert job.said("sweeps") == ["run sweep.yaml --address auto"] * 2
    first, second = job.said("ray")
    assert first == second
    assert first.startswith("symmetric-run --address node1:6379 --min-nodes 2 --num-cpus=32 --num-gpus=8 -- ")
    step = job.said("srun")[0]
    assert step.startswith(
        "--nodes=2 --ntasks=2 --cpus-per-task=32 --no-kill --wait=0 --kill-on-bad-exit=1 ray"
    )
    assert job.said("scontrol").count("requeue 77") == 1
    assert not list(job.folder.glob("sweep-77-*")), "the driver's folder is left"


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_driver_that_ends_by_itself_is_not_requeued(job: Job, code: int) -> None:
    ended, output = job.start(DRIVER=str(code)).end()
    assert ended == code, output
    assert not requeued(job)


def test_a_clean_end_on_request_stays_ended(job: Job) -> None:
    job.start().wait_for("started")
    job.signal(signal.SIGUSR2)
    assert job.end()[0] == 130
    assert (job.folder / "signals").read_text() == "TERM\n"
    assert not requeued(job)


def test_a_second_warning_does_not_cut_the_checkpoints_short(job: Job) -> None:
    job.start(DRIVER="deaf", SWEEPS_GRACE_SECONDS="2").wait_for("started")
    for _ in range(3):
        job.signal(signal.SIGUSR1)
        time.sleep(0.2)
    assert job.end()[0] == 130
    assert (job.folder / "signals").read_text() == "TERM\n"


def test_a_driver_that_does_not_end_in_time_is_left_behind_and_requeued(job: Job) -> None:
    job.start(DRIVER="deaf", SWEEPS_GRACE_SECONDS="1").wait_for("started")
    job.signal(signal.SIGUSR1)
    code, output = job.end()
    assert code == 130, output
    assert requeued(job)


def test_a_warning_while_ray_starts_requeues_too(job: Job) -> None:
    job.start(RAY_SECONDS="30", SWEEPS_GRACE_SECONDS="2").wait_for("srun.environ")
    job.signal(signal.SIGUSR1)
    assert job.end()[0] == 130
    assert requeued(job)
    assert not (job.folder / "started").exists()


def test_a_driver_that_was_still_importing_is_requeued(job: Job) -> None:
    job.start(DRIVER="importing").wait_for("started")
    time.sleep(0.3)
    job.signal(signal.SIGUSR1)
    assert job.end()[0] == 143
    assert requeued(job)


def test_a_ray_that_does_not_start_is_no_success(job: Job) -> None:
    assert job.start(RAY_FAILS="1").end()[0] == 1
    assert not requeued(job)


def test_the_drivers_own_code_counts_not_that_of_tasks_killed_after_it(job: Job) -> None:
    job.start(SRUN_CODE="143").wait_for("started")
    job.signal(signal.SIGUSR1)
    assert job.end()[0] == 130
    assert requeued(job)
    assert job.start(DRIVER="1", SRUN_CODE="137").end()[0] == 1


def test_one_node_needs_no_ray_of_ours(job: Job) -> None:
    code, output = job.start(nodes=1, DRIVER="0").end()
    assert code == 0, output
    assert job.said("ray") == []
    assert job.said("sweeps") == ["run sweep.yaml"]
    job.start(nodes=1).wait_for("started")
    job.signal(signal.SIGUSR1)
    assert job.end()[0] == 130
    assert requeued(job)


@pytest.mark.parametrize("mode", [None, 0o644])
def test_without_a_private_token_nothing_starts(job: Job, mode: int | None) -> None:
    token = Path(job.environ["HOME"]) / ".ray" / "auth_token"
    if mode is None:
        token.unlink()
    else:
        token.chmod(mode)
    code, output = job.start(DRIVER="0").end()
    assert code == 2
    assert "get-auth-token" in output
    assert job.said("srun") == []


def test_the_storage_reaches_the_driver_alone(job: Job) -> None:
    secrets = Path(job.environ["HOME"]) / ".sweeps" / "env"
    secrets.parent.mkdir()
    secrets.write_text("SWEEPS_STORAGE=postgresql://u:canary@h/d\n", encoding="utf-8")
    secrets.chmod(0o640)
    code, output = job.start(DRIVER="0").end()
    assert code == 2
    assert "chmod 600" in output
    assert job.said("sweeps") == []

    secrets.chmod(0o600)
    code, output = job.start(DRIVER="0").end()
    assert code == 0, output
    assert "SWEEPS_STORAGE=postgresql://u:canary@h/d" in (job.folder / "sweeps.environ").read_text()
    srun = (job.folder / "srun.environ").read_text()
    assert "RAY_AUTH_MODE=token" in srun
    assert "canary" not in srun + output + "".join(path.read_text() for path in job.calls.values())


def test_the_directives_fit_what_the_script_does() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    directives = [
        line.split("#")[1].removeprefix("SBATCH ").split()[0]
        for line in text.splitlines()
        if line.startswith("#SBATCH")
    ]
    assert {"--requeue", "--no-kill", "--exclusive", "--ntasks-per-node=1", "--open-mode=append"} <= set(
        directives
    )
    (warning,) = [d for d in directives if d.startswith("--signal=")]
    kind, seconds = warning.removeprefix("--signal=").split("@")
    assert kind == "B:USR1"
    assert int(seconds) > 150
    assert "SWEEPS_GRACE_SECONDS:-150" in text
    # sbatch stops reading directives at the first command.
    last = max(i for i, line in enumerate(text.splitlines()) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in text.splitlines()[:last])
