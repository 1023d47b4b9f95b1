"""What all seats do at once, done seat by seat where that fails: one of them fails then, not its neighbours.

A seat's numbers do not depend on its neighbours, so both ways give the same.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from lora_runner.errors import Fault, is_device_error, is_disk_trouble
from lora_runner.pack.seat import Seat

T = TypeVar("T")


def for_each_seat(
    compute: Callable[[list[Seat | None]], list[T]], seats: Sequence[Seat | None]
) -> list[T | Fault]:
    """`compute` for all seats at once, or one by one where memory or an error forbids it.

    A seat that fails alone has a Fault for its result. Where every one of several fails, and not for want of
    memory, no seat is to blame: RuntimeError. So is nobody for an error of the device or a disk (kernels are
    compiled into a cache), which is raised.
    """
    if not seats:
        return []
    together = _attempt(compute, seats)
    if not isinstance(together, Fault):
        return [*together]
    if len(seats) == 1:
        return [together]
    found: list[T | Fault] = []
    for seat in seats:
        alone = _attempt(compute, [seat])
        found.append(alone if isinstance(alone, Fault) else alone[0])
    if all(isinstance(result, Fault) and not result.is_memory for result in found):
        raise RuntimeError(f"none of {len(seats)} seats could be computed: {together.traceback}")
    return found


def _attempt(
    compute: Callable[[list[Seat | None]], list[T]], seats: Sequence[Seat | None]
) -> list[T] | Fault:
    try:
        return compute([*seats])
    except Exception as error:
        if is_device_error(error) or is_disk_trouble(error):
            raise
        fault = Fault.of(error)
    if fault.is_memory:
        free_memory()  # here, where the error's traceback no longer holds it
    return fault


def free_memory() -> None:
    """Give back what nobody uses any more; the caller must have left the error's `except` block."""
    if torch.cuda.is_available():
        gc.collect()  # frames that an error went through may hold each other
        torch.cuda.empty_cache()
