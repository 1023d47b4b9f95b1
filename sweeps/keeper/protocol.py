"""What passes between the keeper and its workers: plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from lora_runner.protocol import Assignment


@dataclass(frozen=True)
class Placed:
    """A trial and the seat it is meant for."""

    seat: int
    assignment: Assignment


@dataclass(frozen=True)
class Reply:
    """What a worker does next: which trials leave their seats, which start, and whether to stop."""

    leave: tuple[int, ...] = ()
    start: tuple[Placed, ...] = ()
    stop: bool = False
    """Checkpoint what is running and end."""
    abandon: bool = False
    """With `stop`: end without writing anything, because another sweep holds the study now."""
    unheard: bool = False
    """With `stop`: what the call said was not recorded."""
    over: bool = False
    """With nothing to start: no worker has anything left to do, so none that is still to come will."""
    again_in: float | None = None
    """Nothing was done, the storage is away: say the same once more after this many seconds."""
    pause_seconds: float = 0.0
    """To a worker that has just died: how long to wait before it loads anything."""
    measure_base: bool = False
    """To a worker that has registered: the study lacks the metric of the untouched base."""
    study_key: str = ""
    """To a worker that has just started: which study's checkpoints it goes on from in a store."""


@dataclass(frozen=True, kw_only=True)
class SeatTime:
    """What a worker's seats did since its last word."""

    busy_seat_seconds: float
    """A trial sat there and the pack computed."""
    seat_seconds: float
    """Of all its seats together, whatever they did."""
