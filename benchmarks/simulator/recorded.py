"""Recorded learning curves of real trials as sweeps to search: interpolated, with their own scatter."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from benchmarks.harness.report import FOLDER
from benchmarks.simulator.curves import Curve
from search_spaces import Dimension, SearchSpace
from sweeps.study.curve_gp.features import params_of

CURVES = FOLDER / "demo-curves.csv"
"""Written by `python -m benchmarks.record_curves`."""
PARAMETERS = ("learning_rate", "lr_scheduler_type", "warmup_ratio", "embedding_lr_ratio", "lora_r")
SCHEDULERS = ("constant", "linear", "cosine")
RANKS = (4, 16, 64)
LEARNING_RATES = (3e-4, 3e-2)
RATIOS = (0.02, 1.0)
MOST_WARMUP = 0.2
DEFAULTS: Mapping[str, Any] = {
    "learning_rate": 3e-4,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.1,
    "embedding_lr_ratio": 0.25,
    "lora_r": 16,
}
NEIGHBOURS = 8
"""Recorded trials one of which gives a new one its scatter."""
WIDTHS = np.array([0.08, 0.6, 0.6, 0.6, 3.0, 0.1, 0.8])
"""Of the weights, by coordinate, in shares of its range: near those of the least leave-one-out error."""
_RATE, _EMBEDDING_RATE = 0, 5
_RIDGE = 0.02
"""Of the local slopes, which few neighbours determine."""
_GRID = 4096

Floats = NDArray[np.float64]


def recorded_space(num_dimensions: int) -> SearchSpace:
    """The space of the recording; with 3 dimensions the embedding ratio and the rank are fixed."""
    dimensions = [
        _of("learning_rate", *LEARNING_RATES, log=True),
        Dimension(
            name="lr_scheduler_type",
            kind="categorical",
            choices=SCHEDULERS,
            default=DEFAULTS["lr_scheduler_type"],
        ),
        _of("warmup_ratio", 0.0, MOST_WARMUP, active_when=("lr_scheduler_type", SCHEDULERS[1:])),
    ]
    if num_dimensions == 5:
        dimensions += [
            _of("embedding_lr_ratio", *RATIOS, log=True),
            Dimension(name="lora_r", kind="categorical", choices=RANKS, default=DEFAULTS["lora_r"]),
        ]
    return SearchSpace(dimensions=tuple(dimensions))


def _of(name: str, low: float, high: float, **more: Any) -> Dimension:
    return Dimension(name=name, kind="float", low=low, high=high, default=DEFAULTS[name], **more)


@dataclass(frozen=True)
class RecordedCurves:
    """Trials that were trained: their points, and their losses at `percents`.

    A mean curve at any point is a local fit to the recorded ones, weighted by distance: quadratic in the two
    learning rates (log), linear in the others.
    """

    points: Floats
    """(trials, coordinates), in 0..1."""
    losses: Floats
    """(trials, percents); nats per token."""
    percents: tuple[int, ...]

    @cached_property
    def scatter(self) -> Floats:
        """(trials, percents): recorded less what the others would have said, leave one out."""
        left_out = [self._fit(point, index) for index, point in enumerate(self.points)]
        return np.asarray(self.losses - np.array(left_out))

    def left_out_error(self, within_percent: float) -> float:
        """Percent, root mean square: the error at trials this near the lowest loss, each left out in turn."""
        ends = self.losses[:, -1]
        near = ends <= ends.min() * (1 + within_percent / 100)
        return float(100 * np.sqrt(np.mean((self.scatter[near, -1] / ends[near]) ** 2)))

    def mean(self, params: Mapping[str, Any]) -> Floats:
        """(percents): the interpolated curve."""
        return self._means(point_of(params)[None])[0]

    def nearest(self, params: Mapping[str, Any]) -> NDArray[np.int64]:
        """The recorded trials nearest to it."""
        squares = (((self.points - point_of(params)) / WIDTHS) ** 2).sum(1)
        return np.argsort(squares, kind="stable")[:NEIGHBOURS]

    def lowest(self, num_dimensions: int) -> float:
        """The lowest mean loss at the full budget, on a dense grid of this space."""
        if num_dimensions not in self._lowest:
            self._lowest[num_dimensions] = self._lowest_of(num_dimensions)
        return self._lowest[num_dimensions]

    @cached_property
    def _lowest(self) -> dict[int, float]:
        return {}

    def _lowest_of(self, num_dimensions: int) -> float:
        space = recorded_space(num_dimensions)
        shares = qmc.Sobol(len(space.dimensions), seed=0).random(_GRID)
        points = np.array([point_of(params_of(space, row.tolist())) for row in shares])
        return float(self._means(points)[:, -1].min())

    def _means(self, points: Floats) -> Floats:
        return np.array([self._fit(point, None) for point in points])

    def _fit(self, point: Floats, left_out: int | None) -> Floats:
        away = (self.points - point) / WIDTHS
        # Beyond all trials the nearest ones decide.
        squares = (away**2).sum(1)
        if left_out is not None:
            squares[left_out] = np.inf
        weight = np.exp(-0.5 * (squares - squares.min()))
        average = weight @ self.losses / weight.sum()
        rates = away[:, [_RATE, _EMBEDDING_RATE]]
        design = np.hstack([np.ones((len(away), 1)), away, rates**2, rates[:, :1] * rates[:, 1:]])
        weighted = (design * weight[:, None]).T
        left = weighted @ design
        slopes = np.arange(1, len(left))
        left[slopes, slopes] += _RIDGE * weight.sum()
        fitted = np.linalg.solve(left, weighted @ (self.losses - average))
        return np.asarray(average + fitted[0])


def point_of(params: Mapping[str, Any]) -> Floats:
    """Values as shares of the recording's ranges; without a rank or a ratio, those of `DEFAULTS`."""
    values = {**DEFAULTS, **params}
    scheduler = [float(values["lr_scheduler_type"] == name) for name in SCHEDULERS]
    rate = float(values["learning_rate"])
    embedding_rates = [of_adapter * ratio for of_adapter, ratio in zip(LEARNING_RATES, RATIOS, strict=True)]
    warmup = 0.0 if scheduler[0] else float(values["warmup_ratio"]) / MOST_WARMUP
    return np.array(
        [
            _share(rate, *LEARNING_RATES),
            *scheduler,
            warmup,
            _share(rate * float(values["embedding_lr_ratio"]), *embedding_rates),
            _share(float(values["lora_r"]), RANKS[0], RANKS[-1]),
        ]
    )


def _share(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low)


@cache
def read_curves(path: Path = CURVES) -> RecordedCurves:
    """The trials of a table of `benchmarks.record_curves`, without those that broke."""
    points, losses = [], []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if name.startswith("loss_")]
    for row in rows:
        if all(row[name] for name in columns):
            points.append(point_of({name: row[name] for name in PARAMETERS if row[name]}))
            losses.append([float(row[name]) for name in columns])
    percents = tuple(int(name.removeprefix("loss_")) for name in columns)
    return RecordedCurves(np.array(points), np.array(losses), percents)


@dataclass(frozen=True, kw_only=True)
class RecordedTrials:
    """A sweep over recorded curves: the mean curve of a configuration, with the scatter of one near it."""

    curves: RecordedCurves
    generator: np.random.Generator

    @property
    def report_at(self) -> tuple[int, ...]:
        return self.curves.percents

    def curve(self, params: Mapping[str, Any]) -> Curve:
        """A new run of this configuration."""
        like = int(self.generator.choice(self.curves.nearest(params)))
        losses = self.curves.mean(params) + self.curves.scatter[like]
        return Curve(losses=dict(zip(self.curves.percents, losses.tolist(), strict=True)))
