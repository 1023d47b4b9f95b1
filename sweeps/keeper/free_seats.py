"""Fills free seats: interrupted trials first, then frozen ones that may win, new ones, runs on new seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial

from results.stored_trials import FROZEN, is_frozen
from sweeps.keeper.protocol import Reply, SeatAssignment
from sweeps.keeper.trials.open_study import OpenStudy
from sweeps.keeper.trials.retry_queue import is_suspect
from sweeps.keeper.trials.seats import assign_seat
from sweeps.keeper.worker_registry import WorkerRegistry
from sweeps.progress.live_progress import LiveProgress


class FreeSeats:
    """The seats of one run's workers."""

    def __init__(
        self,
        run: str,
        run_folder: Path,
        workers: WorkerRegistry,
        progress: LiveProgress,
        note: Callable[[str], None],
        *,
        is_ending: Callable[[], bool],
        is_stopping: Callable[[], bool],
    ) -> None:
        """`is_ending`: no more trials are handed out; `is_stopping`: those that run are to end as well."""
        self._run, self._folder = run, run_folder
        self._workers, self._progress, self._note = workers, progress, note
        self._is_ending, self._is_stopping = is_ending, is_stopping

    def fill(self, opened: OpenStudy, worker: int, seats: Sequence[int]) -> Reply:
        """Give trials to `seats` of a worker. Only inside a transaction."""
        on_worker = opened.on(worker)
        hand_out = not self._is_ending()
        if not hand_out:
            opened.source.requeue_prefetched()
        if self._is_stopping():
            return self.no_work(opened, worker, stop=True)
        start, assigned = [], {t.user_attrs["seat"]: t for t in on_worker}
        for seat in dict.fromkeys(seats):
            # Assigned to this seat before, in a reply that the worker did not get.
            trial = assigned.get(seat)
            if trial is None and hand_out:
                trial = self._next_trial(opened, worker, on_worker)
                hand_out = trial is not None
            if trial is None:
                continue
            if seat not in assigned:
                on_worker.append(trial)
            from_frozen = f", taken up again at {trial.user_attrs[FROZEN]}%" if is_frozen(trial) else ""
            assignment = assign_seat(
                opened.study, trial, worker, seat, run=self._run, run_folder=self._folder
            )
            start.append(SeatAssignment(seat, assignment))
            self._note(f"trial {trial.number}: started on worker {worker} seat {seat}{from_frozen}")
        if not on_worker:
            opened.let_frozen_rest_if_over(self._is_ending)
            return self.no_work(opened, worker)
        self._workers.active.add(worker)
        return Reply(start=tuple(start))

    def _next_trial(
        self, opened: OpenStudy, worker: int, on_worker: Sequence[FrozenTrial]
    ) -> FrozenTrial | None:
        others = self._workers.active - {worker}
        trial = opened.retry_queue.next_for(worker, on_worker, has_others=bool(others))
        if trial is None and not any(map(is_suspect, on_worker)):
            if (trial := opened.next_frozen(self._workers.active)) is not None:
                self._progress.worse(f"trial {trial.number} was taken up again")
            else:
                trial = next(iter(opened.source.prefetched()), None) or opened.source.draw()
                trial = trial or opened.tail.draw()
        return trial

    def no_work(self, opened: OpenStudy, worker: int, *, stop: bool = False) -> Reply:
        """The reply to a worker that has nothing more to do; `stop`: it is to end now."""
        self._workers.active.discard(worker)
        self._progress.forget_worker(worker)
        is_idle = not self._workers.active and (self._is_stopping() or not opened.on_seats())
        return Reply(stop=stop, fleet_done=is_idle)
