"""Published losses as a surface to search: interpolated over learning rate and rank, model by model."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.simulator.curves import Curve
from search_spaces import Dimension, SearchSpace

NOISE_PERCENT = 0.1
"""Of one run; the table's own replicates differ by about as much."""
LEAST_CONFIGS = 12


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """One model of a table: the mean loss of each (learning rate, rank)."""

    name: str
    losses: Mapping[tuple[float, int], float]

    @property
    def space(self) -> SearchSpace:
        """The rates and ranks that were tried."""
        rates = [rate for rate, _ in self.losses]
        ranks = tuple(sorted({rank for _, rank in self.losses}))
        return SearchSpace(
            dimensions=(
                Dimension(
                    name="learning_rate",
                    kind="float",
                    low=min(rates),
                    high=max(rates),
                    log=True,
                    default=min(max(2e-4, min(rates)), max(rates)),
                ),
                Dimension(name="lora_r", kind="categorical", choices=ranks, default=ranks[0]),
            )
        )

    def loss(self, params: Mapping[str, Any]) -> float:
        """Linear in log rate at the given rank; beyond its own rates, the loss at the nearest one."""
        return float(self.losses_at(np.asarray([float(params["learning_rate"])]), int(params["lora_r"]))[0])

    def losses_at(self, rates: np.ndarray[Any, Any], rank: int) -> np.ndarray[Any, Any]:
        tried = sorted((math.log10(rate), loss) for (rate, r), loss in self.losses.items() if r == rank)
        logs, losses = zip(*tried, strict=True)
        return np.interp(np.log10(rates), logs, losses)

    @property
    def lowest(self) -> float:
        """Interpolated losses are lowest at a rate that was tried."""
        return min(self.losses.values())


def read_models(path: Path) -> list[PublishedModel]:
    """The models of a CSV file with the columns model, lr, rank and test_nll that have LEAST_CONFIGS or more
    configurations, of ranks with at least three rates."""
    runs: dict[str, dict[tuple[float, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            runs[row["model"]][float(row["lr"]), int(row["rank"])].append(float(row["test_nll"]))
    found = []
    for name, configs in runs.items():
        rates_of = defaultdict(set)
        for rate, rank in configs:
            rates_of[rank].add(rate)
        losses = {key: fmean(values) for key, values in configs.items() if len(rates_of[key[1]]) >= 3}
        if len(losses) >= LEAST_CONFIGS:
            found.append(PublishedModel(name=name, losses=losses))
    return found


@dataclass(frozen=True, kw_only=True)
class ReplayedTrials:
    """Runs of one model; the table has no losses before the end."""

    model: PublishedModel
    generator: np.random.Generator
    report_at: tuple[int, ...] = (100,)

    def curve(self, params: Mapping[str, Any]) -> Curve:
        loss = self.model.loss(params) * (1 + NOISE_PERCENT / 100 * float(self.generator.normal()))
        return Curve(losses={100: loss})
