"""A sweep on a simulated clock: trials of known length on seats, and what `LiveProgress` says of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lora_runner.protocol import TrialProgress
from sweeps.progress.live_progress import LiveProgress
from sweeps.progress.messages import WorkerProgress
from sweeps.study.pruning.rungs import pruning_percents
from sweeps.study.status import RunningTrial, Status

REPORT_AT = (10, 20, 40, 80, 100)
MAX_STEPS = 200


@dataclass
class Simulated:
    number: int
    worker: int
    last_step: int
    """At which it is pruned or complete."""
    step: float = 0.0
    evaluates_until: float = 0.0


@dataclass
class SimulatedSweep:
    """Steps take `step_seconds` on each seat, evaluations stop all seats of a worker."""

    trials: int
    seats: Sequence[int]
    """Of each worker."""
    pruner: str = "successive_halving"
    task: str = "run"
    step_seconds: float = 0.5
    eval_seconds: float = 4.0
    seed: int = 0
    now: float = 0.0
    shown: list[tuple[float, float | None, str]] = field(default_factory=list)
    """Time, seconds left and note of every status."""
    on_tick: Callable[[SimulatedSweep], None] = lambda _: None

    def __post_init__(self) -> None:
        search = {"pruner": self.pruner, "pruner_options": {}, "timeout_seconds": None}
        pruned_at = pruning_percents(search, REPORT_AT, 0)
        self.progress = LiveProgress(
            search, REPORT_AT, pruned_at, is_confirm=self.task == "confirm", clock=lambda: self.now
        )
        self.random = random.Random(self.seed)
        self.lost: set[int] = set()
        self.running: list[Simulated] = []
        self.waiting: list[Simulated] = []
        self.ended: list[float] = []
        self.started = 0

    def run(self, *, tick: float = 0.5, message_every: float = 1.0) -> float:
        """Until all trials have ended; returns the time it took."""
        next_message = message_every
        while len(self.ended) < self.trials:
            self.on_tick(self)
            self._fill()
            self.now += tick
            for worker in self._workers():
                self._train(worker, tick)
            if self.now >= next_message:
                next_message += message_every
                for worker in self._workers():
                    self._tell(worker)
            self._look()
            assert self.now < 1e6
        return self.now

    def lose(self, worker: int) -> None:
        """Its trials wait for another seat, from their last report."""
        self.lost.add(worker)
        for trial in [t for t in self.running if t.worker == worker]:
            self.running.remove(trial)
            trial.step = 0.0
            self.waiting.append(trial)
        self.progress.forget_worker(worker, f"worker {worker} was lost")

    def status(self) -> Status:
        status = Status("mine", self.trials, states={"COMPLETE": len(self.ended)}, elapsed_seconds=self.now)
        status.running = [
            RunningTrial(number=t.number, worker=t.worker, percent=self._percent(t), max_steps=MAX_STEPS)
            for t in (*self.running, *self.waiting)
        ]
        self.progress.fill(
            status,
            without_seat=[t.number for t in self.waiting],
            ended=self.ended,
            whole=[0],
            has_more=self.started < self.trials,
        )
        return status

    def _workers(self) -> list[int]:
        return [worker for worker in range(len(self.seats)) if worker not in self.lost]

    def _fill(self) -> None:
        for worker in self._workers():
            while sum(t.worker == worker for t in self.running) < self.seats[worker]:
                if self.waiting:
                    trial = self.waiting.pop(0)
                    trial.worker = worker
                elif self.started < self.trials:
                    trial = Simulated(self.started, worker, self._last_step())
                    self.started += 1
                else:
                    break
                self.running.append(trial)

    def _last_step(self) -> int:
        rung = 10
        while self.pruner != "none" and self.started and rung < 100:
            if self.random.random() < 0.5:
                return MAX_STEPS * rung // 100
            rung *= 2
        return MAX_STEPS

    def _train(self, worker: int, seconds: float) -> None:
        mine = [trial for trial in self.running if trial.worker == worker]
        if any(trial.evaluates_until > self.now for trial in mine):
            return
        for trial in mine:
            before = trial.step
            trial.step = min(trial.last_step, trial.step + seconds / self.step_seconds)
            reports = [MAX_STEPS * percent // 100 for percent in REPORT_AT]
            if any(before < at <= trial.step for at in reports):
                trial.evaluates_until = self.now + self.eval_seconds
            if trial.step >= trial.last_step:
                self.running.remove(trial)
                self.ended.append(trial.last_step / MAX_STEPS)

    def _tell(self, worker: int) -> None:
        trials = tuple(
            TrialProgress(
                number=t.number,
                attempt=1 + (worker in self.lost),
                step=int(t.step),
                max_steps=MAX_STEPS,
                num_tokens=100 * int(t.step),
            )
            for t in self.running
            if t.worker == worker
        )
        tokens = int(2 * self.eval_seconds / self.step_seconds * 100)
        self.progress.note(
            worker,
            WorkerProgress(at=self.now, trials=trials, seats=self.seats[worker], eval_tokens=tokens),
        )

    def _look(self) -> None:
        status = self.status()
        self.shown.append((self.now, status.seconds_left, status.left_note))

    def _percent(self, trial: Simulated) -> int:
        return max((p for p in REPORT_AT if p <= 100 * trial.step / MAX_STEPS), default=0)
