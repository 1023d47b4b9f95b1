"""The expected loss of every configuration: percent above a base loss, and where the cliff is."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.simulator.shapes import Numbers, Shape
from files_and_text.choices import SCHEDULERS_WITHOUT_WARMUP

SCHEDULERS = ("linear", "constant", "cosine")
WITH_WARMUP = np.array([name not in SCHEDULERS_WITHOUT_WARMUP for name in SCHEDULERS])
USUAL_RANK = 16
USUAL_WARMUP = 0.05


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The best learning rate moves with scheduler, warmup and rank; each also has a cost of its own.

    `warmup` is a share of the run and has no effect under a scheduler without one. The embeddings have a best
    rate, not a best ratio. A space without rank or embeddings holds them at their best.
    """

    shape: Shape
    log_rate: float
    """log10 of the best rate under `linear`, at USUAL_WARMUP and USUAL_RANK."""
    scheduler_shift: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Decades, in the order of SCHEDULERS."""
    scheduler_cost: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Percent, in the order of SCHEDULERS."""
    warmup_shift: float = 0.0
    """Decades for a tenth of the run more."""
    warmup_cost: float = 0.0
    """Percent, a tenth of the run away from `best_warmup`."""
    best_warmup: float = USUAL_WARMUP
    rank_shift: float = 0.0
    """Decades for twice the rank."""
    rank_cost: float = 0.0
    """Percent, at half or twice `best_rank`; it grows with the square of the doublings."""
    best_rank: float = USUAL_RANK
    embedding_cost: float = 0.0
    """Percent, a decade below the embeddings' best rate; twice as much a decade above."""
    log_embedding_rate: float = -4.3
    base_loss: float = 2.0
    """Nats per token of a configuration with cost 0."""

    def decades(self, rate: Numbers, scheduler: Numbers, warmup: Numbers, rank: Numbers) -> Numbers:
        """How far a rate lies above the best one beside these values; `scheduler` as its index."""
        chosen = scheduler.astype(int)
        warmed = np.where(WITH_WARMUP[chosen], (warmup - USUAL_WARMUP) / 0.1, 0.0)
        best = (
            self.log_rate
            + np.array(self.scheduler_shift)[chosen]
            + self.warmup_shift * warmed
            + self.rank_shift * np.log2(rank / USUAL_RANK)
        )
        return np.asarray(np.log10(rate) - best)

    def costs(
        self,
        rate: Numbers,
        scheduler: Numbers,
        warmup: Numbers,
        rank: Numbers,
        embedding_rate: Numbers | None,
    ) -> Numbers:
        """Percent above `base_loss`; the arguments broadcast. No `embedding_rate`: frozen."""
        chosen = scheduler.astype(int)
        away = np.where(WITH_WARMUP[chosen], (warmup - self.best_warmup) / 0.1, 0.0)
        found = (
            self.shape.cost(self.decades(rate, scheduler, warmup, rank))
            + np.array(self.scheduler_cost)[chosen]
            + self.warmup_cost * away**2
            + self.rank_cost * np.log2(rank / self.best_rank) ** 2
        )
        if embedding_rate is None:
            return np.asarray(found)
        away = np.log10(embedding_rate) - self.log_embedding_rate
        return np.asarray(found + self.embedding_cost * np.where(away < 0, 1, 2) * away**2)

    def cost(self, params: Mapping[str, Any]) -> float:
        """Percent above `base_loss` of one configuration, by the names of a search space."""
        rate = np.float64(params["learning_rate"])
        ratio = params.get("embedding_lr_ratio")
        embedding_rate = None if ratio is None else rate * np.float64(ratio)
        return float(self.costs(*self._arguments(params), embedding_rate))

    def decades_above_cliff(self, params: Mapping[str, Any]) -> float:
        """How far a configuration lies above the cliff; negative below it, -inf without one."""
        return float(self.decades(*self._arguments(params)) - self.shape.cliff)

    def loss(self, params: Mapping[str, Any]) -> float:
        """Expected loss of a full run in nats per token."""
        return self.base_loss * (1 + self.cost(params) / 100)

    def _arguments(self, params: Mapping[str, Any]) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        name = str(params.get("lr_scheduler_type", "linear"))
        return (
            np.asarray(params["learning_rate"], dtype=float),
            np.asarray(SCHEDULERS.index(name), dtype=float),
            np.asarray(params.get("warmup_ratio", USUAL_WARMUP), dtype=float),
            np.asarray(params.get("lora_r", self.best_rank), dtype=float),
        )


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """A surface of given costs: every new configuration takes the next one, the first (the best) costs 0.

    For errors and power at chosen distances, where nothing depends on a configuration's values.
    """

    costs: tuple[float, ...]
    """Percent of `base_loss`, taken in turn."""
    nearness: tuple[float, ...] = (0.0,)
    """Decades below the cliff, taken in turn: what `noise.py` needs to make some arms noisier."""
    base_loss: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", {})
        object.__setattr__(self, "_next", itertools.count())

    def _index(self, params: Mapping[str, Any]) -> int:
        key = tuple(sorted((name, repr(value)) for name, value in params.items()))
        known: dict[Any, int] = self.__dict__["_known"]
        if key not in known:
            known[key] = next(self.__dict__["_next"])
        return known[key]

    def cost(self, params: Mapping[str, Any]) -> float:
        index = self._index(params)
        return self.costs[(index - 1) % len(self.costs)] if index else 0.0

    def decades_above_cliff(self, params: Mapping[str, Any]) -> float:
        index = self._index(params)
        return -self.nearness[(index - 1) % len(self.nearness)] if index else -np.inf

    def loss(self, params: Mapping[str, Any]) -> float:
        return self.base_loss * (1 + self.cost(params) / 100)
