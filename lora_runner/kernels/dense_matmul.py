"""One product of all rows of a pass with a frozen weight, each row with the same bits as on its own.

A persistent kernel with tensor memory descriptors computes every product. Its tiles are chosen from the sides
of the weight alone, and one program adds up all of k in order, so neither the number of rows nor their order
changes a sum. Other rows of the same tile never enter it, whether finite or not.

Shapes: T rows of a pass, k and n the sides of a weight.
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from lora_runner.kernels.launch import launch

STRIDE_BYTES = 16
"""Tensor memory descriptors need every row, and the first element, at a multiple of it."""
DTYPES = (torch.bfloat16, torch.float16)
"""Tiles of float32 would need more shared memory than a multiprocessor has."""
WIDE = 6144
"""Least n of a product in tiles of 256 columns. Narrower ones leave multiprocessors without a tile then."""
ROW_TILE_GROUP = 8
"""Row tiles that go through the same columns together, so that both operands stay in the L2 cache."""


class Tiles(NamedTuple):
    """The configuration of a product."""

    rows: int
    columns: int
    inner: int
    num_stages: int
    num_warps: int


def tiles_of(n: int) -> Tiles:
    """The configuration for a weight with n columns, whatever the number of rows."""
    return Tiles(128, 256, 64, 3, 8) if n >= WIDE else Tiles(128, 128, 64, 4, 8)


def is_supported(k: int, n: int, dtype: torch.dtype) -> bool:
    """Whether (T, k) times (k, n) can be computed: rows of k and of n elements are multiples of 16 bytes.

    T may be any positive number.
    """
    return dtype in DTYPES and all(side * dtype.itemsize % STRIDE_BYTES == 0 for side in (k, n))


def is_readable(matrix: Tensor) -> bool:
    """Whether a descriptor can be made of `matrix`: adjacent columns, rows at multiples of 16 bytes."""
    step, right = matrix.stride()
    address = matrix.data_ptr() if matrix.device.type != "meta" else 0
    return right == 1 and step * matrix.element_size() % STRIDE_BYTES == 0 and address % STRIDE_BYTES == 0


# Not specialized on the number of rows: there is one kernel for a layer, whatever the height of its input.
@triton.jit(do_not_specialize=["num_rows"])
def dense_matmul_kernel(
    x,
    weight,
    out,
    num_rows,
    n,
    k,
    TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr,
):
    """out (num_rows, n) = x (num_rows, k) times weight, (n, k) if TRANSPOSED, else (k, n); descriptors."""
    row_tiles = tl.cdiv(num_rows, ROWS)
    column_tiles = tl.cdiv(n, COLUMNS)
    inner_tiles = tl.cdiv(k, INNER)
    group_size = GROUP * column_tiles
    for tile in tl.range(tl.program_id(0), row_tiles * column_tiles, NUM_PROGRAMS, flatten=True):
        first_row_tile = tile // group_size * GROUP
        height = min(row_tiles - first_row_tile, GROUP)
        row = (first_row_tile + tile % group_size % height) * ROWS
        column = tile % group_size // height * COLUMNS
        total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        for inner_tile in range(inner_tiles):
            left = x.load([row, inner_tile * INNER])
            if TRANSPOSED:
                right = weight.load([column, inner_tile * INNER]).T
            else:
                right = weight.load([inner_tile * INNER, column])
            total = tl.dot(left, right, total, input_precision="ieee")
        out.store([row, column], total.to(out.dtype))


def dense_matmul(x: Tensor, weight: Tensor, *, transposed: bool, out: Tensor | None = None) -> Tensor:
    """`x` (T, k) times `weight` -> (T, n), written to `out` if it is given.

    `weight` is (n, k) if `transposed`, as a linear layer stores it; otherwise (k, n). `weight` and `out` are
    such that `is_readable`; `x` is copied where it is not. Sides and dtype: see `is_supported`.
    """
    k, n = weight.shape[::-1] if transposed else weight.shape
    if not is_readable(x):
        x = x.clone(memory_format=torch.contiguous_format)
    if out is None:
        out = x.new_empty(x.shape[0], n)
    tiles = tiles_of(n)
    num_tiles = triton.cdiv(x.shape[0], tiles.rows) * triton.cdiv(n, tiles.columns)
    num_programs = _num_multiprocessors(x.device)
    weight_tile = (tiles.columns, tiles.inner) if transposed else (tiles.inner, tiles.columns)
    launch(
        dense_matmul_kernel,
        (min(num_programs, num_tiles),),
        TensorDescriptor.from_tensor(x, [tiles.rows, tiles.inner]),
        TensorDescriptor.from_tensor(weight, list(weight_tile)),
        TensorDescriptor.from_tensor(out, [tiles.rows, tiles.columns]),
        x.shape[0],
        n,
        k,
        TRANSPOSED=transposed,
        ROWS=tiles.rows,
        COLUMNS=tiles.columns,
        INNER=tiles.inner,
        GROUP=ROW_TILE_GROUP,
        NUM_PROGRAMS=num_programs,
        num_stages=tiles.num_stages,
        num_warps=tiles.num_warps,
    )
    return out


@lru_cache
def _num_multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
