"""Runs as points of a curve: learning rate, LoRA rank, loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

USUAL_RANK = 16.0
"""Rank of runs that do not say theirs: equal in all of them, it has no effect on a difference."""

LEAST_RATES = 3
"""With fewer rates the curve would be that of other models."""

SAME_RATE = 1.05
"""Rates within this factor of each other count as one: they cannot show where the loss falls."""

NEAR_DIVERGENCE = 0.2
"""A run at a higher rate than the best whose loss is above the lowest by more than this (natural log) is no
point of the curve: near divergence it says that the rate is too high, and nothing about the rest."""


@dataclass(frozen=True, kw_only=True)
class CurvePoints:
    """Runs of one model that differ in learning rate and rank alone; arrays of one length."""

    rate: Array
    """log10 of the learning rate."""
    rank: Array
    """log2 of the rank."""
    loss: Array
    """100 times the natural log of the loss, so that a difference of 1 is about 1%."""
    near_divergence: int = 0
    """Runs that were left out."""

    def __len__(self) -> int:
        return len(self.rate)

    def where(self, kept: Sequence[bool]) -> CurvePoints:
        """The points for which `kept` holds."""
        indices = [index for index, keep in enumerate(kept) if keep]
        return CurvePoints(rate=self.rate[indices], rank=self.rank[indices], loss=self.loss[indices])


def places(configs: Iterable[Mapping[str, Any]]) -> tuple[Array, Array]:
    """log10 rates and log2 ranks of configs, whether they ran or not."""
    import numpy as np  # here: `sweeps status` does not wait for numpy

    values = list(configs)
    rate = np.log10([float(config["learning_rate"]) for config in values])
    rank = np.log2([float(config.get("lora_r") or USUAL_RANK) for config in values])
    return rate, rank


def num_rates(rates: Iterable[float]) -> int:
    """How many rates are SAME_RATE or farther apart."""
    kept: list[float] = []
    for rate in sorted(rates):
        if not kept or rate >= kept[-1] * SAME_RATE:
            kept.append(rate)
    return len(kept)


def points_of(runs: Iterable[tuple[Mapping[str, Any], float]]) -> CurvePoints:
    """(config, loss in nats) as points, without runs near divergence. Losses must be above 0."""
    import numpy as np

    found = list(runs)
    losses = np.array([loss for _, loss in found])
    if not len(losses) or losses.min() <= 0:
        raise ValueError(f"a curve needs losses above 0; got {sorted(losses)[:1]}")
    rates = np.array([float(config["learning_rate"]) for config, _ in found])
    near = (np.log(losses / losses.min()) > NEAR_DIVERGENCE) & (rates > rates[losses.argmin()])
    kept = [config for (config, _), out in zip(found, near, strict=True) if not out]
    rate, rank = places(kept)
    return CurvePoints(
        rate=rate, rank=rank, loss=100 * np.log(losses[~near]), near_divergence=int(near.sum())
    )
