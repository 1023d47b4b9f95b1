"""A trial on its seat: its data, its stability watch, and when it reports."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from lora_runner.data import BatchPlan
from lora_runner.pack.pack import MicroBatch
from lora_runner.pack.seat import PendingStats, Seat, StepStats
from lora_runner.protocol import Assignment
from lora_runner.stability import StabilityWatch


@dataclass(eq=False)
class RunningTrial:
    """A trial on its seat."""

    assignment: Assignment
    seat: Seat
    plan: BatchPlan
    watch: StabilityWatch
    report_steps: dict[int, int]  # step -> percent
    window: list[MicroBatch] = field(default_factory=list)
    wall_seconds: float = 0.0
    last_stats: StepStats | None = None
    unread: list[PendingStats] = field(default_factory=list)
    """Updates whose figures have not been looked at."""
    checkpointed_at: float = field(default_factory=time.monotonic)
    wants_checkpoint: bool = False

    def read(self, keep: int = 0) -> None:
        """Let the stability watch see all updates but the newest `keep`."""
        while len(self.unread) > keep:
            self.last_stats = self.unread.pop(0).read()
            self.watch.after_step(self.last_stats.step, self.last_stats.loss, self.last_stats.grad_norm)

    def restart_window(self) -> None:
        """Forget an accumulation window that was cut short; its micro-batches are computed again."""
        self.seat.restart_window()
        self.window = []

    @property
    def folder(self) -> Path:
        return Path(self.assignment.folder)
