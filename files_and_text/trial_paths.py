"""Names of what a trial leaves on disk. Existing run folders use them, so none may change."""

from __future__ import annotations

from pathlib import Path

from files_and_text.atomic_files import previous_folder

CHECKPOINT, ADAPTER = "checkpoint", "adapter"
"""Folders in a trial's folder."""
STATE_FILE, TENSORS_FILE = "state.json", "seat.safetensors"
"""A checkpoint is whole when it has the first, which is written last."""
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""peft's names."""
CONFIG_FILE, REPORTS_FILE, RESULT_FILE, ERROR_FILE = (
    "config.json",
    "reports.jsonl",
    "result.json",
    "error.txt",
)
"""What the keeper writes: the configuration, a line for each report, the last report, and a failed trial's
traceback."""
BEST_FOLDER, MERGED, MERGED_FILE = "best", "merged", "merged.json"
"""The folder of the best trial's adapter in the run folder. In it, written on request: the folder with base
and adapter merged, and the file with the merged model's loss. A new best removes both."""
RECORD_LOSSES_FILE = "record_losses.json"
"""What the keeper writes of a complete trial: its loss on each evaluation record."""


def trial_name(number: int) -> str:
    """`0007`."""
    return f"{number:04d}"


def trial_folder(number: int) -> str:
    """`trials/0007`, relative to the run folder."""
    return f"trials/{trial_name(number)}"


def checkpoint_folders(trial: Path) -> tuple[Path, Path]:
    """A trial's newest checkpoint and the one before it; either may be absent."""
    newest = trial / CHECKPOINT
    return newest, previous_folder(newest)
