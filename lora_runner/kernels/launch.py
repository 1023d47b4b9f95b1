"""Launching a Triton kernel: the one place that sets the device and tells observers of every launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """A kernel and what it is launched on; calling it launches the kernel again."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    def __call__(self) -> None:
        device = _device_of(self.arguments)
        if device.type == "meta" or 0 in self.grid:
            return
        if device.type == "cuda":
            with torch.cuda.device(device):
                self.kernel[self.grid](*self.arguments, **self.options)
        else:  # Triton's interpreter
            self.kernel[self.grid](*self.arguments, **self.options)


Observer = Callable[[str, Launch], None]
"""Is told the kernel's name and its launch."""

_observers: list[Observer] = []


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Launch `kernel` on the device of its first tensor (or tensor descriptor); the host does not wait.

    Nothing is launched on the meta device, and none for an empty grid, but observers are told of both.
    """
    made = Launch(kernel, grid, arguments, options)
    made()
    for observer in _observers:
        observer(kernel.__name__, made)


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
