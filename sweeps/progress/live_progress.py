"""What the keeper knows of running trials between their reports, and adds to a status.

Only in memory: nothing depends on it, and a restarted keeper hears it again within seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweeps.progress.messages import TURN_SECONDS, WorkerProgress
from sweeps.progress.time_left import Countdown, Measured, Work, prior_shares, seconds_of
from sweeps.progress.trial_speeds import TrialSpeed
from sweeps.study.status import RunningTrial, Status

FORWARD_SHARE = 0.5
"""Of a training step, that is also done in an evaluation: the base's forward pass without its backward."""


class LiveProgress:
    """Progress of all workers of a run, by worker."""

    def __init__(
        self,
        search: Mapping[str, Any],
        report_at: Sequence[int],
        pruned_at: Sequence[int],
        *,
        is_confirm: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prior = prior_shares(search, pruned_at, is_confirm=is_confirm)
        self._num_reports = len(report_at)
        self._timeout = search["timeout_seconds"]
        self._clock = clock
        self._last: dict[int, tuple[float, WorkerProgress]] = {}
        """Worker -> when it was last heard of, and what it said."""
        self._speeds: dict[int, TrialSpeed] = {}
        """By number of the trial."""
        self._measured = Measured()
        self._countdown = Countdown()

    # --- what is heard ----------------------------------------------------------------------------

    def note(self, worker: int, progress: WorkerProgress) -> None:
        """A worker has said how far it is."""
        now = self._clock()
        self._last[worker] = now, progress
        for trial in progress.trials:
            speed = self._speeds.get(trial.number)
            if speed is None or speed.attempt != trial.attempt:
                speed = self._speeds[trial.number] = TrialSpeed(trial.attempt, trial.max_steps)
            self._measured.add(*speed.add(progress.at, trial, now))

    def forget_worker(self, worker: int, reason: str | None = None) -> None:
        """A worker has ended or starts again; with a `reason` it was lost, which may take time."""
        self._last.pop(worker, None)
        if reason is not None:
            self.worse(reason)

    def worse(self, reason: str) -> None:
        """Something has happened after which the sweep may take longer."""
        self._countdown.worse(reason)

    # --- what is shown ----------------------------------------------------------------------------

    def fill(
        self,
        status: Status,
        *,
        without_seat: Collection[int],
        ended: Sequence[float],
        whole: Collection[int],
        has_more: bool,
    ) -> None:
        """Add to a status what is known between reports.

        `without_seat`: trials that wait for one; `ended`: share of the budget of each trial that has ended;
        `whole`: trials that are never pruned; `has_more`: whether trials are still to be started.
        """
        now = self._clock()
        for number in self._speeds.keys() - {trial.number for trial in status.running}:
            del self._speeds[number]
        status.running = [self._with_progress(trial, without_seat, now) for trial in status.running]
        known = [speed for trial in status.running if (speed := self._speed_of(trial)) is not None]
        rates = [rate for speed in known if (rate := speed.per_second(now)) is not None]
        status.steps_per_second = sum(steps for steps, _ in rates)
        status.tokens_per_second = sum(tokens for _, tokens in rates) or status.tokens_per_second
        status.stages = [
            replace(stage, worker=worker, seconds=stage.seconds + now - at)
            for worker, (at, progress) in sorted(self._last.items())
            for stage in progress.stages
        ]
        status.steps_at_risk = max(
            (speed.last.step - speed.last.checkpoint_step for speed in known), default=None
        )
        status.stop_seconds = self._stop_seconds()
        if status.stopping:
            status.seconds_left = None
            return
        new = max(0, status.target - status.finished - status.frozen - len(status.running)) if has_more else 0
        estimate = self._estimate(status, without_seat, ended, whole, new, now)
        status.seconds_left = self._countdown.show(estimate, now)
        status.left_note = self._countdown.note

    def _speed_of(self, trial: RunningTrial) -> TrialSpeed | None:
        return self._speeds.get(trial.number) if trial.state == "training" else None

    def _with_progress(self, trial: RunningTrial, without_seat: Collection[int], now: float) -> RunningTrial:
        speed = self._speeds.get(trial.number)
        if trial.number in without_seat:
            if speed is None:
                return replace(trial, state="paused")
            step = speed.last.checkpoint_step
            percent = 100 * step // speed.max_steps
            return replace(trial, state="paused", step=step, percent=percent, checkpoint_step=step)
        if speed is None:
            return trial
        rate = speed.per_second(now)
        return replace(
            trial,
            step=speed.last.step,
            percent=max(trial.percent, 100 * speed.last.step // speed.max_steps),
            train_loss=speed.last.train_loss,
            checkpoint_step=speed.last.checkpoint_step,
            tokens_per_second=None if rate is None else rate[1],
        )

    def _estimate(
        self,
        status: Status,
        without_seat: Collection[int],
        ended: Sequence[float],
        whole: Collection[int],
        new: int,
        now: float,
    ) -> float | None:
        if not status.running and not new:
            return 0.0
        trial_seconds = self._measured.trial_seconds(self._not_evaluated(status))
        if trial_seconds is None:
            return None
        running, waiting = list[tuple[float, bool]](), list[float]()
        for trial in status.running:
            speed = self._speeds.get(trial.number)
            share = trial.percent / 100 if speed is None else speed.share
            if trial.number in without_seat:
                waiting.append(trial.percent / 100)
            else:
                # Between two messages a trial goes on.
                heard = now if speed is None else speed.received_at
                share = min(1.0, share + max(0.0, now - heard) / trial_seconds)
                running.append((share, trial.number in whole))
        seats = sum(progress.seats for _, progress in self._last.values())
        work = Work(
            running=running,
            waiting=waiting,
            new=new,
            seats=max(seats, len(running)),
            ended=ended,
            prior=self._prior,
            until_no_more_start=None
            if self._timeout is None
            else max(0.0, self._timeout - status.elapsed_seconds),
        )
        return seconds_of(work, trial_seconds)

    def _not_evaluated(self, status: Status) -> float:
        """Seconds of a trial's evaluations, as long as none of them has been measured."""
        if self._measured.share >= 1 / self._num_reports or any(t.eval_loss for t in status.running):
            return 0.0
        tokens = max((progress.eval_tokens for _, progress in self._last.values()), default=0)
        rates = [rate[1] for s in self._speeds.values() if (rate := s.per_second(self._clock()))]
        fastest = max(rates, default=0.0)
        return self._num_reports * FORWARD_SHARE * tokens / fastest if fastest else 0.0

    def _stop_seconds(self) -> float | None:
        """All trials of a worker write a checkpoint, one after another, once its turn is over."""
        seconds = [
            TURN_SECONDS + len(progress.trials) * (progress.checkpoint_seconds or 0.0)
            for _, progress in self._last.values()
            if progress.trials
        ]
        return max(seconds, default=None)
