"""A run as lines of a log: one line per change, each complete in itself and with its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from files_and_text.numbers import duration, plural
from results.text.answer import settings_text
from results.text.gaps import short_loss
from sweeps.study.status import RunningTrial, Stage, Status
from sweeps.view.phrases import (
    arm_text,
    beside_best,
    best_text,
    event_text,
    is_start,
    left_text,
    noun,
    speed_text,
    stage_text,
    trial_of,
)

HEARTBEAT_SECONDS = 60.0


class PlainLines:
    """Compares each status with the one before; a line begins with `2026-11-28 22:10:32 [6 of 16]`."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._clock, self._now = clock, now
        self._said_at = clock()
        self._trials: dict[int, RunningTrial] = {}
        self._reported: dict[int, float] = {}
        """Trial -> evaluation loss of the last line about it."""
        self._best: int | None = None
        self._means: dict[str, float] = {}
        """Configuration of a confirmation -> mean loss of the last line about it."""
        self._stages: set[tuple[str, int | None]] = set()
        self._was_away = False

    def lines(
        self,
        status: Status | None,
        events: Sequence[str] = (),
        stages: Sequence[Stage] = (),
        notice: str = "",
        before: Status | None = None,
    ) -> list[str]:
        """What is new: `events` and `notice` since the last call, stages that began, reports, a new best.

        Without news, a sign of life once a minute. `status` is None before the keeper has answered; then the
        trials that have ended are counted in `before`.
        """
        texts = [notice] if notice else []
        texts += self._begun((*stages, *(status.stages if status is not None else ())))
        texts += events if status is None else self._changes(status, events)
        if not texts and self._clock() - self._said_at >= HEARTBEAT_SECONDS:
            texts = [self._sign_of_life(status, stages)]
        if texts:
            self._said_at = self._clock()
        known = before if status is None and before is not None and before.finished else status
        counts = (
            "" if known is None else f"[{known.finished}{f' of {known.target}' if known.target else ''}] "
        )
        return [f"{self._now():%Y-%m-%d %H:%M:%S} {counts}{' '.join(text.split())}" for text in texts]

    def _begun(self, stages: Sequence[Stage]) -> Iterator[str]:
        now = {(stage.name, stage.worker) for stage in stages}
        for stage in stages:
            if (stage.name, stage.worker) not in self._stages:
                yield stage_text(stage)
        self._stages = now

    def _changes(self, status: Status, events: Sequence[str]) -> Iterator[str]:
        before, running = self._trials, {trial.number: trial for trial in status.running}
        self._trials = running
        for event in events:
            number = trial_of(event)
            trial = None if number is None else running.get(number) or before.get(number)
            values = "" if trial is None else settings_text(trial.values)
            yield event_text(event, status) + _after(": " if is_start(event) else "; ", values)
        for number, trial in running.items():
            if trial.eval_loss is not None and self._reported.get(number) != trial.eval_loss:
                self._reported[number] = trial.eval_loss
                yield event_text(report_text(trial), status)
        self._reported = {number: loss for number, loss in self._reported.items() if number in running}
        if best_text(status) and status.best is not None and status.best["number"] != self._best:
            self._best = status.best["number"]
            values = settings_text(status.best["values"])
            yield "; ".join(filter(None, [f"best so far {best_text(status)}", values, *beside_best(status)]))
        for arm in status.arms:
            if arm.eval_loss is not None and self._means.get(arm.name) != arm.eval_loss:
                self._means[arm.name] = arm.eval_loss
                yield f"{arm.name}: {arm_text(arm)}"
        if bool(status.storage_away_seconds) and not self._was_away and not events:
            yield "the storage is away; trials go on and wait for it"
        self._was_away = bool(status.storage_away_seconds)

    def _sign_of_life(self, status: Status | None, stages: Sequence[Stage]) -> str:
        open_stages = [*stages, *(status.stages if status is not None else ())]
        texts = [f"{stage_text(stage, 'still ')} ({duration(stage.seconds)})" for stage in open_stages]
        if status is not None:
            if status.storage_away_seconds:
                texts.append(f"the storage has been away for {duration(status.storage_away_seconds)}")
            if status.running:
                furthest = max(status.running, key=lambda trial: (trial.percent, -trial.number))
                texts.append(
                    f"{plural(len(status.running), noun(status))} running, "
                    f"{event_text(progress_text(furthest), status)}"
                )
            texts += [speed_text(status), left_text(status)]
        return "; ".join(filter(None, texts)) or "waiting"


def report_text(trial: RunningTrial) -> str:
    """`trial 7: at 20%, step 8 of 40, train loss 5.612, evaluation loss 5.701; learning_rate 5.98e-3`."""
    facts = [f"at {_at(trial)}"]
    facts += [] if trial.train_loss is None else [f"train loss {short_loss(trial.train_loss)}"]
    facts += [] if trial.eval_loss is None else [f"evaluation loss {short_loss(trial.eval_loss)}"]
    return f"trial {trial.number}: {', '.join(facts)}{_after('; ', settings_text(trial.values))}"


def progress_text(trial: RunningTrial) -> str:
    """`trial 7 at 60%, step 24 of 40`."""
    return f"trial {trial.number} at {_at(trial)}"


def _at(trial: RunningTrial) -> str:
    of = f" of {trial.max_steps}" if trial.max_steps else ""
    return f"{trial.percent}%" + ("" if trial.step is None else f", step {trial.step}{of}")


def _after(separator: str, text: str) -> str:
    return f"{separator}{text}" if text else ""
