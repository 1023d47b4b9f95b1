"""Models whose true curve is known, and unlike the curve model's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from results.curve_model.points import CurvePoints

Rng = np.random.Generator
Curve = Callable[[float, float], float]
"""(log10 rate, log2 rank) -> percent."""

RATES = (4e-5, 1e-4, 3e-4, 1e-3, 3e-3)
RANKS = (4, 16, 64, 128)
DIVERGES = 15.0
"""Percent above the best, where a run is missing as in published tables."""


def quadratic(rng: Rng) -> Curve:
    """A parabola in the log of the rate; the best rate rises with the rank."""
    best, shift, width = rng.uniform(-4, -2.7), rng.uniform(0, 0.08), rng.uniform(1.5, 6)
    return lambda x, z: float(width * (x - best - shift * (z - 4)) ** 2)


def hinge(rng: Rng) -> Curve:
    """Two lines: a gentle fall and a steep rise."""
    best, shift = rng.uniform(-3.8, -2.7), rng.uniform(0, 0.08)
    fall, rise = rng.uniform(1, 7), rng.uniform(6, 25)

    def curve(x: float, z: float) -> float:
        far = x - best - shift * (z - 4)
        return float(rise * far if far > 0 else -fall * far)

    return curve


def plateau(rng: Rng) -> Curve:
    """A fall that levels off, and a cliff."""
    height, fall, cliff = rng.uniform(1, 5), rng.uniform(1.5, 3), rng.uniform(-3.4, -2.4)
    shift = rng.uniform(0, 0.08)
    return lambda x, z: float(
        height * np.exp(-fall * (x + 4.4)) + 0.5 * np.exp(6 * (x - cliff - shift * (z - 4)))
    )


def wavy(rng: Rng) -> Curve:
    """A parabola with waves of some tenths of a percent, which differ between the ranks."""
    base, size, phase = quadratic(rng), rng.uniform(0.1, 0.3), rng.uniform(0, 6)
    return lambda x, z: base(x, z) + float(size * np.sin(6 * x + phase) * (1 + 0.2 * (z - 4)))


SHAPES: Mapping[str, Callable[[Rng], Curve]] = {
    "parabola": quadratic,
    "two lines": hinge,
    "plateau and cliff": plateau,
    "parabola with waves": wavy,
}


def simulate(shape: str, rng: Rng) -> tuple[CurvePoints, dict[tuple[float, float], float]]:
    """One model's runs, with noise that rises with the rate and has heavy tails (t, 3 degrees), and its true
    curve at their places. Runs that diverge are missing, and one in twelve of the others."""
    curve = SHAPES[shape](rng)
    ranks = RANKS if rng.random() < 0.5 else RANKS[: rng.integers(2, 4)]
    rates = RATES[: rng.integers(4, 6)]
    places = [(float(np.log10(rate)), float(np.log2(rank))) for rate in rates for rank in ranks]
    best = min(curve(*place) for place in places)
    level = 100 * np.log(rng.uniform(0.45, 1.2))
    truth: dict[tuple[float, float], float] = {}
    runs: list[tuple[float, float, float]] = []
    for x, z in places:
        true = curve(x, z)
        if true - best > DIVERGES or rng.random() < 1 / 12:
            continue
        truth[x, z] = true
        spread = 0.03 * np.exp(1.6 * (x + 4.4))
        for _ in range(2 if x < -4.3 and rng.random() < 0.7 else 1):
            nats = np.exp((level + true + spread * rng.standard_t(3)) / 100)
            runs.append((x, z, 100 * float(np.log(round(float(nats), 4)))))
    columns: Any = np.array(runs).T
    return CurvePoints(rate=columns[0], rank=columns[1], loss=columns[2]), truth
