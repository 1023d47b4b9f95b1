"""A trial's loss on each evaluation record, as the keeper keeps it beside the trial's other files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from files_and_text.trial_paths import RECORD_LOSSES_FILE

SAME_LOSS = 1e-4
"""Share by which the mean over the records may differ from the loss in the study: it was summed otherwise."""


@dataclass(frozen=True, eq=False)
class RecordLosses:
    """The losses of one run, in the order of the evaluation set."""

    nats: NDArray[np.float64]  # (records,) summed over each record's target tokens
    tokens: NDArray[np.float64]  # (records,) how many those are


def read_record_losses(trial_folder: Path, eval_loss: float | None) -> RecordLosses | None:
    """The record losses of a trial with this evaluation loss.

    None where there are none (runs of earlier versions, a folder on another machine), where the file is
    damaged, and where it is of another run.
    """
    try:
        values = json.loads((trial_folder / RECORD_LOSSES_FILE).read_text(encoding="utf-8"))
        nats, tokens = (np.array(values[name], dtype=float) for name in ("nats", "tokens"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if nats.ndim != 1 or nats.shape != tokens.shape or not (np.isfinite(nats).all() and (tokens >= 0).all()):
        return None
    if eval_loss is None or not tokens.sum() > 0:
        return None
    mean = float(nats.sum() / tokens.sum())
    return RecordLosses(nats, tokens) if math.isclose(mean, eval_loss, rel_tol=SAME_LOSS) else None
