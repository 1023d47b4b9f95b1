"""Learning curves of trials on a surface: what a search sees before a trial's end.

A curve falls as a power of the learning done so far, which a low rate and a long warmup slow down, and lies
above its end by what a high rate still has to anneal. So early ranks mislead in the ways real ones do: a low
rate or a long warmup looks worse than it ends, a constant schedule better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.simulator.noise import Noise
from benchmarks.simulator.surface import SCHEDULERS as NAMES
from benchmarks.simulator.surface import WITH_WARMUP, Surface

START_PERCENT = 60.0
"""How far the untrained model lies above the lowest loss, percent of it."""
SPEED = 30.0
"""Of learning at the best rate: the share of the start that is left falls as 1 / (1 + SPEED x)."""
ANNEALED_PERCENT = 1.5
"""What the peak of the best rate keeps a loss above its annealed end."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One trial's losses by percent of its budget; nats per token."""

    losses: Mapping[int, float]
    diverged_at: int | None = None
    """The percent at which it reports no finite loss."""

    @property
    def last(self) -> float | None:
        """The loss at the full budget."""
        return None if self.diverged_at is not None else self.losses[100]


@dataclass(frozen=True, kw_only=True)
class SimulatedTrials:
    """Trials of one sweep on a surface, all on the sweep's seed."""

    surface: Surface
    noise: Noise
    report_at: tuple[int, ...]
    generator: np.random.Generator
    seed_effect: float = field(default=0.0)

    def curve(self, params: Mapping[str, Any]) -> Curve:
        """A new run of this configuration."""
        generator, surface = self.generator, self.surface
        above = surface.decades_above_cliff(params)
        diverged_at = None
        if generator.random() < self.noise.share_diverging(above):
            diverged_at = self.report_at[int(generator.integers(len(self.report_at)))]
        end = self.noise.run(surface, params, self.seed_effect, generator)
        if end is None:  # drawn above
            end = surface.loss(params)
        noise = self.noise.percent * surface.base_loss / 100
        losses = {}
        for percent in self.report_at:
            here = end + (self.excess(params, percent / 100) - self.excess(params, 1.0))
            if percent < 100:
                here += noise * (2 - percent / 100) * float(generator.normal())
            losses[percent] = here
        return Curve(losses=losses, diverged_at=diverged_at)

    def excess(self, params: Mapping[str, Any], done: float) -> float:
        """Nats above the converged, annealed loss after this share of the run."""
        name = str(params.get("lr_scheduler_type", "linear"))
        warmup = float(params.get("warmup_ratio", 0.0)) if WITH_WARMUP[NAMES.index(name)] else 0.0
        rate = 10 ** (math.log10(float(params["learning_rate"])) - self.surface.log_rate)
        learned = SPEED * rate**0.5 * learning_done(name, warmup, done)
        left = START_PERCENT / (1 + learned)
        kept = ANNEALED_PERCENT * rate**0.5 * relative_rate(name, warmup, done)
        return self.surface.base_loss * (left + kept) / 100


def relative_rate(scheduler: str, warmup: float, done: float) -> float:
    """The rate after this share of the run, relative to its peak."""
    if done < warmup:
        return done / warmup
    if scheduler == "constant":
        return 1.0
    rest = (done - warmup) / max(1e-9, 1 - warmup)
    return 1 - rest if scheduler == "linear" else (1 + math.cos(math.pi * min(1.0, rest))) / 2


def learning_done(scheduler: str, warmup: float, done: float, points: int = 50) -> float:
    """The integral of `relative_rate` up to this share of the run."""
    width = done / points
    return width * sum(relative_rate(scheduler, warmup, (i + 0.5) * width) for i in range(points))
