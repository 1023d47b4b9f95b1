"""What a running trial leaves on disk: checkpoints on its way, the adapter at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from safetensors import SafetensorError

from files_and_text.trial_paths import ADAPTER, CHECKPOINT
from lora_runner.adapters import save_adapter
from lora_runner.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from lora_runner.errors import CheckpointError, is_disk_trouble
from lora_runner.pack.pack import Pack
from lora_runner.pack.seat import StepStats
from lora_runner.protocol import Assignment
from lora_runner.running_trial import RunningTrial
from lora_runner.stability import StabilityWatch

DISK_RETRY_SECONDS = 5.0


class TrialFiles:
    """Writes and reads trials' folders, and collects what was written and notes for the user."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._written: list[tuple[Assignment, str]] = []
        self._notes: list[str] = []
        self.checkpoint_seconds: float | None = None
        """How long the last checkpoint took to write; None before the first."""

    def restore(self, trial: RunningTrial) -> None:
        """Resume a trial from its checkpoint, if its folder holds one that can be used."""
        folder = trial.folder / CHECKPOINT
        if not has_checkpoint(folder):
            return
        try:
            (watch, wall_seconds, stats), problems = load_checkpoint(folder, trial.seat, _read_progress)
        except CheckpointError as error:  # the seat is unchanged
            self.note(trial.assignment, f"starts over, no checkpoint can be used ({error})")
            return
        for problem in problems:
            self.note(trial.assignment, f"continues from the checkpoint before the damaged one ({problem})")
        trial.watch, trial.wall_seconds, trial.last_stats = watch, wall_seconds, stats
        trial.checkpoint_step = trial.seat.step

    def checkpoint(self, trial: RunningTrial) -> None:
        """Checkpoint a trial between two windows; when the disk refuses it, the previous one remains."""
        started = time.monotonic()
        trial.read()
        progress = {
            "watch": trial.watch.to_dict(),
            "wall_seconds": trial.wall_seconds,
            "last_stats": asdict(trial.last_stats) if trial.last_stats else None,
        }
        try:
            save_checkpoint(trial.folder / CHECKPOINT, trial.seat, progress)
        except (OSError, SafetensorError) as error:
            if not is_disk_trouble(error):
                raise
            self.note(trial.assignment, f"no checkpoint was written ({error})")
        else:
            self._written.append((trial.assignment, CHECKPOINT))
            trial.checkpoint_step = trial.seat.step
        trial.checkpointed_at = time.monotonic()
        self.checkpoint_seconds = trial.checkpointed_at - started
        trial.wants_checkpoint = False

    def adapter(self, trial: RunningTrial, pack: Pack, heartbeat: Callable[[], None]) -> None:
        """Write a finished trial's adapter; wait while the disk is full or unreachable."""
        deadline = time.monotonic() + self._patience_seconds
        while True:
            try:
                save_adapter(trial.folder / ADAPTER, pack, trial.seat)
            except (OSError, SafetensorError) as error:
                if not is_disk_trouble(error) or time.monotonic() > deadline:
                    raise
                self.note(trial.assignment, f"waits for the disk ({error})")
                heartbeat()
                time.sleep(min(DISK_RETRY_SECONDS, self._patience_seconds))
            else:
                self._written.append((trial.assignment, ADAPTER))
                return

    def note(self, assignment: Assignment, text: str) -> None:
        """Add a note on a trial."""
        self._notes.append(f"trial {assignment.number}: {text}")

    def note_of_base(self, text: str) -> None:
        """Add a note on the untouched base."""
        self._notes.append(f"untouched base: {text}")

    def take_written(self) -> list[tuple[Assignment, str]]:
        """Folders (checkpoint, adapter) written since the last call."""
        written, self._written = self._written, []
        return written

    def note_of_pack(self, text: str) -> None:
        """Add a note on what all trials share."""
        self._notes.append(text)

    def take_notes(self) -> list[str]:
        """Notes since the last call."""
        notes, self._notes = self._notes, []
        return notes


def _read_progress(progress: dict[str, Any]) -> tuple[StabilityWatch, float, StepStats | None]:
    stats = progress["last_stats"]
    watch = StabilityWatch.from_dict(progress["watch"])
    return watch, float(progress["wall_seconds"]), StepStats(**stats) if stats else None
