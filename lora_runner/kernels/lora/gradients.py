"""Gradients of the LoRA matrices of all trials in one launch, added to the flat buffer.

A program owns one tile of one matrix of one block: it sums over the block's rows in order, and adds to the
buffer by load and store. Shapes as in `shrink.py`.
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.adapter_group import AdapterGroup
from lora_runner.kernels.launch import launch
from lora_runner.kernels.lora.output_tiles import sibling_of_tile
from lora_runner.kernels.lora.shrink import NARROW, WIDE, row_stride
from lora_runner.kernels.philox import keep_tile
from lora_runner.layout.pass_tables import TILE_ROWS, PassTables

OPTIONS: dict[str, Any] = {"BM": TILE_ROWS, "BN": 64, "num_warps": 4}


@triton.jit(do_not_specialize=["num_layers"])
def lora_gradients_kernel(
    gradients,
    x,
    dy,
    s,
    ds,
    siblings,
    block_starts,
    adapter_starts,
    ranks,
    drop_limits,
    dropout_keys,
    micro_steps,
    x_stride,
    dy_stride,
    rank_columns,
    in_features,
    num_layers,
    NUM_SIBLINGS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """dA (r, in) += dS^T kept(x) and dB (out, r) += dy^T S; tiles of all A come first."""
    block = tl.program_id(1)
    rank = tl.multiple_of(tl.load(ranks + block), 8)
    first_row = tl.load(block_starts + block)
    stop_row = tl.load(block_starts + block + 1)
    first_rank = tl.program_id(2) * WIDE
    if (first_rank >= rank) | (first_row >= stop_row):
        return
    start = tl.multiple_of(tl.load(adapter_starts + block), 8)
    tiles_of_a = tl.cdiv(in_features, BN)
    tile = tl.program_id(0)
    if tile < NUM_SIBLINGS * tiles_of_a:
        sibling = tile // tiles_of_a
        first_column = tile % tiles_of_a * BN
        before = tl.load(siblings + sibling * 4)
        matrix = gradients + start + tl.multiple_of(rank * before, 8)
        limit = tl.load(drop_limits + block)
        key0 = tl.load(dropout_keys + block * num_layers + tl.load(siblings + sibling * 4 + 1))
        key1 = tl.load(micro_steps + block)
        shrunk = ds + sibling * rank_columns
        if rank <= NARROW:
            _gradient_tile(
                matrix, x, shrunk, first_row, stop_row, first_column, in_features, first_rank, rank,
                x_stride, NUM_SIBLINGS * rank_columns, limit, key0, key1, True, NARROW, BM, BN,
            )  # fmt: skip
        else:
            _gradient_tile(
                matrix, x, shrunk, first_row, stop_row, first_column, in_features, first_rank, rank,
                x_stride, NUM_SIBLINGS * rank_columns, limit, key0, key1, True, WIDE, BM, BN,
            )  # fmt: skip
    else:
        tile -= NUM_SIBLINGS * tiles_of_a
        sibling, first_tile, features = sibling_of_tile(siblings, tile, NUM_SIBLINGS, BN)
        first_column = (tile - first_tile) * BN
        before = tl.load(siblings + sibling * 4)
        matrix = gradients + start + tl.multiple_of(rank * (before + in_features), 8)
        shrunk = s + sibling * rank_columns
        values = dy + tl.multiple_of(tl.load(siblings + sibling * 4 + 2), 16)
        zero = tl.zeros((), tl.int64)
        if rank <= NARROW:
            _gradient_tile(
                matrix, values, shrunk, first_row, stop_row, first_column, features, first_rank, rank,
                dy_stride, NUM_SIBLINGS * rank_columns, 0, zero, zero, False, NARROW, BM, BN,
            )  # fmt: skip
        else:
            _gradient_tile(
                matrix, values, shrunk, first_row, stop_row, first_column, features, first_rank, rank,
                dy_stride, NUM_SIBLINGS * rank_columns, 0, zero, zero, False, WIDE, BM, BN,
            )  # fmt: skip


@triton.jit
def _gradient_tile(
    matrix, values, shrunk, first_row, stop_row, first_column, num_features, first_rank, rank,
    row_stride, shrunk_stride, limit, key0, key1,
    OF_A: tl.constexpr, WIDTH: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Add values^T (BN columns) times shrunk (WIDTH rank columns), over the block's rows in order."""
    columns = first_column + tl.arange(0, BN)
    own_columns = columns < num_features
    chunk = first_rank + tl.arange(0, WIDTH)
    own_ranks = chunk < rank
    total = tl.zeros((BN, WIDTH), tl.float32)
    row = first_row
    value, right = _rows(
        values, shrunk, row, stop_row, columns, own_columns, chunk, own_ranks, row_stride, shrunk_stride, BM
    )
    while row < stop_row:
        # Loaded while the rows before are multiplied: Triton pipelines no while loop.
        next_value, next_right = _rows(
            values, shrunk, row + BM, stop_row, columns, own_columns, chunk, own_ranks,
            row_stride, shrunk_stride, BM,
        )  # fmt: skip
        if limit > 0:
            keep = keep_tile(row - first_row, first_column, num_features, limit, key0, key1, BM, BN)
            value = tl.where(keep, value, 0.0)
        total = tl.dot(tl.trans(value), right, total, input_precision="ieee")
        value = next_value
        right = next_right
        row += BM
    if OF_A:
        places = matrix + chunk.to(tl.int64)[None, :] * num_features + columns[:, None]
    else:
        places = matrix + columns.to(tl.int64)[:, None] * rank + chunk[None, :]
    own = own_columns[:, None] & own_ranks[None, :]
    tl.store(places, tl.load(places, mask=own) + total, mask=own)


@triton.jit
def _rows(
    values, shrunk, row, stop_row, columns, own_columns, chunk, own_ranks, row_stride, shrunk_stride,
    BM: tl.constexpr,
):  # fmt: skip
    """BM rows of both factors, zeros from `stop_row` on."""
    rows = (row + tl.arange(0, BM)).to(tl.int64)[:, None]
    own_rows = rows < stop_row
    value = tl.load(values + rows * row_stride + columns[None, :], own_rows & own_columns[None, :], 0.0)
    right = tl.load(shrunk + rows * shrunk_stride + chunk[None, :], own_rows & own_ranks[None, :], 0.0)
    return value, right


def add_adapter_gradients(
    gradients: Tensor,
    x: Tensor,
    dy: Tensor,
    s: Tensor,
    ds: Tensor,
    group: AdapterGroup,
    tables: PassTables,
    rank_columns: int,
) -> None:
    """Add dA = dS^T kept(x) and dB = dy^T S of every block and sibling to the flat fp32 `gradients`.

    x (T, in), dy (T, sum of out features), s and ds (T, S * R) in one dtype.
    """
    tile = OPTIONS["BN"]
    tiles_of_a = group.num_siblings * triton.cdiv(group.in_features, tile)
    tiles_of_b = sum(triton.cdiv(out, tile) for out in group.out_features)
    launch(
        lora_gradients_kernel,
        (tiles_of_a + tiles_of_b, tables.shape.num_blocks, triton.cdiv(rank_columns, WIDE.value)),
        gradients,
        x,
        dy,
        s,
        ds,
        group.siblings,
        tables.block_starts,
        tables.adapter_starts,
        tables.ranks,
        tables.drop_limits,
        tables.dropout_keys,
        tables.micro_steps,
        row_stride(x),
        row_stride(dy),
        rank_columns,
        group.in_features,
        tables.shape.num_layers,
        NUM_SIBLINGS=group.num_siblings,
        **OPTIONS,
    )
