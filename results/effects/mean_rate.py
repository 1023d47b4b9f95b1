"""The mean learning rate over a run: what the peak, the schedule and the warmup come to together."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from files_and_text.plain_values import finite
from search_spaces.dimension import Value

_STEPS = 512
"""A longer run is read at so many of its steps, evenly spaced: the mean is then exact to about a percent."""
_KWARGS: Mapping[str, Mapping[str, float]] = {
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "warmup_stable_decay": {"decay_share": 0.1},
}
"""What a trial has where nothing was chosen."""


def mean_rate(values: Mapping[str, Value], kwargs: Mapping[str, Any] | None = None) -> float | None:
    """The mean over the steps of the rate of the adapters; None without a rate or a number of steps.

    `values` are hyperparameters with the derived ones, `kwargs` the schedule's own arguments.
    """
    rate, steps = finite(values.get("learning_rate")), finite(values.get("max_steps"))
    if not rate or not steps:
        return None
    name = str(values.get("lr_scheduler_type", "linear"))
    warmup = finite(values.get("warmup_steps"))
    if warmup is None:
        warmup = math.ceil((finite(values.get("warmup_ratio")) or 0.0) * steps)
    given = dict(kwargs or {})
    if (least := finite(given.pop("min_lr", None))) is not None:
        given["min_lr_rate"] = least / rate
    return rate * _mean_factor(name, int(warmup), int(steps), json.dumps(given, sort_keys=True))


@lru_cache(maxsize=4096)
def _mean_factor(name: str, warmup: int, steps: int, kwargs: str) -> float:
    """Mean of the factors that transformers' schedule has at steps 0, 1, ... of the run."""
    given = {**_KWARGS.get(name, {}), **json.loads(kwargs)}
    at = np.arange(steps) if steps <= _STEPS else np.floor((np.arange(_STEPS) + 0.5) * steps / _STEPS)
    if name == "constant":
        return 1.0
    left = max(1, steps - warmup)
    progress = (at - warmup) / left
    cycles = float(given.get("num_cycles", 0.5))
    least = float(given.get("min_lr_rate", given.get("min_lr_ratio", 0.0)))
    if name == "linear":
        after = 1 - progress
    elif name == "constant_with_warmup":
        after = np.ones_like(progress)
    elif name == "inverse_sqrt":
        scale = float(given.get("timescale") or warmup or 10_000)
        after = 1 / np.sqrt(np.maximum(at + scale - warmup, 1.0) / scale)
    elif name == "warmup_stable_decay":
        decay = float(given.get("num_decay_steps") or math.ceil(float(given["decay_share"]) * steps))
        stable = float(given.get("num_stable_steps") or max(0.0, steps - warmup - decay))
        into = np.clip((at - warmup - stable) / max(1.0, decay), 0.0, 1.0)
        shapes = {"linear": 1 - into, "1-sqrt": 1 - np.sqrt(into)}
        after = shapes.get(
            str(given.get("decay_type", "cosine")), 0.5 + 0.5 * np.cos(2 * np.pi * cycles * into)
        )
        after = after * (1 - least) + least
    else:
        after = (0.5 + 0.5 * np.cos(2 * np.pi * cycles * progress)) * (1 - least) + least
    return float(np.where(at < warmup, at / max(1, warmup), np.maximum(after, 0.0)).mean())
