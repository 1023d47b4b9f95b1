"""How fast each running trial is, from what its worker told of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from lora_runner.protocol import TrialProgress

WINDOW_SECONDS = 15.0
"""A trial's speed is that of its last seconds."""


@dataclass
class TrialSpeed:
    """One attempt of a trial."""

    attempt: int
    max_steps: int
    samples: deque[tuple[float, TrialProgress]] = field(default_factory=deque)
    """Of the last seconds, oldest first."""
    received_at: float = 0.0
    """The keeper's clock."""

    @property
    def last(self) -> TrialProgress:
        return self.samples[-1][1]

    @property
    def share(self) -> float:
        """Of its budget, done."""
        return min(1.0, self.last.step / self.max_steps)

    def add(self, at: float, progress: TrialProgress, now: float) -> tuple[float, float]:
        """Add a sample; returns the seconds on the seat and the share of a budget since the one before."""
        if self.samples and at <= self.samples[-1][0]:
            return 0.0, 0.0  # of the process before, or twice the same
        seconds, share = 0.0, 0.0
        if self.samples:
            before_at, before = self.samples[-1]
            seconds, share = at - before_at, max(0, progress.step - before.step) / self.max_steps
        self.samples.append((at, progress))
        while len(self.samples) > 2 and at - self.samples[1][0] >= WINDOW_SECONDS:
            self.samples.popleft()
        self.received_at = now
        return seconds, share

    def per_second(self, now: float) -> tuple[float, float] | None:
        """Steps and tokens a second; None before two samples. Falls while nothing is heard."""
        (first_at, first), (last_at, last) = self.samples[0], self.samples[-1]
        silence = max(0.0, now - self.received_at - WINDOW_SECONDS / 3)
        seconds = last_at - first_at + silence
        if len(self.samples) < 2 or seconds <= 0:
            return None
        return (last.step - first.step) / seconds, (last.num_tokens - first.num_tokens) / seconds
