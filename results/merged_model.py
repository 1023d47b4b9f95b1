"""The loss of the best adapter merged into its base, as `sweeps merge` keeps it in `best/`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from files_and_text.atomic_files import atomic_write_json
from files_and_text.problems import InputError, Problem
from files_and_text.trial_paths import BEST_FOLDER, MERGED_FILE

_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "trial": (int, "a trial's number"),
    "dtype": (str, "text"),
    "loss": ((int, float), "a finite number"),
    "folder": (str, "text"),
    "eval_digest": (str, "text"),
}
"""The type of every field, and how it is said."""


@dataclass(frozen=True, kw_only=True)
class MergedModel:
    """A merged model that was evaluated on the sweep's evaluation records."""

    trial: int
    """Whose adapter it holds."""
    dtype: str
    loss: float
    """Nats per token."""
    folder: str
    """Where it was written; relative to the run folder where it lies in it."""
    eval_digest: str
    """Of the evaluation records."""


def write_merged_model(found: MergedModel, run_folder: Path) -> Path:
    """Keep it in place of the one that is there; returns the file."""
    return atomic_write_json(run_folder / BEST_FOLDER / MERGED_FILE, asdict(found))


def forget_merged_model(run_folder: Path) -> bool:
    """Remove what is kept of an earlier merged model; whether there was anything."""
    file = run_folder / BEST_FOLDER / MERGED_FILE
    is_kept = file.exists()
    file.unlink(missing_ok=True)
    return is_kept


def read_merged_model(run_folder: Path) -> MergedModel | None:
    """What is kept, None where nothing is; raises InputError for a file that cannot be read."""
    file = run_folder / BEST_FOLDER / MERGED_FILE
    shown = f"{BEST_FOLDER}/{MERGED_FILE}"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except json.JSONDecodeError as error:
        raise InputError([Problem(f"not JSON: {error.msg}", shown, error.lineno)]) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError([Problem(f"cannot be read: {error}", shown)]) from None
    if not isinstance(data, dict):
        raise InputError([Problem(f"a merged model is kept as a mapping; got {data!r:.60}", shown)])
    problems = [
        Problem(f"{name} must be {rule}; got {data.get(name)!r:.60}", shown)
        for name, (kind, rule) in _KINDS.items()
        if not _fits(data.get(name), kind)
    ]
    if problems:
        raise InputError(problems)
    return MergedModel(**{name: data[name] for name in _KINDS})


def _fits(value: Any, kind: type | tuple[type, ...]) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return not isinstance(value, float) or math.isfinite(value)
