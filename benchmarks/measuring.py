"""How benchmarks of steps take the time, and what they do where memory ends."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.report import Report


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
