"""One product of all rows of a pass with a frozen weight, each row with the same bits as on its own.

A persistent kernel with tensor memory descriptors computes every product of every layer: one program adds up
all of k in order, whatever the number of rows. Other rows of a tile never enter a sum, finite or not.

Multiprocessors take a tile each, in rounds. Where most of them would be idle in the last round, its tiles are
halved. An element of a half has the same bits: an instruction multiplies fewer columns then, but adds up as
many of k. That this holds on a device is part of its certificate.

Shapes: T rows of a pass, k and n the sides of a weight.
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from functools import lru_cache

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
ROWS, COLUMNS, INNER = 128, 256, 64
"""Of a tile, and of k in one step."""
ROW_TILE_GROUP = 8
"""Row tiles that go through the same columns together, so that both operands stay in the L2 cache."""
STAGES, STAGES_OF_HALVES = tl.constexpr(3), tl.constexpr(4)
"""Steps that are loaded at once: as many as fit into shared memory."""
NUM_PROGRAMS = {"cpu": 4, "meta": 132}
"""Of the interpreter, and where nothing runs; on CUDA one for each multiprocessor."""


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
    weight_halves,
    out,
    out_halves,
    num_rows,
    n,
    k,
    TRANSPOSED: tl.constexpr,
    HALVES_LAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr,
):
    """out (num_rows, n) = x (num_rows, k) times weight, (n, k) if TRANSPOSED, else (k, n).

    All are descriptors; those of halves have half of the columns. HALVES_LAST: tiles of the last round are
    halved if all halves then have a multiprocessor of their own.
    """
    HALF: tl.constexpr = COLUMNS // 2
    row_tiles = tl.cdiv(num_rows, ROWS)
    column_tiles = tl.cdiv(n, COLUMNS)
    num_tiles = row_tiles * column_tiles
    num_whole = num_tiles
    if HALVES_LAST:
        num_last = num_tiles % NUM_PROGRAMS
        if num_last * 2 <= NUM_PROGRAMS:
            num_whole = num_tiles - num_last
    for tile in tl.range(tl.program_id(0), num_whole, NUM_PROGRAMS, flatten=True):
        row_tile, column_tile = _tile_at(tile, row_tiles, column_tiles, GROUP)
        row, column = row_tile * ROWS, column_tile * COLUMNS
        total = _sum_of_products(x, weight, row, column, k, TRANSPOSED, ROWS, COLUMNS, INNER, STAGES)
        out.store([row, column], total.to(out.dtype))
    if HALVES_LAST:
        for half in tl.range(tl.program_id(0), (num_tiles - num_whole) * 2, NUM_PROGRAMS, flatten=True):
            row_tile, column_tile = _tile_at(num_whole + half // 2, row_tiles, column_tiles, GROUP)
            row, column = row_tile * ROWS, column_tile * COLUMNS + half % 2 * HALF
            total = _sum_of_products(
                x, weight_halves, row, column, k, TRANSPOSED, ROWS, HALF, INNER, STAGES_OF_HALVES
            )
            out_halves.store([row, column], total.to(out_halves.dtype))


@triton.jit
def _tile_at(tile, row_tiles, column_tiles, GROUP: tl.constexpr):
    """Which row tile and column tile comes in which place: GROUP row tiles at a time, column by column."""
    group_size = GROUP * column_tiles
    first_row_tile = tile // group_size * GROUP
    height = min(row_tiles - first_row_tile, GROUP)
    return first_row_tile + tile % group_size % height, tile % group_size // height


@triton.jit
def _sum_of_products(
    x,
    weight,
    row,
    column,
    k,
    TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """A tile (ROWS, COLUMNS) in float32: all of k, in ascending order."""
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for step in tl.range(0, tl.cdiv(k, INNER), num_stages=NUM_STAGES):
        left = x.load([row, step * INNER])
        right = weight.load([column, step * INNER]).T if TRANSPOSED else weight.load([step * INNER, column])
        total = tl.dot(left, right, total, input_precision="ieee")
    return total


def dense_matmul(
    x: Tensor, weight: Tensor, *, transposed: bool, out: Tensor | None = None, halves_last: bool = True
) -> Tensor:
    """`x` (T, k) times `weight` -> (T, n), written to `out` if it is given.

    `weight` is (n, k) if `transposed`, as a linear layer stores it; otherwise (k, n). `weight` and `out` are
    such that `is_readable`; `x` is copied where it is not. Sides and dtype: see `is_supported`. Without
    `halves_last` all tiles have one size.
    """
    k, n = weight.shape[::-1] if transposed else weight.shape
    if not is_readable(x):
        x = x.clone(memory_format=torch.contiguous_format)
    if out is None:
        out = x.new_empty(x.shape[0], n)
    num_programs = _num_programs(x.device)
    weights = [
        TensorDescriptor.from_tensor(weight, [columns, INNER] if transposed else [INNER, columns])
        for columns in (COLUMNS, COLUMNS // 2)
    ]
    outs = [TensorDescriptor.from_tensor(out, [ROWS, columns]) for columns in (COLUMNS, COLUMNS // 2)]
    launch(
        dense_matmul_kernel,
        (num_programs,),
        TensorDescriptor.from_tensor(x, [ROWS, INNER]),
        *weights,
        *outs,
        x.shape[0],
        n,
        k,
        TRANSPOSED=transposed,
        HALVES_LAST=halves_last,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        INNER=INNER,
        GROUP=ROW_TILE_GROUP,
        NUM_PROGRAMS=num_programs,
        num_warps=8,
    )
    return out


@lru_cache
def _num_programs(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return NUM_PROGRAMS[device.type]
