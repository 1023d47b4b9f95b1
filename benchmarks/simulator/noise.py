"""What one run adds to the expected loss of its configuration: its seed, chance, and an early end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.simulator.shapes import Numbers
from benchmarks.simulator.surface import Assigned, Surface


@dataclass(frozen=True, kw_only=True)
class Noise:
    """All scales are percent of the loss."""

    percent: float = 0.2
    """Standard deviation of one run far from the cliff, beside what its seed does to all configurations."""
    tails: Literal["normal", "t4"] = "normal"
    seed_percent: float = 0.5
    """Standard deviation of what a seed does to all configurations alike."""
    growth: float = 3.0
    """At the cliff a run is this many times noisier on top."""
    skew: float = 0.0
    """Share of the growth that only ever raises the loss (an exponential, its mean taken off)."""
    decay: float = 0.15
    """Decades below the cliff in which the growth falls to a third."""
    diverges: bool = True
    """Whether runs diverge at random beyond the cliff: half of them a quarter of a decade above it."""

    def seed_effect(self, generator: np.random.Generator) -> float:
        return float(generator.normal(0, self.seed_percent))

    def share_diverging(self, decades_above_cliff: float) -> float:
        """Chance that a run diverges."""
        return float(self.shares_diverging(np.asarray(decades_above_cliff)))

    def shares_diverging(self, decades_above_cliff: Numbers) -> Numbers:
        """The same of many configurations."""
        if not self.diverges:
            return np.zeros_like(decades_above_cliff, dtype=float)
        return np.asarray(1 / (1 + np.exp(-np.clip((decades_above_cliff - 0.25) / 0.04, -60, 60))))

    def run(
        self,
        surface: Surface | Assigned,
        params: Mapping[str, Any],
        seed_effect: float,
        generator: np.random.Generator,
    ) -> float | None:
        """The loss of one run in nats per token; None when it diverged."""
        above = surface.decades_above_cliff(params)
        if generator.random() < self.share_diverging(above):
            return None
        near = math.exp(min(0.0, above / self.decay)) if math.isfinite(above) else 0.0
        symmetric = self.percent * (1 + self.growth * (1 - self.skew) * near)
        skewed = self.percent * self.growth * self.skew * near
        drawn = symmetric * self._standard(generator) + skewed * (generator.exponential() - 1)
        return surface.loss(params) * (1 + (seed_effect + drawn) / 100)

    def _standard(self, generator: np.random.Generator) -> float:
        if self.tails == "t4":
            return float(generator.standard_t(4)) / math.sqrt(2)  # its variance is 2
        return float(generator.normal())
