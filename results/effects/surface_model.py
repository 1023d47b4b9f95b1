"""A model of the loss over the searched hyperparameters: Gaussian processes, averaged over their settings.

One process for each coordinate, one for each of them together with the first (the rate: what is best of the
others shifts with it), and a weak one over all. The settings (how far each process reaches, how much it moves
the loss) are not chosen but averaged over, weighted by how well they explain the losses, so that few trials
give wide intervals and no lucky fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

_DRAWS = 384
"""Settings drawn from the prior, and again from what the first ones show."""
_SAMPLES = 4000
"""Draws of the loss at a point and at the reference, from which intervals are read."""
_SEED = 20_151
_SHAPE = 2.0
"""Of the inverse gamma prior of the common scale."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The loss at a point minus that at the reference, in the unit of the losses."""

    middle: float
    """The median of what is plausible."""
    low: float
    high: float
    """Ends of the 95% interval."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Many settings at once: the first axis of every array."""

    reach: Array  # (s, d)
    size: Array  # (s, d): variance of each coordinate's process
    pair: Array  # (s, d): of each together with the first
    noise: Array  # (s,)
    joint: Array  # (s,): of the one over all coordinates
    joint_reach: Array  # (s,)

    def at(self, index: NDArray[np.intp]) -> _Settings:
        return _Settings(**{name: values[index] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """What the losses say under each of the settings."""

    inverse: Array  # (s, n, n) of the covariance
    log_det: Array
    precision: Array  # of the mean
    mean: Array
    centred: Array  # (s, n)
    square: Array


class SurfaceModel:
    """The losses of trials as a function of their coordinates, each about 0 to 1; nan: the trial has none."""

    def __init__(self, coordinates: Array, losses: Array, *, is_name: Array) -> None:
        """`coordinates` (n, d), `losses` (n,); `is_name` (d,) is 1 for codes of names, not ordered."""
        self._x = coordinates
        self._is_name = is_name.astype(bool)
        # Near a cliff losses are many times those of the flat side: here they only say "much worse".
        excess = losses - losses.min()
        positive = excess[excess > 0]
        self._unit = float(np.median(positive)) if len(positive) else 1.0
        self._y = np.log1p(excess / self._unit)
        self._settings, self._weights = self._fit()

    def differences(self, points: Array, reference: Array) -> list[Difference]:
        """The loss at each of the points (m, d) minus the loss at the reference (d,)."""
        rng = np.random.default_rng(_SEED + 1)
        used, counts = np.unique(_systematic(self._weights, _SAMPLES), return_counts=True)
        kept = self._settings.at(used)
        everything = np.concatenate([reference[None, :], points])
        fitted = self._fitted(kept)
        cross = self._kernel(kept, everything, self._x)  # (s, 1 + m, n)
        solved = cross @ fitted.inverse
        at = fitted.mean[:, None] + np.einsum("spk,sk->sp", solved, fitted.centred)
        own = (kept.size.sum(1) + kept.pair.sum(1) + kept.joint)[:, None]
        variance = np.maximum(own - np.einsum("spk,spk->sp", solved, cross), 1e-9)
        together = self._kernel(kept, everything, reference[None, :])[..., 0]
        shared = together - np.einsum("spk,sk->sp", solved, cross[:, 0])
        # One pair of normals and one scale for each draw, the same for every point.
        rows = np.repeat(np.arange(len(used)), counts)
        scale = (2 * _SHAPE + fitted.square)[rows] / rng.chisquare(len(self._y) - 1 + 2 * _SHAPE, _SAMPLES)
        normal, other = rng.standard_normal((2, _SAMPLES)) * np.sqrt(scale)
        reference_loss = _loss(at[rows, 0] + np.sqrt(variance[rows, 0]) * normal)
        found = []
        for index in range(1, len(everything)):
            slope = shared[rows, index] / np.sqrt(variance[rows, 0])
            rest = np.sqrt(np.maximum(variance[rows, index] - slope**2, 0.0))
            change = _loss(at[rows, index] + slope * normal + rest * other) - reference_loss
            low, middle, high = self._unit * np.quantile(change, (0.025, 0.5, 0.975))
            found.append(Difference(middle=float(middle), low=float(low), high=float(high)))
        return found

    def _fit(self) -> tuple[_Settings, Array]:
        """Settings with their weights: from the prior, then from around those that explain the losses."""
        rng = np.random.default_rng(_SEED)
        width = 3 * self._x.shape[1] + 3
        first = rng.standard_normal((_DRAWS, width))
        likelihood = self._likelihood(_settings(first, self._is_name))
        weights = _weights(likelihood)
        centre = weights @ first
        spread = 1.3 * np.sqrt(weights @ (first - centre) ** 2 + 0.15**2)
        second = centre + spread * rng.standard_normal((_DRAWS, width))
        draws = np.concatenate([first, second])
        likelihood = np.concatenate([likelihood, self._likelihood(_settings(second, self._is_name))])
        prior = -0.5 * (draws**2).sum(1)
        around = -0.5 * (((draws - centre) / spread) ** 2).sum(1) - np.log(spread).sum()
        return _settings(draws, self._is_name), _weights(likelihood + prior - np.logaddexp(prior, around))

    def _likelihood(self, settings: _Settings) -> Array:
        """Log probability of the losses, with their mean and common scale integrated out."""
        fitted = self._fitted(settings)
        power = _SHAPE + (len(self._y) - 1) / 2
        known = -0.5 * (fitted.log_det + np.log(fitted.precision))
        found: Array = known - power * np.log(_SHAPE + fitted.square / 2)
        return found

    def _fitted(self, settings: _Settings) -> _Fitted:
        size = len(self._y)
        covariance = self._kernel(settings, self._x, self._x) + settings.noise[:, None, None] * np.eye(size)
        inverse: Array = np.linalg.inv(covariance)
        row_sums = inverse.sum(2)
        precision = row_sums.sum(1)
        mean = row_sums @ self._y / precision
        centred = self._y[None, :] - mean[:, None]
        return _Fitted(
            inverse=inverse,
            log_det=np.linalg.slogdet(covariance)[1],
            precision=precision,
            mean=mean,
            centred=centred,
            square=np.einsum("sn,snk,sk->s", centred, inverse, centred),
        )

    def _kernel(self, settings: _Settings, left: Array, right: Array) -> Array:
        """Covariance of each of `left` (m, d) with each of `right` (n, d): (s, m, n)."""
        gap = left[:, None, :] - right[None, :, :]
        has_one = np.isnan(left)[:, None, :] != np.isnan(right)[None, :, :]
        gap = np.where(self._is_name, gap != 0, np.nan_to_num(gap))
        shape = (len(settings.noise), *gap.shape[:2])
        alone, pairs, together, rate = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.ones(shape)
        for index in range(gap.shape[2]):
            square = (gap[..., index] / settings.reach[:, index, None, None]) ** 2
            square = np.where(has_one[..., index], _WITHOUT, square)
            near = _near(square)
            alone += settings.size[:, index, None, None] * near
            if index == 0:
                rate = near
            else:
                pairs += settings.pair[:, index, None, None] * near
            together += square
        joint = _near(together / settings.joint_reach[:, None, None] ** 2)
        found: Array = alone + rate * pairs + settings.joint[:, None, None] * joint
        return found


def _near(square: Array) -> Array:
    """Matern's covariance of order 3/2: a loss may have a kink, as it has at a cliff."""
    distance = np.sqrt(3 * square)
    found: Array = (1 + distance) * np.exp(-distance)
    return found


_WITHOUT = 4.0
"""Squared distance between a trial that has a hyperparameter and one that has none."""


def _settings(draws: Array, is_name: NDArray[np.bool_]) -> _Settings:
    """From standard normals (s, 3 d + 3): what is plausible before any loss was seen.

    The first coordinate, the rate, is expected to move the loss most.
    """
    width = (draws.shape[1] - 3) // 3
    reach = 0.35 * np.exp(0.5 * draws[:, :width])
    reach[:, is_name] = 0.7
    size = np.exp(1.5 * draws[:, width : 2 * width])
    size[:, 1:] *= 0.15
    pair = 0.5 * np.exp(1.2 * draws[:, 2 * width : 3 * width])
    pair[:, 0] = 0.0
    return _Settings(
        reach=reach,
        size=size,
        pair=pair,
        noise=0.04 * np.exp(1.5 * draws[:, -1]),
        joint=0.1 * np.exp(draws[:, -2]),
        joint_reach=1.5 * np.exp(0.4 * draws[:, -3]),
    )


def _loss(scaled: Array) -> Array:
    """From the scale of the fit back to losses; what it says of "much worse" stays finite."""
    return np.expm1(np.minimum(scaled, 30.0))


def _weights(logs: Array) -> Array:
    found = np.exp(logs - logs.max())
    shares: Array = found / found.sum()
    return shares


def _systematic(weights: Array, count: int) -> NDArray[np.intp]:
    """`count` indices, each as often as its weight says."""
    places = (np.arange(count) + 0.5) / count
    return np.minimum(np.searchsorted(np.cumsum(weights), places), len(weights) - 1)
