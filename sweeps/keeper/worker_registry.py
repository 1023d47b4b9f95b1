"""The workers as a keeper sees them: who has something to do, how fast, and who starts in vain.

Kept in memory alone: a keeper that is started anew counts from there.
"""

from __future__ import annotations

from collections.abc import Iterable

FUTILE_STARTS = 12
"""A worker that died this often in a row without any report in between is given up."""
LONGEST_PAUSE_SECONDS = 60.0


class WorkerRegistry:
    """Workers by their index in the fleet."""

    def __init__(self) -> None:
        self.live: set[int] = set()
        """Those that have something to do, or are about to load the base for it."""
        self._futile_starts: dict[int, int] = {}
        """How often each has started since a trial on it last reported something new."""
        self._speeds: dict[int, float] = {}
        self._wanted: dict[int, int] = {}
        self._busy_seat_seconds = self._seat_seconds = 0.0

    def others(self, worker: int) -> bool:
        """Whether any other worker has something to do."""
        return bool(self.live - {worker})

    # --- starts -----------------------------------------------------------------------------------

    def starts(self, worker: int, *, in_vain: bool) -> int:
        """Count a start; how often the worker had started before without any report."""
        self._speeds.pop(worker, None)
        before = self._futile_starts.get(worker, 0)
        self._futile_starts[worker] = before + in_vain
        return before

    def got_on(self, worker: int) -> None:
        """A trial on it has reported something new."""
        self._futile_starts.pop(worker, None)

    def futile_starts(self) -> dict[int, int]:
        """A copy, for `take_back`."""
        return dict(self._futile_starts)

    def take_back(self, futile_starts: dict[int, int]) -> None:
        """Count as before, when a call has come to nothing."""
        self._futile_starts = futile_starts

    # --- work -------------------------------------------------------------------------------------

    def wants(self, worker: int, trials: int) -> int:
        """How many trials should lie ready for all, with these for `worker`."""
        self._wanted[worker] = trials
        return sum(self._wanted.values())

    def runs_at(self, worker: int, tokens_per_second: float) -> None:
        """Remember a worker's speed; 0 says nothing."""
        if tokens_per_second > 0:
            self._speeds[worker] = tokens_per_second

    def tokens_per_second(self, workers: Iterable[int]) -> float:
        """Of these together."""
        return sum(self._speeds.get(worker, 0.0) for worker in set(workers))

    def count_seats(self, busy_seat_seconds: float, seat_seconds: float) -> None:
        """Add up what the seats did."""
        self._busy_seat_seconds += busy_seat_seconds
        self._seat_seconds += seat_seconds

    @property
    def seat_busy_share(self) -> float | None:
        """Share (0..1) of the seats' time in which they trained; None before anything was counted."""
        return self._busy_seat_seconds / self._seat_seconds if self._seat_seconds else None


def pause_after(futile_starts: int) -> float:
    """Seconds before another try; none for the first ones."""
    return min(LONGEST_PAUSE_SECONDS, 2.0 ** (futile_starts - 3)) if futile_starts > 2 else 0.0
