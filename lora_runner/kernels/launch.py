"""Launching a Triton kernel: the one place that sets the device and tells observers of every launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Observer = Callable[[str, Callable[[], None]], None]
"""Is told the kernel's name and a function that launches it again on the same arguments."""

_observers: list[Observer] = []


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Launch `kernel` on the device of its first tensor (or tensor descriptor); the host does not wait.

    Nothing is launched on the meta device, and none for an empty grid, but observers are told of both.
    """
    device = _device_of(arguments)

    def run() -> None:
        if device.type == "meta" or 0 in grid:
            return
        if device.type == "cuda":
            with torch.cuda.device(device):
                kernel[grid](*arguments, **options)
        else:  # Triton's interpreter
            kernel[grid](*arguments, **options)

    run()
    for observer in _observers:
        observer(kernel.__name__, run)


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Tell `observer` of every launch inside."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def _device_of(arguments: tuple[Any, ...]) -> torch.device:
    for argument in arguments:
        tensor = argument if isinstance(argument, Tensor) else getattr(argument, "base", None)
        if isinstance(tensor, Tensor):
            return tensor.device
    raise TypeError("a kernel takes at least one tensor")
