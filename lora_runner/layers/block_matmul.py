"""Matrix products of several blocks of rows in one call, each block as it would be computed alone.

A single product over all rows would let the number of a neighbour's rows choose the kernel, and with it the
rounding. Grouped products keep every block's own shape: on CPU, and in bfloat16 on compute capabilities 9 and
10, they are one dispatched operation, elsewhere one product per block.

Shapes: T rows of G blocks, k and n the sides of a weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from lora_runner.layers import onednn_matmul as onednn
from lora_runner.layout.device_copies import DeviceCopies

GROUPED_CAPABILITIES = (9, 10)
"""Major compute capabilities for which torch has a grouped kernel, in bfloat16."""

NARROW = 1 << 14
"""Elements of a weight up to which a CPU multiplies with it on one thread: waking the others takes longer.

A matter of the weight alone, or a trial's numbers would depend on its neighbours' rows.
"""


class Blocks:
    """Consecutive blocks of rows, by their sizes; none is empty."""

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
    if onednn.is_used_for(x, weight):
        if len(blocks) == 1:
            return onednn.product(x, weight)
        out = x.new_empty(x.shape[0], weight.shape[1])
        for rows, into in zip(x.split(blocks.sizes), out.split(blocks.sizes), strict=True):
            matmul_into(into, rows, weight)
        return out
    return matmul_by_block(x, weight.expand(len(blocks), *weight.shape), blocks)


def matmul_into(out: Tensor, x: Tensor, weight: Tensor) -> None:
    """Write one block's `x` (t, k) times `weight` (k, n) to `out` (t, n), as `matmul_shared` computes it."""
    if onednn.is_used_for(x, weight):
        out.copy_(onednn.product(x, weight))
    else:
        _multiply_into(out, x, weight)


def _multiply_into(out: Tensor, x: Tensor, weight: Tensor) -> None:
    if _is_aligned(out):
        torch.mm(_at_own_address(x), weight, out=out)
    else:
        out.copy_(_at_own_address(x) @ weight)


def outer_by_block(a: Tensor, b: Tensor, blocks: Blocks) -> Tensor:
    """Block g of `a` (T, m), transposed, times block g of `b` (T, n) -> (G, m, n)."""
    with _threads_for(a.shape[1] * b.shape[1], a.device):
        if _groupable(a.t(), b):
            return F.grouped_mm(a.t(), b, offs=blocks.ends.on(a.device))
        pairs = zip(a.split(blocks.sizes), b.split(blocks.sizes), strict=True)
        return torch.stack([_at_own_address(left).t() @ _at_own_address(right) for left, right in pairs])


def _at_own_address(rows: Tensor) -> Tensor:
    """`rows`, copied where their neighbours' number would decide how they are aligned.

    Kernels treat what stands before an aligned address apart, and so add it up in another order.
    """
    return rows if _is_aligned(rows) else rows.clone()


def _is_aligned(rows: Tensor) -> bool:
    """Whether every row begins at a multiple of 16 bytes, whichever of them is the first."""
    return rows.shape[1] * rows.element_size() % 16 == 0


@contextmanager
def _threads_for(num_elements: int, device: torch.device) -> Iterator[None]:
    """Inside, one thread if a weight of so many elements is narrow; as many as there are if not."""
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
    """Whether torch takes both in one operation; asked for every product, and so in few words."""
    if a.is_cuda and not _grouped_on(a.device, a.dtype):
        return False  # there, torch would loop too, and ask the host for the sizes
    in_16_bytes = 16 // a.element_size()
    return _steps_by(in_16_bytes, a) and _steps_by(in_16_bytes, b)


def _steps_by(multiple: int, x: Tensor) -> bool:
    """Whether the matrices in `x` lie as grouped_mm wants them.

    One of the last two directions is contiguous; a step in any other is a multiple. A matrix of one row or
    column is contiguous in both, which says nothing: its longer direction decides.
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
