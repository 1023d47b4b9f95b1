"""Every configuration of a space on a grid, so that a surface's minimum inside a row can be looked up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks.simulator.surface import SCHEDULERS, Surface
from search_spaces import GuidelineRow, SearchSpace

CLOSE = 1e-6
"""Relative difference below which two values are the same."""
NUM_RATES, NUM_WARMUPS, NUM_RATIOS = 90, 13, 13


def lowest_cost(surface: Surface, space: SearchSpace) -> float:
    """Percent above the surface's base loss of the best configuration of the space."""
    values = space_values(space, (), {}, surface.best_rank)
    return float(grid_costs(surface, values).min())


def grid_costs(surface: Surface, values: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Percent above the base loss at every point of `space_values`."""
    return surface.costs(
        values["learning_rate"],
        values["scheduler"],
        values["warmup_ratio"],
        values["lora_r"],
        values.get("embedding_learning_rate"),
    )


def space_values(
    space: SearchSpace, rows: Iterable[GuidelineRow], best: Mapping[str, Any], fixed_rank: float
) -> dict[str, Any]:
    """An axis each for rate, scheduler, warmup, rank and ratio, with the rows' own ends."""
    ends: dict[str, list[float]] = {}
    for row in rows:
        ends.setdefault(row.parameter or "", []).extend(x for x in (row.low, row.high) if x is not None)

    def axis(name: str, count: int) -> np.ndarray[Any, Any]:
        dimension = space[name]
        low, high = dimension.bounds()
        even = np.geomspace(low, high, count) if dimension.log else np.linspace(low, high, count)
        own = [x for x in (*ends.get(name, ()), float(best.get(name, low))) if low <= x <= high]
        return np.unique(np.concatenate([even, own]))

    def along(position: int, values: Any) -> np.ndarray[Any, Any]:
        shape = [1] * 5
        shape[position] = -1
        return np.asarray(values, dtype=float).reshape(shape)

    found = {
        "learning_rate": along(0, axis("learning_rate", NUM_RATES)),
        "scheduler": along(1, [SCHEDULERS.index(str(x)) for x in space["lr_scheduler_type"].choices or ()]),
        "warmup_ratio": along(2, axis("warmup_ratio", NUM_WARMUPS)),
        "lora_r": along(3, space["lora_r"].choices if "lora_r" in space else [fixed_rank]),
    }
    if "embedding_lr_ratio" in space:
        ratios = along(4, axis("embedding_lr_ratio", NUM_RATIOS))
        rates = found["learning_rate"]
        # The rows' own embedding rates, whatever the main rate.
        own = [along(4, [rate]) / rates for rate in sorted(set(ends.get("embedding_learning_rate", ())))]
        low, high = space["embedding_lr_ratio"].bounds()
        wide = np.broadcast_to(ratios, (*rates.shape[:4], ratios.shape[4]))
        every = np.concatenate([wide, *(np.clip(one, low, high) for one in own)], axis=4)
        found["embedding_lr_ratio"] = every
        found["embedding_learning_rate"] = every * rates
    found["warmup_steps"] = np.ceil(found["warmup_ratio"] * float(space.context["max_steps"]) - CLOSE)
    return found


def where_inside(row: GuidelineRow, values: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
    """Where on the grid the row's value is taken."""
    shape = np.broadcast_shapes(*(axis.shape for axis in values.values()))
    if row.choices:
        names = [SCHEDULERS.index(str(choice)) for choice in row.choices if choice in SCHEDULERS]
        return np.broadcast_to(np.isin(values["scheduler"], names), shape)
    if row.parameter not in values or row.low is None or row.high is None:
        return None
    axis = values[row.parameter]
    inside = (axis >= row.low * (1 - CLOSE)) & (axis <= row.high * (1 + CLOSE))
    if row.parameter in ("warmup_ratio", "warmup_steps"):
        warmed = [i for i, name in enumerate(SCHEDULERS) if name != "constant"]
        inside = inside & np.isin(values["scheduler"], warmed)
    return np.broadcast_to(inside, shape)
