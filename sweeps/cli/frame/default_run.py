"""The run that a command means when none is named, and completion of run folders in the shell."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sweeps.errors import RunFolderError

RUNS = Path("runs")
SWEEP_FILE = Path("sweep.yaml")
_MOST = 20
"""Run folders that an error lists."""
_SIGNS_OF_LIFE = ("progress.json", "study.db-wal", "study.db", "sweep.yaml")


def run_folders(folder: Path) -> list[Path]:
    """The run folders directly below a folder, newest first; empty where there is no such folder."""
    try:
        found = [item for item in folder.iterdir() if (item / SWEEP_FILE.name).is_file()]
    except OSError:
        return []
    return sorted(found, key=lambda run: (-last_write(run), run.name))


def last_write(run: Path) -> float:
    """When something was last written about a run, in seconds since the epoch."""
    times = [_modified(run / name) for name in _SIGNS_OF_LIFE]
    return max(times, default=0.0)


def given_or_only_run(path: Path | None) -> Path | Callable[[str], Path]:
    """The path that was given, else how to find it once all arguments are read."""
    return only_run if path is None else path


def given_or_sweep_file(path: Path | None) -> Path | Callable[[str], Path]:
    """The path that was given, else how to find it once all arguments are read."""
    return sweep_file_here if path is None else path


def only_run(command: str) -> Path:
    """The only run folder in `runs/`; RunFolderError where there is none or more than one."""
    runs = run_folders(RUNS)
    if not runs:
        raise RunFolderError(
            f"there is no run in {RUNS}/ here; name one: {command} RUN, or start one: sweeps run"
        )
    if len(runs) > 1:
        lines = [f"{RUNS}/ holds {len(runs)} runs, newest first; name one:"]
        lines += [f"  {command} {shlex.quote(str(run))}" for run in runs[:_MOST]]
        raise RunFolderError("\n".join(lines))
    print(f"run: {runs[0]} (the only one in {RUNS}/)", file=sys.stderr)
    return runs[0]


def sweep_file_here(command: str) -> Path:
    """`sweep.yaml` in the working directory; RunFolderError where there is none."""
    if SWEEP_FILE.is_file():
        return SWEEP_FILE
    hint = "`sweeps init --model MODEL --train DATA` writes one"
    if runs := run_folders(RUNS):
        hint += f"; `{command} {shlex.quote(str(runs[0]))}` takes the run made last"
    raise RunFolderError(f"there is no {SWEEP_FILE} here; {hint}")


def complete_run(incomplete: str) -> list[str]:
    """Run folders in `runs/`, sweep files and folders here that begin with what was typed, for the shell."""
    return [path for path in _completions(incomplete) if path.startswith(incomplete)]


def complete_run_folder(incomplete: str) -> list[str]:
    """The folders of `complete_run` alone."""
    return [path for path in complete_run(incomplete) if not path.endswith(".yaml")]


def _completions(incomplete: str) -> Iterator[str]:
    folder = Path(os.path.dirname(incomplete) or ".")
    if folder == Path("."):
        yield from (str(run) for run in run_folders(RUNS))
    yield from (str(run) for run in run_folders(folder))
    yield from (str(file) for file in sorted(folder.glob("*.yaml")))


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def no_default() -> Any:
    """Nothing yet: the callback finds what is meant."""
    return None
