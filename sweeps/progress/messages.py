"""What a worker tells the keeper between two reports: plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from lora_runner.protocol import TrialProgress
from sweeps.study.status import Stage

TURN_SECONDS = 5.0
"""Longest time between two calls of the keeper by a worker that trains, so that a stop takes effect soon."""


@dataclass(frozen=True, kw_only=True)
class WorkerProgress:
    """How far a worker is. Nothing waits for it and nothing depends on it: it may be lost."""

    at: float
    """Seconds on the worker's own clock; only differences are used."""
    trials: tuple[TrialProgress, ...] = ()
    seats: int = 0
    """Seats that take trials."""
    checkpoint_seconds: float | None = None
    """How long its last checkpoint of one trial took."""
    eval_tokens: int = 0
    """Tokens of one evaluation of a trial."""
    stages: tuple[Stage, ...] = ()
    """What it does before it trains."""
