"""One side of a benchmark in its own process, timed from just before its start until its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
SAMPLE_SECONDS = 0.25
"""Between two samples of CPU time; what a process uses after its last sample is not counted."""


@dataclass(frozen=True)
class Finished:
    """A process that succeeded, with wall-clock times."""

    started: float
    """Seconds since the epoch, just before the process started."""
    ended: float
    cpu_seconds: float
    """Of all its processes, including Ray's; depends less on other load than wall time."""

    @property
    def seconds(self) -> float:
        """From just before the start of the process until its end."""
        return self.ended - self.started


def child_environment() -> dict[str, str]:
    """The environment of a process that imports this checkout."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Spinning threads would starve the other processes of a small machine.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def run_for_outcome(module: str, options: Sequence[object]) -> tuple[Finished, Any]:
    """Run `python -m MODULE OUTCOME OPTIONS` in a folder of its own; return also what it wrote to OUTCOME."""
    with scratch() as folder:
        outcome = folder / "outcome.json"
        process = run_python(["-m", module, str(outcome), *map(str, options)], folder)
        return process, json.loads(outcome.read_text())


def run_python(arguments: Sequence[str], folder: Path) -> Finished:
    """Run `python ARGUMENTS` from `folder`; RuntimeError with the end of its output when it fails."""
    environment = child_environment() | {
        # Ray puts its session folders where they are deleted.
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    }
    started = time.time()
    # Ray's processes may keep a pipe open after their driver has ended, so the output goes to a file.
    with (folder / "output.txt").open("w+", errors="replace") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        cpu_seconds = _watch(process)
        ended = time.time()
        if process.returncode:
            output.seek(0)
            command = " ".join(arguments)
            raise RuntimeError(
                f"`python {command}` ended with {process.returncode}:\n{output.read()[-4000:]}"
            )
    return Finished(started, ended, cpu_seconds)


def _watch(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; return the CPU seconds of it and its descendants, as last sampled.

    Sampled, since Ray's daemons never report what their workers used.
    """
    seen: dict[tuple[int, float], float] = {}
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.Error):  # one of them has ended
            for one in [watched, *watched.children(recursive=True)]:
                with suppress(psutil.Error):
                    used = one.cpu_times()
                    seen[one.pid, one.create_time()] = used.user + used.system
        with suppress(subprocess.TimeoutExpired):
            process.wait(SAMPLE_SECONDS)
    return sum(seen.values())


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder with a short name, since Ray's socket paths below it may have 107 characters."""
    with TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
