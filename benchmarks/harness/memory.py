"""The most memory that live tensors take while a block runs, on a CPU as on CUDA."""

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
    """Filled in when the block has ended."""

    held: int = 0
    """Bytes of tensors that were alive when the block began."""
    peak: int = 0
    """Bytes of all live tensors at the worst moment, those held before included."""

    @property
    def added(self) -> int:
        """What the block took beyond what was held."""
        return self.peak - self.held


@contextmanager
def peak_live_bytes(device: torch.device | None = None) -> Iterator[PeakMemory]:
    """Measure the block inside: the allocator's peak on CUDA, the profiler's memory events on a CPU.

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
    """Bytes of live tensors: what CUDA's allocator has given out, or every storage that Python can reach."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    found: dict[int, int] = {}
    for thing in gc.get_objects():
        # By its class: isinstance would wake up lazily imported stand-ins.
        if issubclass(type(thing), Tensor) and thing.device.type == "cpu" and thing.layout == torch.strided:
            for tensor in (thing, thing.grad if thing.is_leaf else None):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def used_bytes(device: torch.device) -> int:
    """What all processes together have taken of a CUDA device; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return total - free
