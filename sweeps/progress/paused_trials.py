"""Where trials go on that nothing trains now: at the steps that their checkpoints hold."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

from files_and_text.trial_paths import STATE_FILE, checkpoint_folders, trial_folder
from sweeps.study.status import RunningTrial, Status


def add_paused(status: Status, run_folder: Path, shown_folder: str) -> Status:
    """The status with the checkpoints of paused trials, and the command that continues the sweep.

    `shown_folder` is the run folder as on the command line.
    """
    status.running = [
        _at_checkpoint(trial, run_folder) if trial.state == "paused" else trial for trial in status.running
    ]
    if status.has_work and not status.is_live:
        status.next_command = f"sweeps run {shlex.quote(shown_folder)}"
    return status


def checkpoint_step(trial: Path) -> int | None:
    """Steps that the newest whole checkpoint of a trial's folder holds; None if there is none."""
    for folder in checkpoint_folders(trial):
        try:
            return int(json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["step"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _at_checkpoint(trial: RunningTrial, run_folder: Path) -> RunningTrial:
    step = checkpoint_step(run_folder / trial_folder(trial.number))
    if step is None:
        # Kept in a store, which is not asked for this, or not written yet.
        return trial
    percent = 100 * step // trial.max_steps if trial.max_steps else trial.percent
    return replace(trial, step=step, percent=percent, checkpoint_step=step)
