"""How long one call takes: the median of several."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

ROUNDS, CALLS = 5, 8
"""Timings, and calls in each on CUDA."""


def median_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call; on CUDA without the time to launch it, where that is hidden."""
    call()
    if device.type != "cuda":
        return statistics.median(_seconds(call) for _ in range(ROUNDS))
    call()
    found: list[float] = []
    for _ in range(ROUNDS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(CALLS):
            call()
        stop.record()
        torch.cuda.synchronize(device)
        found.append(start.elapsed_time(stop) / 1e3 / CALLS)
    return statistics.median(found)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
