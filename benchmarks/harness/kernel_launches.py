"""Kernels that a GPU is given while a function runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


def count_launches(run: Callable[[], Any], device: torch.device) -> int:
    """Kernels that one call of `run` launches on a CUDA device; copies and fills are not counted."""
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiler:
        run()
        torch.cuda.synchronize(device)
    return sum(is_kernel(event) and not is_copy(event.name) for event in profiler.events() or ())


def is_kernel(event: Any) -> bool:
    """Whether a profiler's event is something that the device did, and no echo of an annotation."""
    return event.device_type == DeviceType.CUDA and not event.is_user_annotation


def is_copy(name: str) -> bool:
    """Whether that is what a kernel's name says of something that is none."""
    return name.startswith(("Memcpy", "Memset"))
