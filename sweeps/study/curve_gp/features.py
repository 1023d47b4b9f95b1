"""Hyperparameters as points of a Euclidean space in which conditional dimensions have a place of their own.

A numeric dimension is one coordinate in [0, 1], on its own scale (rates in log). A categorical one has a
coordinate for each choice. A conditional dimension has a coordinate that says whether it is active, and one
for its value that is 0, the middle, where it is not: two trials without warmup are equal in it, and one
without and one with warmup differ by the first coordinate, whatever the warmup. So every distance is one of
points, and any kernel of it is valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces import SearchSpace
from search_spaces.dimension import Dimension, Value

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """Turns the values of trials into points; coordinates of one group share a length scale."""

    dimensions: tuple[Dimension, ...]
    """Those with more than one value."""
    groups: tuple[int, ...]
    """For each coordinate."""

    @classmethod
    def of(cls, space: SearchSpace) -> Features:
        """The coordinates of a space."""
        dimensions = tuple(dimension for dimension in space.dimensions if not dimension.fixed)
        groups, group = list[int](), 0
        for dimension in dimensions:
            if dimension.active_when is not None:
                groups.append(group)
                group += 1
            groups += [group] * len(dimension.choices or (None,))
            group += 1
        return cls(dimensions, tuple(groups))

    @property
    def num_groups(self) -> int:
        return max(self.groups, default=-1) + 1

    def points(self, trials: Sequence[Mapping[str, Any]]) -> Floats:
        """(trials, coordinates)"""
        rows = [self._point(params) for params in trials]
        return np.array(rows, float).reshape(len(rows), len(self.groups))

    def _point(self, params: Mapping[str, Any]) -> list[float]:
        point = list[float]()
        for dimension in self.dimensions:
            is_active = dimension.name in params
            if dimension.active_when is not None:
                point.append(float(is_active))
            if dimension.choices is not None:
                # Two choices are as far apart as the ends of a range.
                value = params.get(dimension.name)
                point += [math.sqrt(0.5) * (is_active and value == choice) for choice in dimension.choices]
            else:
                point.append(to_unit(dimension, params[dimension.name]) - 0.5 if is_active else 0.0)
        return point


def to_unit(dimension: Dimension, value: float) -> float:
    """Where a number lies between the dimension's ends, 0..1; outside for one of an earlier, wider range."""
    low, high = dimension.bounds()
    if dimension.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def from_unit(dimension: Dimension, share: float) -> Value:
    """The dimension's value at a share 0..1 of its range, or of its choices."""
    if dimension.choices is not None:
        return dimension.choices[min(int(share * len(dimension.choices)), len(dimension.choices) - 1)]
    low, high = dimension.bounds()
    value = low * (high / low) ** share if dimension.log else low + share * (high - low)
    if share >= 1:  # exactly
        value = high
    step = dimension.step or (1 if dimension.kind == "int" else None)
    if step is not None:
        value = low + round((value - low) / step) * step
        value = value if value <= high else value - step
    # Clipped to the ends: exp(log(x)) can be just outside, which Optuna refuses.
    value = min(max(value, low), high)
    return int(value) if dimension.kind == "int" else value


def params_of(space: SearchSpace, shares: Sequence[float]) -> dict[str, Value]:
    """A trial's values from one share for each dimension of the space; no inactive ones."""
    params = dict[str, Value]()
    for dimension, share in zip(space.dimensions, shares, strict=True):
        if dimension.is_active(params):
            params[dimension.name] = dimension.default if dimension.fixed else from_unit(dimension, share)
    return params


def shares_of(space: SearchSpace, params: Mapping[str, Any]) -> list[float]:
    """The inverse of `params_of`; 0.5 for inactive dimensions."""
    shares = []
    for dimension in space.dimensions:
        value = params.get(dimension.name)
        if value is None or dimension.fixed:
            shares.append(0.5)
        elif dimension.choices is not None:
            index = dimension.choices.index(value) if value in dimension.choices else 0
            shares.append((index + 0.5) / len(dimension.choices))
        else:
            shares.append(min(1.0, max(0.0, to_unit(dimension, value))))
    return shares


def quasi_random(count: int, dimensions: int, *, start: int, shift: Floats) -> Floats:
    """`count` points of an additive recurrence (Roberts's R sequence), from number `start` on, in [0, 1).

    Every stretch of it covers the space evenly; `shift` moves the whole sequence.
    """
    golden = 1.5
    for _ in range(40):  # the root of x**(d + 1) = x + 1
        golden = (1 + golden) ** (1 / (dimensions + 1))
    steps = golden ** -np.arange(1.0, dimensions + 1)
    numbers = np.arange(start + 1, start + 1 + count)[:, None]
    return np.asarray((shift + numbers * steps) % 1.0)
