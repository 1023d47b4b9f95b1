"""A model's curve, given its runs: differences between any two rates and ranks, and the best rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from results.curve_model.hyperparameters import Hyperparameters
from results.curve_model.points import CurvePoints
from results.curve_model.shape import Grid, covariance, grid_of, mean, noise

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[np.float64]]

TAIL_DEGREES = 4.0
"""Degrees of freedom of the noise: a run may lie far off."""
REWEIGHTINGS = 3


@dataclass(frozen=True)
class Difference:
    """How much higher the curve lies at one place than at another; a mixture of normals, in percent of the
    log loss."""

    weights: Array
    means: Array
    spreads: Array

    def at_most(self, value: float) -> float:
        """The probability that the difference is at most `value`."""
        from scipy.special import ndtr

        return float((self.weights * ndtr((value - self.means) / self.spreads)).sum())

    def quantile(self, probability: float) -> float:
        """The value that the difference stays below with this probability."""
        from scipy.optimize import brentq

        low = float((self.means - 9 * self.spreads).min())
        high = float((self.means + 9 * self.spreads).max())
        return float(brentq(lambda value: self.at_most(value) - probability, low, high, xtol=1e-5))


class CurvePosterior:
    """The curve of one model, given its points."""

    def __init__(self, h: Hyperparameters, points: CurvePoints) -> None:
        # Around the mean, which leaves less to the level.
        centred = CurvePoints(rate=points.rate, rank=points.rank, loss=points.loss - points.loss.mean())
        self._h, self._points, self._grid, self._centre = h, centred, grid_of(h), float(points.loss.mean())
        self.run_weights = np.ones(len(points))
        for _ in range(REWEIGHTINGS):
            self._factorize()
            means, spreads = self._at(points.rate, points.rank)
            square = (self._points.loss - means) ** 2 + np.einsum("sii->si", spreads)[:, None, :]
            expected = np.einsum("hs,shn->n", self.shares, square)
            self.run_weights = (TAIL_DEGREES + 1) / (TAIL_DEGREES + expected / noise(h, points.rate) ** 2)
        self._factorize()

    def _factorize(self) -> None:
        h, points = self._h, self._points
        found = evidence(h, self._grid, points.rate, points.rank, points.loss, self.run_weights)
        self._factor, self._whitened, logs = found
        logs -= np.logaddexp.reduce(logs, axis=None)
        self.shares = np.exp(logs)  # (H, S): the weight of each cell of the grids

    def _at(self, rate: Array, rank: Array) -> tuple[Array, Array]:
        """Means (S, H, m) and covariances (S, m, m) of the curve."""
        h, points = self._h, self._points
        across = covariance(h, self._grid, points.rate, points.rank, rate, rank)
        solved = np.linalg.solve(self._factor, across)  # (S, n, m)
        means = mean(h, self._grid, rate, rank) + self._whitened.swapaxes(-1, -2) @ solved
        prior = covariance(h, self._grid, rate, rank, rate, rank)
        return means, prior - solved.swapaxes(-1, -2) @ solved

    def differences(self, rate: Array, rank: Array) -> list[Difference]:
        """Each place but the last against the last."""
        means, spreads = self._at(rate, rank)
        variances = np.einsum("sii->si", spreads)
        found = []
        for index in range(len(rate) - 1):
            variance = variances[:, index] + variances[:, -1] - 2 * spreads[:, index, -1]
            centre = means[:, :, index] - means[:, :, -1]  # (S, H)
            spread = np.sqrt(np.maximum(variance, 1e-8))[:, None].repeat(centre.shape[1], axis=1)
            keep = self.shares.T > 1e-9
            found.append(Difference(self.shares.T[keep], centre[keep], spread[keep]))
        return found

    def expected(self, rate: Array, rank: Array) -> Array:
        """The mean of the curve at each place."""
        means, _ = self._at(rate, rank)
        expected: Array = np.einsum("hs,shm->m", self.shares, means)
        return self._centre + expected

    def draws(self, rate: Array, rank: Array, count: int, seed: int = 0) -> Array:
        """Curves drawn from the posterior: (count, m)."""
        rng = np.random.default_rng(seed)
        means, spreads = self._at(rate, rank)
        cells = rng.choice(self.shares.size, size=count, p=self.shares.ravel() / self.shares.sum())
        places, pairs = np.unravel_index(cells, self.shares.shape)
        values, vectors = np.linalg.eigh(spreads)
        roots = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]  # (S, m, m)
        normal = rng.standard_normal((count, len(rate)))
        departures: Array = np.einsum("cij,cj->ci", roots[pairs], normal)
        return self._centre + means[pairs, places] + departures


def evidence(
    h: Hyperparameters, grid: Grid, rate: Array, rank: Array, loss: Array, weights: Array
) -> tuple[Array, Array, Array]:
    """Cholesky factors (..., S, n, n), whitened residuals (..., S, n, H), log evidence (..., H, S).

    Of one model (n,) or several padded to one length (..., n), where weight 0 marks a point that is none.
    Losses are around 0.
    """
    variance = noise(h, rate) ** 2 / np.where(weights > 0, weights, 1e-12)
    inner = covariance(h, grid, rate, rank, rate, rank)
    diagonal = grid.noises[:, None] ** 2 * variance[..., None, :]  # (..., S, n)
    n = rate.shape[-1]
    inner[..., np.arange(n), np.arange(n)] += diagonal
    factor = np.asarray(np.linalg.cholesky(inner), dtype=np.float64)
    present = weights > 0
    residual = loss[..., None, :] - mean(h, grid, rate, rank)
    residual = np.where(present[..., None, :], residual, 0.0)
    residual = residual.swapaxes(-1, -2)[..., None, :, :]
    whitened = np.asarray(np.linalg.solve(factor, residual), dtype=np.float64)
    size = np.log(np.einsum("...ii->...i", factor))
    size = np.where(present[..., None, :], size, 0.0).sum(-1)  # (..., S)
    logs = -0.5 * (whitened**2).sum(-2) - size[..., None]  # (..., S, H)
    logs += grid.log_scales[:, None] + grid.log_rises
    transposed: Array = logs.swapaxes(-1, -2)
    return factor, whitened, transposed
