"""Which product over all rows serves frozen weights on a device: one whose rows do not depend on each other.

None is used until `use_way` names one: the certificate of a machine says which of them are invariant there.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Way = Literal["triton", "triton whole tiles", "cublas"]
"""The kernel of `dense_matmul.py`, the same without halved tiles, or the library's product over all rows."""

_ways: dict[tuple[torch.device, torch.dtype], Way] = {}


def use_way(device: torch.device, dtype: torch.dtype, way: Way | None) -> None:
    """Multiply all rows at once on a device, in one dtype, from now on; None: block by block again.

    A trial's numbers depend on the way: it is chosen before the first pass, and kept. ValueError names the
    known ways for another one.
    """
    if way is None:
        _ways.pop((_numbered(device), dtype), None)
    elif way in get_args(Way):
        _ways[_numbered(device), dtype] = way
    else:
        raise ValueError(f"products over all rows are one of {', '.join(get_args(Way))}, got {way!r}")


def way_for(x: Tensor, weight: Tensor) -> Way | None:
    """The way for `x` (T, k) and `weight` (k, n); None where there is none, or it cannot take this weight.

    Nothing but the weight, its dtype and the device decides.
    """
    way = _ways.get((x.device, x.dtype))
    if way is not None and way != "cublas":
        from lora_runner.kernels.dense_matmul import is_readable, is_supported

        k, n = weight.shape
        return way if is_supported(k, n, x.dtype) and is_readable(_as_stored(weight)[0]) else None
    return way


def frozen_product(x: Tensor, weight: Tensor, way: Way) -> Tensor:
    """`x` (T, k) times `weight` (k, n) -> (T, n); a weight stored as (n, k) is passed as its transpose."""
    if way == "cublas":
        return torch.mm(x, weight)
    from lora_runner.kernels.dense_matmul import dense_matmul

    stored, transposed = _as_stored(weight)
    return dense_matmul(x, stored, transposed=transposed, halves_last=way == "triton")


def _as_stored(weight: Tensor) -> tuple[Tensor, bool]:
    """The matrix in memory whose rows are adjacent, and whether it is the transpose of `weight`."""
    return (weight, False) if weight.stride(1) == 1 else (weight.t(), True)


def _numbered(device: torch.device) -> torch.device:
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
