"""Which product over all rows serves frozen weights on a device: one whose rows do not depend on each other.

None is used until `use_way` names one: the certificate of a machine says which of them are invariant there.
The kernel is so by its construction, whatever the sizes; the library's product for the sizes and the numbers
of rows with which it was checked: a higher pass is multiplied in slices, which changes no bit of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Kernel = Literal["triton", "triton whole tiles"]
"""That of `dense_matmul.py`, or the same without halved tiles."""
Way = Literal["triton", "triton whole tiles", "cublas"]
"""A kernel, or the library's product over all rows."""
ProductSize = tuple[int, int, bool]
"""(k, n) of a weight and whether it is stored as its transpose (n, k)."""
ROW_BYTES = 16
"""Rows are multiples of it in every product over all rows, so that none is read otherwise than the first."""


@dataclass(frozen=True)
class _Ways:
    way: Way
    kernel: Kernel | None
    library_rows: Mapping[ProductSize, int]


_ways: dict[tuple[torch.device, torch.dtype], _Ways] = {}


def use_way(
    device: torch.device,
    dtype: torch.dtype,
    way: Way | None,
    *,
    kernel: Kernel | None = None,
    library_rows: Mapping[ProductSize, int] | None = None,
) -> None:
    """Multiply all rows at once on a device, in one dtype, from now on; None: block by block again.

    cuBLAS takes only the products of `library_rows`, in calls of at most so many rows; `kernel` takes the
    others, if it is given. A trial's numbers depend on the way: it is chosen before the first pass, and kept.
    ValueError names the known ways for another one.
    """
    if way is None:
        _ways.pop((_numbered(device), dtype), None)
    elif way in get_args(Way):
        _ways[_numbered(device), dtype] = _Ways(way, kernel, dict(library_rows or {}))
    else:
        raise ValueError(f"products over all rows are one of {', '.join(get_args(Way))}, got {way!r}")


def way_for(x: Tensor, weight: Tensor) -> Way | None:
    """The way for `x` (T, k) and `weight` (k, n); None where there is none, or it cannot take this weight.

    Nothing but the weight, its dtype and the device decides.
    """
    ways = _ways.get((x.device, x.dtype))
    if ways is None:
        return None
    way: Way | None = ways.way
    stored, transposed = _as_stored(weight)
    k, n = weight.shape
    if way == "cublas":
        if (k, n, transposed) in ways.library_rows and _is_aligned(stored):
            return way
        way = ways.kernel
    if way is None:
        return None
    from lora_runner.kernels.dense_matmul import is_readable, is_supported

    return way if is_supported(k, n, x.dtype) and is_readable(stored) else None


def frozen_product(x: Tensor, weight: Tensor, way: Way) -> Tensor:
    """`x` (T, k) times `weight` (k, n) -> (T, n), by the way that `way_for` has named, or by a kernel.

    A weight stored as (n, k) is passed as its transpose.
    """
    stored, transposed = _as_stored(weight)
    if way == "cublas":
        return _by_library(x, weight, _ways[x.device, x.dtype].library_rows[(*weight.shape, transposed)])
    from lora_runner.kernels.dense_matmul import dense_matmul

    return dense_matmul(x, stored, transposed=transposed, halves_last=way == "triton")


def has_aligned_rows(k: int, n: int, dtype: torch.dtype) -> bool:
    """Whether rows of k and of n elements are such that a product over all rows takes them."""
    return all(side * dtype.itemsize % ROW_BYTES == 0 for side in (k, n))


def _by_library(x: Tensor, weight: Tensor, most: int) -> Tensor:
    """The library's product, at most `most` rows at once."""
    if not _is_aligned(x):  # as those that were checked
        x = x.clone(memory_format=torch.contiguous_format)
    if len(x) <= most:
        return torch.mm(x, weight)
    out = x.new_empty(len(x), weight.shape[1])
    for rows, into in zip(x.split(most), out.split(most), strict=True):
        torch.mm(rows, weight, out=into)
    return out


def _is_aligned(matrix: Tensor) -> bool:
    """Whether a matrix lies in memory as a new one does: without gaps, from an aligned address on."""
    address = matrix.data_ptr() if matrix.device.type != "meta" else 0
    return matrix.is_contiguous() and address % ROW_BYTES == 0


def _as_stored(weight: Tensor) -> tuple[Tensor, bool]:
    """The matrix in memory whose rows are adjacent, and whether it is the transpose of `weight`."""
    return (weight, False) if weight.stride(1) == 1 else (weight.t(), True)


def _numbered(device: torch.device) -> torch.device:
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
