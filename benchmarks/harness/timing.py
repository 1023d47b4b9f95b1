"""How benchmarks of steps take the time, and what they do where memory ends."""

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
    """Where steps are measured, and what they compute in: bfloat16 on CUDA, float32 on a CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device()), torch.bfloat16
    return torch.device("cpu"), torch.float32


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], Any], device: torch.device, times: int = 1) -> float:
    """That one of `times` calls takes; on CUDA the host runs ahead of the device between them."""
    wait(device)
    started = time.perf_counter()
    for _ in range(times):
        run()
    wait(device)
    return (time.perf_counter() - started) / times


def forget(device: torch.device) -> None:
    """Give back the memory of what is gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def what_fits(report: Report, what: str) -> Iterator[None]:
    """Note what finds no memory, and go on."""
    try:
        yield
    except torch.OutOfMemoryError:
        report.note(f"{what} did not fit.")


def calls_at_once(update: Callable[[], Any], device: torch.device) -> int:
    """Calls of one repetition: on CUDA the host runs ahead of the device, as it does in training.

    Ten of what is fast; of what takes long, as many as last AT_ONCE_SECONDS, for a device may be lent by the
    minute.
    """
    taken = seconds(update, device)
    return min(10, max(1, round(AT_ONCE_SECONDS / taken))) if device.type == "cuda" else 1


def copy_bandwidth(device: torch.device, num_elements: int) -> float:
    """Bytes read and written per second by torch's copy of a buffer of that many fp32 elements."""
    source = torch.zeros(num_elements, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    calls = calls_at_once(copy, device)
    times = [seconds(copy, device, calls) for _ in range(12)]
    return 2 * source.nbytes / median(times[2:])
