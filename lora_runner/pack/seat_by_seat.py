"""A computation for all seats at once, repeated seat by seat if it fails, so that only one of them fails.

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
    """`compute` for all seats at once, or one by one if that runs out of memory or raises.

    The result of a seat that fails alone is a Fault. Where each of several fails, and not for memory, no seat
    is to blame: RuntimeError. Errors of the device or a disk (kernels are compiled into a cache) are raised.
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
        free_memory()  # here, where no traceback holds it any more
    return fault


def free_memory() -> None:
    """Release unused memory; the caller must have left the error's `except` block."""
    gc.collect()  # modules of a model and frames of a traceback refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
