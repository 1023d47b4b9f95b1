"""What the keeper and its workers send each other: plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from lora_runner.protocol import Assignment


@dataclass(frozen=True)
class SeatAssignment:
    """A trial and the seat it is meant for."""

    seat: int
    assignment: Assignment


@dataclass(frozen=True)
class Reply:
    """What a worker does next: which trials leave their seats, which start, and whether to stop."""

    leave: tuple[int, ...] = ()
    """Numbers of trials."""
    freeze: tuple[int, ...] = ()
    """Numbers of trials that leave their seats after a checkpoint, from which they may go on later."""
    start: tuple[SeatAssignment, ...] = ()
    stop: bool = False
    """Checkpoint the running trials and end."""
    abandon: bool = False
    """With `stop`: end without writing anything, because another sweep holds the study now."""
    not_recorded: bool = False
    """With `stop`: the reports of this call were not recorded."""
    fleet_done: bool = False
    """With nothing to start: no worker has anything left to do, nor will one that starts later."""
    retry_in_seconds: float | None = None
    """The storage is away and nothing was done: make the same call again after this time."""
    pause_seconds: float = 0.0
    """Reply to `rejoin`: how long to wait before loading the base."""
    measure_base: bool = False
    """Reply to `register`: the study lacks the metric of the untouched base."""
    measure_unquantized: bool = False
    """Reply to `rejoin`: measure the base without quantization before it is loaded."""
    study_key: str = ""
    """Reply to `rejoin`: the study whose checkpoints the worker reads from a checkpoint store."""


@dataclass(frozen=True, kw_only=True)
class SeatTime:
    """How long a worker's seats were busy since its last report."""

    busy_seat_seconds: float
    """Time in which a trial was on the seat and the pack computed, summed over seats."""
    seat_seconds: float
    """All time, summed over seats."""
