"""The workers as the keeper sees them: which are active, how fast they are, and which fail to start.

Kept in memory only: a restarted keeper begins with an empty registry.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_FUTILE_STARTS = 12
"""A worker that died this often in a row without a new report in between is given up."""
MAX_PAUSE_SECONDS = 60.0


class WorkerRegistry:
    """Workers by their index in the fleet."""

    def __init__(self) -> None:
        self.active: set[int] = set()
        """Workers that train, or are loading the base in order to."""
        self.futile_starts: dict[int, int] = {}
        """Starts of each worker since a trial on it last reported something new."""
        self._tokens_per_second: dict[int, float] = {}
        self._prefetch: dict[int, int] = {}
        """How many prefetched trials each worker asked for."""
        self._busy_seat_seconds = self._seat_seconds = 0.0

    # --- starts -----------------------------------------------------------------------------------

    def count_start(self, worker: int) -> int:
        """Count a start; returns how many there had been since the last new report."""
        self._tokens_per_second.pop(worker, None)
        before = self.futile_starts.get(worker, 0)
        self.futile_starts[worker] = before + 1
        return before

    def made_progress(self, worker: int) -> None:
        """A trial on this worker has reported something new."""
        self.futile_starts.pop(worker, None)

    # --- work -------------------------------------------------------------------------------------

    def request_prefetch(self, worker: int, trials: int) -> int:
        """Note that this worker wants `trials` prefetched; returns the number for all workers."""
        self._prefetch[worker] = trials
        return sum(self._prefetch.values())

    def set_speed(self, worker: int, tokens_per_second: float) -> None:
        """Remember a worker's speed; 0 means that it is not known."""
        if tokens_per_second > 0:
            self._tokens_per_second[worker] = tokens_per_second

    def tokens_per_second(self, workers: Iterable[int]) -> float:
        """The speed of these workers together."""
        return sum(self._tokens_per_second.get(worker, 0.0) for worker in set(workers))

    def count_seat_time(self, busy_seat_seconds: float, seat_seconds: float) -> None:
        """Add to the totals behind `seat_busy_share`."""
        self._busy_seat_seconds += busy_seat_seconds
        self._seat_seconds += seat_seconds

    @property
    def seat_busy_share(self) -> float | None:
        """Share (0..1) of the seats' time in which they trained; None before anything was counted."""
        return self._busy_seat_seconds / self._seat_seconds if self._seat_seconds else None


def restart_pause(futile_starts: int) -> float:
    """Seconds to wait before the next start; none for the first few."""
    return min(MAX_PAUSE_SECONDS, 2.0 ** (futile_starts - 3)) if futile_starts > 2 else 0.0
