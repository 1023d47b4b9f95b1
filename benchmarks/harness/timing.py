"""Time, copy bandwidth and running out of memory, on a CPU and on CUDA."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from benchmarks.harness.report import Report

AT_ONCE_SECONDS = 0.05


def this_device() -> tuple[torch.device, torch.dtype]:
    """Return the device of the benchmarks and its dtype: bfloat16 on CUDA, float32 on a CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device()), torch.bfloat16
    return torch.device("cpu"), torch.float32


def wait(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], Any], device: torch.device, times: int = 1) -> float:
    """Return the seconds per call; on CUDA the host runs ahead of the device between calls."""
    wait(device)
    started = time.perf_counter()
    for _ in range(times):
        run()
    wait(device)
    return (time.perf_counter() - started) / times


def forget(device: torch.device) -> None:
    """Free unused memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def what_fits(report: Report, what: str) -> Iterator[None]:
    """Note in the report what does not fit in memory, and continue."""
    try:
        yield
    except torch.OutOfMemoryError:
        report.note(f"{what} did not fit.")


def calls_at_once(update: Callable[[], Any], device: torch.device) -> int:
    """Return the calls per repetition: on CUDA several, so that the host runs ahead as it does in training.

    Ten if they are fast, else as many as take AT_ONCE_SECONDS.
    """
    taken = seconds(update, device)
    return min(10, max(1, round(AT_ONCE_SECONDS / taken))) if device.type == "cuda" else 1


def copy_bandwidth(device: torch.device, num_elements: int) -> float:
    """Return the bytes per second, read and written, of torch's copy of that many fp32 elements."""
    source = torch.zeros(num_elements, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    calls = calls_at_once(copy, device)
    times = [seconds(copy, device, calls) for _ in range(12)]
    return 2 * source.nbytes / median(times[2:])
