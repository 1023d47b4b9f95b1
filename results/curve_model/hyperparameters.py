"""What all models share: the shape of the curve, how far models depart from it, how noisy a run is."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, dataclass, fields
from functools import lru_cache
from pathlib import Path

FITTED = Path(__file__).with_name("fitted.json")


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Losses are 100 times the log of nats, about percent; rates log10; ranks log2; `log_*` are natural."""

    slope: float
    """Mean fall of the loss per decade of the rate, far below the best rate."""
    log_slope_spread: float
    """How much models differ in it."""
    rise_rate: float
    """Where the rise on the right has cost 1%, at rank 16; log10."""
    log_rise_rate_spread: float
    """How much models differ in it; their distribution has heavy tails (t with 3 degrees)."""
    steepness: float
    """Powers of e by which the rise grows per decade."""
    rise_per_rank: float
    """Decades by which the rise starts later when the rank doubles."""
    log_departure: float
    """How far a model departs from slope and rise, at MIDDLE_RATE."""
    departure_growth: float
    """Growth of the departure per decade (natural log): the right side differs more between models."""
    log_rate_length: float
    """Length in decades over which a departure changes."""
    log_rank_length: float
    """The same for the rank, in doublings."""
    logit_common: float
    """Share of a departure that all ranks have in common (logit)."""
    log_noise: float
    """Noise of a run at LOW_RATE and below."""
    noise_growth: float
    """Growth of the noise per decade above it (natural log)."""

    @classmethod
    def of(cls, values: object) -> Hyperparameters:
        """From numbers in the order of the fields."""
        return cls(**dict(zip(NAMES, map(float, values), strict=True)))  # type: ignore[call-overload]

    def values(self) -> tuple[float, ...]:
        """In the order of the fields."""
        return astuple(self)

    def to_dict(self) -> dict[str, float]:
        """Rounded to 4 digits behind the point: more changes no interval that is shown."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


NAMES = tuple(field.name for field in fields(Hyperparameters))

START = Hyperparameters(
    slope=3.5,
    log_slope_spread=0.7,
    rise_rate=-2.9,
    log_rise_rate_spread=-1.6,
    steepness=4.5,
    rise_per_rank=0.04,
    log_departure=-0.7,
    departure_growth=1.0,
    log_rate_length=-0.5,
    log_rank_length=1.1,
    logit_common=0.0,
    log_noise=-3.2,
    noise_growth=1.0,
)
"""Where a fit starts, and the middle of the weak prior that keeps it finite."""

PRIOR_SPREAD = (3, 1, 0.5, 1, 2, 0.1, 1.5, 1, 0.7, 1, 2, 1, 1.5)
"""Standard deviations of that prior, in the order of the fields."""


@lru_cache(maxsize=1)
def fitted() -> Hyperparameters:
    """Fitted on the published table of `results/reference/published-lora-sft.md`, all 12 models."""
    return Hyperparameters(**json.loads(FITTED.read_text(encoding="utf-8"))["all"])


def fitted_without(model: str) -> Hyperparameters:
    """The same without one model of that table. KeyError when it has no such model."""
    return Hyperparameters(**json.loads(FITTED.read_text(encoding="utf-8"))["without"][model])
