"""One side of a benchmark as a process of its own, timed from before it is made until it has ended."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
REAP_SECONDS = 20.0
"""How long to wait for the processes that a side has left behind, after its own end."""
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(frozen=True)
class Finished:
    """A process that ended well, by the wall clock."""

    started: float
    """Seconds since the epoch, just before the process was made."""
    ended: float
    cpu_seconds: float
    """Of all its processes, Ray's included: what it cost, whoever else used the cores meanwhile."""

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
    _adopt_orphans()
    cpu_before = _children_cpu_seconds()
    started = time.time()
    # Ray's processes may keep a pipe open after their driver has ended, so the output goes to a file.
    with (folder / "output.txt").open("w+", errors="replace") as output:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        ended = time.time()
        _reap_orphans()
        if done.returncode:
            output.seek(0)
            said = " ".join(arguments)
            raise RuntimeError(f"`python {said}` ended with {done.returncode}:\n{output.read()[-4000:]}")
    return Finished(started, ended, _children_cpu_seconds() - cpu_before)


def _adopt_orphans() -> None:
    """Become the parent of what Ray leaves behind: only a parent is told the CPU time of a process."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap_orphans() -> None:
    deadline = time.monotonic() + REAP_SECONDS
    with suppress(ChildProcessError):  # there are none left
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder with a short name: Ray's socket paths below it may have 107 characters."""
    with TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
