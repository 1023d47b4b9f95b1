"""One side of a benchmark as a process of its own, timed from before it is made until it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

ROOT = Path(__file__).parents[2]
LOOK_SECONDS = 0.25
"""Between two looks at a side's processes; what one uses after the last look is not counted."""


@dataclass(frozen=True)
class Finished:
    """A process that ended well, by the wall clock."""

    started: float
    """Seconds since the epoch, just before the process was made."""
    ended: float
    cpu_seconds: float
    """Of all its processes, Ray's included: a measure that depends less on who else uses the cores."""

    @property
    def seconds(self) -> float:
        """From before the process was made until it had ended."""
        return self.ended - self.started


def run_python(arguments: Sequence[str], folder: Path) -> Finished:
    """Run `python ARGUMENTS` from `folder`; RuntimeError with the end of its output when it fails."""
    environment = os.environ | {
        # Ray's workers import this checkout too, and leave their sessions where we clean up.
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "RAY_TMPDIR": str(folder),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Threads that spin while they wait starve the other processes of a small machine.
        "OMP_WAIT_POLICY": "PASSIVE",
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
            said = " ".join(arguments)
            raise RuntimeError(f"`python {said}` ended with {process.returncode}:\n{output.read()[-4000:]}")
    return Finished(started, ended, cpu_seconds)


def _watch(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; the CPU seconds of it and of all that it started, as last seen alive.

    Looked at rather than asked for at the end: Ray's daemons never report what their workers used.
    """
    seen: dict[tuple[int, float], float] = {}
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.Error):  # one of them has ended meanwhile
            for one in [watched, *watched.children(recursive=True)]:
                with suppress(psutil.Error):
                    used = one.cpu_times()
                    seen[one.pid, one.create_time()] = used.user + used.system
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
    return sum(seen.values())


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder with a short name: Ray's socket paths below it may have 107 characters."""
    with TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
