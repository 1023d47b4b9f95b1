"""Counts the kernels launched on a GPU while a function runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


def count_launches(run: Callable[[], Any], device: torch.device) -> int:
    """Return the kernels that one call of `run` launches on a CUDA device, without copies and fills."""
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiler:
        run()
        torch.cuda.synchronize(device)
    return sum(is_kernel(event) and not is_copy(event.name) for event in profiler.events() or ())


def is_kernel(event: Any) -> bool:
    """Whether a profiler event is work of the device rather than an annotation."""
    return event.device_type == DeviceType.CUDA and not event.is_user_annotation


def is_copy(name: str) -> bool:
    """Whether the name is that of a copy or fill."""
    return name.startswith(("Memcpy", "Memset"))
