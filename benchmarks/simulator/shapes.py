"""Loss against the learning rate: percent above the lowest, by decades from the best rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
MOST_PERCENT = 150.0
"""Far beyond the cliff the loss is that of a model that has unlearned its language."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One curve; `cliff` is where, in decades above the best rate, noise and divergence begin."""

    name: str
    cost: Callable[[Numbers], Numbers]
    cliff: float = math.inf


def cliff(*, left: float = 4.0, right: float = 6.0, at: float = 0.55, width: float = 0.08) -> Shape:
    """Two half parabolas (percent per square decade), then an exponential rise."""

    def cost(u: Numbers) -> Numbers:
        beyond = np.clip((u - at) / width, 0, 8)
        return np.minimum(np.where(u < 0, left, right) * u**2 + 0.5 * np.expm1(beyond), MOST_PERCENT)

    return Shape(name="cliff", cost=cost, cliff=at)


def bowl(*, curvature: float = 6.0) -> Shape:
    """The same on both sides, without a cliff."""
    return Shape(name="bowl", cost=lambda u: curvature * u**2)


def plateau(*, half_width: float = 0.4, left: float = 6.0, width: float = 0.05) -> Shape:
    """Flat up to the cliff."""

    def cost(u: Numbers) -> Numbers:
        below = np.clip(-half_width - u, 0, None)
        beyond = np.clip((u - half_width) / width, 0, 8)
        return np.minimum(left * below**2 + 0.5 * np.expm1(beyond), MOST_PERCENT)

    return Shape(name="plateau", cost=cost, cliff=half_width)


def two_basins(*, apart: float = 1.1, deeper: float = 0.3, curvature: float = 8.0) -> Shape:
    """A second minimum `apart` decades below the best, `deeper` percent worse than it."""

    def cost(u: Numbers) -> Numbers:
        return np.minimum(curvature * u**2, deeper + curvature * (u + apart) ** 2)

    return Shape(name="two basins", cost=cost, cliff=0.7)


def narrow(*, curvature: float = 60.0) -> Shape:
    """A tenth of a decade costs more than the usual margin."""
    return Shape(name="narrow", cost=lambda u: np.minimum(curvature * u**2, MOST_PERCENT), cliff=0.5)


def flat(*, curvature: float = 0.1) -> Shape:
    """The rate hardly matters."""
    return Shape(name="flat", cost=lambda u: curvature * u**2)
