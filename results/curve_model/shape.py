"""The model of a curve: a fall, a rise, departures from both, and the noise of a run.

    100 ln(loss) = level - slope (x - x0) + exp(steepness (x - rise_rate - rise_per_rank z)) + departure(x, z)

with x the log10 rate and z the doublings of the rank above 16. Level and slope are Gaussian; so is the
departure, a process (Matern 5/2 in x) whose size grows with the rate. Where the rise begins and how far a
model departs are not: those are summed over grids (`Grid`), with heavy tails, since the next model may be
unlike those that the hyperparameters were fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from results.curve_model.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[np.float64]]

MIDDLE_RATE = -3.5
LOW_RATE = -4.4
"""4e-5: below, runs are not quieter."""
LEVEL_SPREAD = 30.0
"""Next to nothing is known of a model's level beforehand."""
LEAST_NOISE = 0.01
"""Losses are rounded."""
MOST_RISE = 90.0
"""Percent; a rise beyond is a run that diverged."""
UNLIKE = 0.2
"""Prior share of models whose rise begins somewhere else altogether."""
UNLIKE_DECADES = 0.7
"""How far away, as a standard deviation."""
STEEPER = ((1.0, 0.6), (1.8, 0.2), (3.2, 0.2))
"""(factor on the steepness, prior weight): a cliff costs nothing until it costs everything."""
BEND = 0.5
"""Standard deviation of the fall's curvature, in percent per square decade."""
SCALE_SPREAD = 0.6
"""How much models differ in the size of their departures (natural log). Not fitted: a few models do not show
how unlike them the next one can be."""
EXCESS_NOISE = ((1.0, 0.85), (4.0, 0.12), (16.0, 0.03))
"""(factor on the noise, prior weight): in a sweep that varies other settings too, they act as noise."""


@dataclass(frozen=True)
class Grid:
    """Values that are summed over, with the logs of their prior weights."""

    rise_rates: Array  # (H,)
    steepness: Array
    log_rises: Array
    scales: Array  # (S,) of slope and departure, relative
    noises: Array  # (S,) factors
    log_scales: Array


def grid_of(h: Hyperparameters) -> Grid:
    """The grids of one set of hyperparameters: rises (H) by place and steepness; the rest (S)."""
    spread = math.exp(h.log_rise_rate_spread)
    u = np.linspace(-1, 1, 31)
    decades = 1.6 * np.sinh(4 * u) / np.sinh(4)  # dense near the middle
    width = np.cosh(4 * u)
    usual = (1 + (decades / spread) ** 2 / 3) ** -2
    unlike = np.exp(-((decades / UNLIKE_DECADES) ** 2) / 2)
    usual, unlike = (each * width / (each * width).sum() for each in (usual, unlike))
    steps = np.linspace(-2, 5, 8)
    scale_weights = (1 + steps**2 / 3) ** -2
    scales = list(zip(np.exp(SCALE_SPREAD * steps), scale_weights / scale_weights.sum(), strict=True))
    places = list(zip(decades, (1 - UNLIKE) * usual + UNLIKE * unlike, strict=True))
    (place, steeper), log_rises = _crossed(places, STEEPER)
    (scale, excess), log_scales = _crossed(scales, EXCESS_NOISE)
    return Grid(
        rise_rates=h.rise_rate + place,
        steepness=h.steepness * steeper,
        log_rises=log_rises,
        scales=scale,
        noises=excess,
        log_scales=log_scales,
    )


def _crossed(*axes: Sequence[tuple[float, float]]) -> tuple[Array, Array]:
    """(value, weight) of several axes -> every combination: values (axes, cells), log weights (cells)."""
    cells = np.array(list(product(*axes)))  # (cells, axes, 2)
    return cells[:, :, 0].T, np.log(cells[:, :, 1]).sum(axis=1)


def mean(h: Hyperparameters, grid: Grid, rate: Array, rank: Array) -> Array:
    """The shared curve for every place of the rise: (..., n) points -> (..., H, n)."""
    shift = rate - h.rise_per_rank * (rank - 4)
    exponent = grid.steepness[:, None] * (shift[..., None, :] - grid.rise_rates[:, None])
    rise = np.exp(np.minimum(exponent, math.log(MOST_RISE)))
    return rise - h.slope * (rate - MIDDLE_RATE)[..., None, :]


def covariance(h: Hyperparameters, grid: Grid, rate: Array, rank: Array, rate2: Array, rank2: Array) -> Array:
    """Between two sets of points of a model, noise not included: (..., n), (..., m) -> (..., S, n, m)."""
    x, y = rate[..., :, None], rate2[..., None, :]
    far = math.sqrt(5) * np.abs(x - y) / math.exp(h.log_rate_length)
    along_rate = (1 + far + far**2 / 3) * np.exp(-far)
    doublings = (rank[..., :, None] - rank2[..., None, :]) / math.exp(h.log_rank_length)
    common = 1 / (1 + math.exp(-h.logit_common))
    along_rank = common + (1 - common) * np.exp(-(doublings**2) / 2)
    size = np.exp(2 * h.log_departure + h.departure_growth * (x + y - 2 * MIDDLE_RATE))
    product_ = (x - MIDDLE_RATE) * (y - MIDDLE_RATE)
    varying = size * along_rate * along_rank
    varying += math.exp(2 * h.log_slope_spread) * product_ + BEND**2 * product_**2
    return grid.scales[:, None, None] ** 2 * varying[..., None, :, :] + LEVEL_SPREAD**2


def noise(h: Hyperparameters, rate: Array) -> Array:
    """Standard deviation of a run."""
    return LEAST_NOISE + np.exp(h.log_noise + h.noise_growth * np.maximum(rate - LOW_RATE, 0.0))
