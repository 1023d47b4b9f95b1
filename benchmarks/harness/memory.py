"""Peak memory of live tensors while a block runs, on a CPU and on CUDA."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


@dataclass
class PeakMemory:
    """Set when the block has ended."""

    held: int = 0
    """Bytes of tensors that were alive when the block began."""
    peak: int = 0
    """Most bytes of live tensors at any time, including those held before."""


@contextmanager
def peak_live_bytes(device: torch.device | None = None) -> Iterator[PeakMemory]:
    """Measure the block: the allocator's peak on CUDA, the profiler's memory events on a CPU.

    On a CPU every allocation is recorded, so keep the block to a step or two, and time it elsewhere.
    """
    measured = PeakMemory()
    gc.collect()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        measured.held = live_bytes(device)
        yield measured
        torch.cuda.synchronize(device)
        measured.peak = torch.cuda.max_memory_allocated(device)
        return
    measured.held = live_bytes(torch.device("cpu"))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        yield measured
    assert profiler.profiler is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    measured.peak = measured.held + peak


def live_bytes(device: torch.device) -> int:
    """Return the bytes of live tensors: of CUDA's allocator, or of all storages that Python reaches."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    found: dict[int, int] = {}
    for thing in gc.get_objects():
        # By its class: isinstance would trigger lazy imports.
        if issubclass(type(thing), Tensor) and thing.device.type == "cpu" and thing.layout == torch.strided:
            for tensor in (thing, thing.grad if thing.is_leaf else None):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


@contextmanager
def peak_reserved_bytes(device: torch.device) -> Iterator[PeakMemory]:
    """Measure what torch's allocator takes from a CUDA device for this process in the block; 0 on a CPU."""
    measured = PeakMemory()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        measured.held = torch.cuda.memory_reserved(device)
    yield measured
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        measured.peak = torch.cuda.max_memory_reserved(device)
