"""What a running trial leaves on disk and goes on from: checkpoints on its way, the adapter at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from safetensors import SafetensorError

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
    """Writes and reads trials' folders, and remembers what was written and what a person should hear of."""

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._written: list[tuple[Assignment, str]] = []
        self._notes: list[str] = []

    def restore(self, running: RunningTrial) -> None:
        """Let a trial go on from its checkpoint, if its folder holds one that can be used."""
        number, folder = running.assignment.number, running.folder / "checkpoint"
        if not has_checkpoint(folder):
            return
        try:
            (watch, wall_seconds, stats), problems = load_checkpoint(folder, running.seat, _read_progress)
        except CheckpointError as error:  # nothing of the seat has been touched
            self._notes.append(f"trial {number}: starts over, no checkpoint can be used ({error})")
            return
        for problem in problems:
            self._notes.append(
                f"trial {number}: goes on from the one before a damaged checkpoint ({problem})"
            )
        running.watch, running.wall_seconds, running.last_stats = watch, wall_seconds, stats

    def checkpoint(self, running: RunningTrial) -> None:
        """Checkpoint a trial between two windows; when the disk does not take it, the one before remains."""
        running.read()
        progress = {
            "watch": running.watch.to_dict(),
            "wall_seconds": running.wall_seconds,
            "last_stats": asdict(running.last_stats) if running.last_stats else None,
        }
        try:
            save_checkpoint(running.folder / "checkpoint", running.seat, progress)
        except (OSError, SafetensorError) as error:
            if not is_disk_trouble(error):
                raise
            self._notes.append(f"trial {running.assignment.number}: no checkpoint was written ({error})")
        else:
            self._written.append((running.assignment, "checkpoint"))
        running.checkpointed_at = time.monotonic()
        running.wants_checkpoint = False

    def adapter(self, running: RunningTrial, pack: Pack, alive: Callable[[], None]) -> None:
        """Write a trial's adapter, waiting for a disk that is full or away: it has used its whole budget."""
        deadline = time.monotonic() + self._patience_seconds
        while True:
            try:
                save_adapter(running.folder / "adapter", pack, running.seat)
            except (OSError, SafetensorError) as error:
                if not is_disk_trouble(error) or time.monotonic() > deadline:
                    raise
                self._notes.append(f"trial {running.assignment.number}: waits for the disk ({error})")
                alive()
                time.sleep(min(DISK_RETRY_SECONDS, self._patience_seconds))
            else:
                self._written.append((running.assignment, "adapter"))
                return

    def note(self, assignment: Assignment, text: str) -> None:
        """Remember what a person should hear of a trial."""
        self._notes.append(f"trial {assignment.number}: {text}")

    def note_of_base(self, text: str) -> None:
        """Remember what a person should hear of the untouched base."""
        self._notes.append(f"untouched base: {text}")

    def take_written(self) -> list[tuple[Assignment, str]]:
        """Folders (checkpoint, adapter) written since this was asked last."""
        written, self._written = self._written, []
        return written

    def take_notes(self) -> list[str]:
        """What was noted since this was asked last."""
        notes, self._notes = self._notes, []
        return notes


def _read_progress(progress: dict[str, Any]) -> tuple[StabilityWatch, float, StepStats | None]:
    stats = progress["last_stats"]
    watch = StabilityWatch.from_dict(progress["watch"])
    return watch, float(progress["wall_seconds"]), StepStats(**stats) if stats else None
