"""Checkpoints of a seat: safetensors for tensors, JSON for everything else, written atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from files_and_text.atomic_files import atomic_write, previous_folder, whole_folder
from files_and_text.trial_paths import STATE_FILE, TENSORS_FILE
from lora_runner.config import TrialConfig
from lora_runner.errors import CheckpointError
from lora_runner.pack.seat import Seat

_DAMAGED = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError)
_FORMAT = 2
"""Raised when a field changes its meaning; a checkpoint of another format is not used. Format 1 had no
checksum of the state."""
_OWN_DIGEST = "state_sha256"


def save_checkpoint(folder: Path, seat: Seat, progress: dict[str, Any]) -> None:
    """Write the seat and the caller's `progress` (JSON-ready) to `folder`, replacing an older checkpoint."""
    with whole_folder(folder) as temporary:
        save_file(
            {name: tensor.contiguous().cpu() for name, tensor in seat.state_tensors()},
            temporary / TENSORS_FILE,
        )
        state = {
            "format": _FORMAT,
            "config": seat.config.to_dict(),
            "trainable_token_indices": seat.token_indices,
            "step": seat.step,
            "micro_step": seat.micro_step,
            "num_tokens": seat.num_tokens,
            "progress": progress,
            "sha256": _digest(temporary / TENSORS_FILE),
        }
        state |= {_OWN_DIGEST: _state_digest(state)}
        # Not atomic_write_json: a NaN must come back as one.
        atomic_write(temporary / STATE_FILE, json.dumps(state, indent=2, sort_keys=True) + "\n")


def has_checkpoint(folder: Path) -> bool:
    """Whether `folder` or the previous one holds a checkpoint."""
    return any((candidate / STATE_FILE).is_file() for candidate in (folder, previous_folder(folder)))


def load_checkpoint(
    folder: Path, seat: Seat, read_progress: Callable[[dict[str, Any]], Any] = dict
) -> tuple[Any, list[str]]:
    """Load `seat` from `folder`, or from the previous checkpoint if that one is damaged.

    Returns the result of `read_progress`, and the problems of checkpoints that were skipped (also those whose
    progress cannot be read). Raises CheckpointError when none is usable or the trial differs; the seat is
    then unchanged.
    """
    problems: list[str] = []
    for candidate in (folder, previous_folder(folder)):
        if not (candidate / STATE_FILE).is_file():
            continue
        try:
            return _load(candidate, seat, read_progress), problems
        except (*_DAMAGED, CheckpointError) as error:
            problems.append(f"{candidate}: {type(error).__name__}: {error}")
    raise CheckpointError("; ".join(problems) or f"{folder} holds no checkpoint")


def _load(folder: Path, seat: Seat, read_progress: Callable[[dict[str, Any]], Any]) -> Any:
    state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    if state["format"] != _FORMAT:
        raise CheckpointError(f"the checkpoint has format {state['format']}, not {_FORMAT}")
    if TrialConfig.from_dict(state["config"]) != seat.config:
        raise CheckpointError("the checkpoint belongs to another trial configuration")
    # Rows of other tokens would have the same names and shapes.
    if tuple(state.get("trainable_token_indices", ())) != seat.token_indices:
        raise CheckpointError("the checkpoint belongs to a pack that trains other tokens")
    if state["sha256"] != _digest(folder / TENSORS_FILE):
        raise CheckpointError(f"{TENSORS_FILE} does not match its checksum")
    if state[_OWN_DIGEST] != _state_digest(state):
        raise CheckpointError(f"{STATE_FILE} does not match its checksum")
    counts = {name: state[name] for name in ("step", "micro_step", "num_tokens")}
    if any(type(count) is not int or count < 0 for count in counts.values()):
        raise CheckpointError(f"the checkpoint's counts must be whole numbers, got {counts}")
    progress = state["progress"]
    if not isinstance(progress, dict):
        raise CheckpointError(f"the checkpoint's progress must be a mapping, got {type(progress).__name__}")
    read = read_progress(progress)
    seat.load_state(load_file(folder / TENSORS_FILE), **counts)
    return read


def _state_digest(state: Mapping[str, Any]) -> str:
    """Over all values but itself, independent of formatting."""
    values = {key: value for key, value in state.items() if key != _OWN_DIGEST}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
