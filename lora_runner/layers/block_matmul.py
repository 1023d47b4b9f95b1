"""Matmuls of several blocks of rows in one call, with the same bits for each block as on its own.

In a library's matmul over all rows the number of a neighbour's rows would choose the kernel, and with it the
rounding. Grouped matmuls keep every block's own shape: on a CPU, and in bfloat16 on compute capabilities 9
and 10, they are one dispatched operation, elsewhere one matmul per block. Where a product over all rows has
been shown not to depend on a row's neighbours (`frozen_product.py`), frozen weights are multiplied by it.

Shapes: T rows of G blocks, k and n the sides of a weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_runner.kernels.frozen_product import frozen_product, way_for
from lora_runner.layers import onednn_matmul as onednn
from lora_runner.layout.device_copies import DeviceCopies

GROUPED_CAPABILITIES = (9, 10)
"""Major compute capabilities for which torch has a grouped kernel, in bfloat16."""

NARROW = 1 << 14
"""Weights of up to this many elements use one thread on a CPU: waking the others takes longer.

Decided by the weight alone, or a trial's numbers would depend on its neighbours' rows.
"""


class Blocks:
    """Sizes of consecutive blocks of rows; none is empty."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.ends = DeviceCopies(torch.tensor(self.sizes, dtype=torch.int32).cumsum(0, dtype=torch.int32))
        """Where each block ends, (G,) int32."""

    def __len__(self) -> int:
        return len(self.sizes)


def matmul_by_block(x: Tensor, weights: Tensor, blocks: Blocks) -> Tensor:
    """Block g of `x` (T, k) times `weights[g]` (G, k, n) -> (T, n)."""
    with _threads_for(weights.shape[1] * weights.shape[2], x.device):
        if _groupable(x, weights):
            return F.grouped_mm(x, weights, offs=blocks.ends.on(x.device))
        out = x.new_empty(x.shape[0], weights.shape[2])
        for rows, weight, into in zip(x.split(blocks.sizes), weights, out.split(blocks.sizes), strict=True):
            _multiply_into(into, rows, weight)
        return out


def matmul_shared(x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
    """Every block of `x` (T, k) times one `weight` (k, n) -> (T, n)."""
    if (way := way_for(x, weight)) is not None:
        return frozen_product(x, weight, way)
    if onednn.is_used_for(x, weight):
        if len(blocks) == 1:
            return onednn.matmul(x, weight)
        out = x.new_empty(x.shape[0], weight.shape[1])
        for rows, into in zip(x.split(blocks.sizes), out.split(blocks.sizes), strict=True):
            matmul_into(into, rows, weight)
        return out
    return matmul_by_block(x, weight.expand(len(blocks), *weight.shape), blocks)


def matmul_into(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """Write one block's `x` (t, k) times `weight` (k, n) to `out` (t, n), as `matmul_shared`."""
    if (way := way_for(x, weight)) is not None:
        out.copy_(frozen_product(x, weight, way))
    elif onednn.is_used_for(x, weight):
        out.copy_(onednn.matmul(x, weight))
    else:
        _multiply_into(out, x, weight)


def _multiply_into(out: Tensor, x: Tensor, weight: Tensor) -> None:
    if _is_aligned(out):
        torch.mm(_aligned_copy(x), weight, out=out)
    else:
        out.copy_(_aligned_copy(x) @ weight)


def outer_by_block(a: Tensor, b: Tensor, blocks: Blocks) -> Tensor:
    """Block g of `a` (T, m), transposed, times block g of `b` (T, n) -> (G, m, n)."""
    with _threads_for(a.shape[1] * b.shape[1], a.device):
        if _groupable(a.t(), b):
            return F.grouped_mm(a.t(), b, offs=blocks.ends.on(a.device))
        pairs = zip(a.split(blocks.sizes), b.split(blocks.sizes), strict=True)
        return torch.stack([_aligned_copy(left).t() @ _aligned_copy(right) for left, right in pairs])


def _aligned_copy(rows: Tensor) -> Tensor:
    """`rows`, copied if their alignment depends on how many rows precede them.

    Kernels treat elements before an aligned address separately, which changes the order of a sum.
    """
    return rows if _is_aligned(rows) else rows.clone()


def _is_aligned(rows: Tensor) -> bool:
    """Whether every row begins at a multiple of 16 bytes, whichever is the first."""
    return rows.shape[1] * rows.element_size() % 16 == 0


@contextmanager
def _threads_for(num_elements: int, device: torch.device) -> Iterator[None]:
    """One thread inside, if a weight of so many elements is narrow."""
    if num_elements > NARROW or device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _groupable(a: Tensor, b: Tensor) -> bool:
    """Whether torch multiplies both in one operation; checked for every matmul, so it must be fast."""
    if a.is_cuda and not _grouped_on(a.device, a.dtype):
        return False  # torch would loop as well, and wait for the sizes on the host
    in_16_bytes = 16 // a.element_size()
    return _has_strides(in_16_bytes, a) and _has_strides(in_16_bytes, b)


def _has_strides(multiple: int, x: Tensor) -> bool:
    """Whether the strides of `x` are what grouped_mm needs.

    One of the last two dimensions is contiguous; every other stride is a multiple. A matrix of one row or
    column is contiguous in both: its longer dimension decides.
    """
    rows, columns = x.shape[-2:]
    *outer, down, right = x.stride()
    if down == 1 and right >= rows:
        step = right
    elif right == 1 and down >= columns:
        step = down
    else:
        return False
    return all(stride % multiple == 0 for stride in (step, *outer))


@lru_cache
def _grouped_on(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype == torch.bfloat16 and torch.cuda.get_device_capability(device)[0] in GROUPED_CAPABILITIES
