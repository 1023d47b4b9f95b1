"""Checkpoints of a trial that are still kept, from which it can be replayed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from files_and_text.trial_paths import CHECKPOINT, STATE_FILE, checkpoint_folders
from sweeps.errors import ReplayError
from sweeps.replay.trial_record import TrialRecord


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint in a trial's folder, or in a copy of what the checkpoint store has."""

    folder: Path
    place: str
    """The folder or the store, for messages."""
    step: int
    percent: int
    """Of the budget, rounded down."""


def kept_checkpoints(folder: Path, max_steps: int, store: str | None = None) -> list[KeptCheckpoint]:
    """The checkpoints in a trial's folder that have a state, by rising step.

    `store`: the checkpoint store of which the folder is a copy.
    """
    found = []
    for candidate in checkpoint_folders(folder):
        with suppress(OSError, ValueError, KeyError, TypeError):
            step = int(json.loads((candidate / STATE_FILE).read_text(encoding="utf-8"))["step"])
            found.append(KeptCheckpoint(candidate, store or str(candidate), step, 100 * step // max_steps))
    return sorted(found, key=lambda kept: kept.step)


def take_checkpoint(
    record: TrialRecord, kept: Sequence[KeptCheckpoint], percent: int, into: Path
) -> KeptCheckpoint:
    """Copy the checkpoint at `percent` into the folder of a trial that is to go on from it; returns it.

    ReplayError lists what is kept when that percentage is not, and says why files cannot be copied.
    """
    for checkpoint in kept:
        if checkpoint.percent == percent:
            try:
                shutil.copytree(checkpoint.folder, into / CHECKPOINT)
            except OSError as error:
                raise ReplayError(
                    f"the checkpoint of trial {record.number} in {checkpoint.place} cannot be copied "
                    f"({_reason(error)}); a sweep that is running may have replaced it: replay again, or "
                    "without --from"
                ) from error
            return checkpoint
    if kept:
        listed = ", ".join(f"{each.percent}% (step {each.step})" for each in kept)
    else:
        listed = "none, since checkpoints are removed when a trial ends"
    raise ReplayError(
        f"trial {record.number} has no checkpoint at {percent}% of its budget; kept: {listed}. Without "
        "--from it is replayed from its first step"
    )


def _reason(error: OSError) -> str:
    """copytree collects (source, target, reason) of each file that failed."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][0][-1])
    return str(error)
