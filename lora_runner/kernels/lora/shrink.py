"""The first half of the LoRA branches: features to rank columns, for all trials in one launch.

A program takes 64 rows of one block, one sibling and a chunk of its columns. Where a layer has more than one
chunk, a second launch adds them up in order and scales the sum; the width of a chunk follows from the layer's
columns alone.

Shapes: T rows, R rank columns (the largest padded rank), S siblings, r a trial's own padded rank, C chunks of
all siblings. Shrunk tensors are (T, S * R); columns beyond a trial's r are neither written nor read.
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.adapter_group import AdapterGroup
from lora_runner.kernels.launch import launch
from lora_runner.kernels.lora.output_tiles import sibling_of_tile, tiles_of_sibling
from lora_runner.kernels.philox import keep_tile
from lora_runner.layout.pass_tables import TILE_ROWS, PassTables

CHUNK = 1024
"""Columns of a program: few enough that one trial's rows keep many multiprocessors busy. Layers of up to
twice as many are one chunk: the second launch would take the time that it saves."""
NARROW = tl.constexpr(16)
"""Rank columns of a program for trials of at most this rank."""
WIDE = tl.constexpr(64)
"""Rank columns of a program for all others, which so read their rows and draw their masks once up to r 64."""
SUM_COLUMNS = tl.constexpr(16)
OPTIONS: dict[str, Any] = {"BM": TILE_ROWS, "BK": 64, "num_warps": 4, "num_stages": 5, "maxnreg": 160}
"""Five stages take 58 KiB of shared memory, so that three programs share a multiprocessor. `maxnreg` is what
these three have in registers; without it the compiler takes fewer on capability 10 and spills one."""


# Not specialised: passes of other sizes would be compiled again.
@triton.jit(do_not_specialize=["num_rows", "num_layers"])
def lora_shrink_kernel(
    out,
    left,
    parameters,
    siblings,
    row_tiles,
    block_starts,
    adapter_starts,
    ranks,
    scales,
    drop_limits,
    dropout_keys,
    micro_steps,
    num_rows,
    left_stride,
    rank_columns,
    in_features,
    num_layers,
    NUM_SIBLINGS: tl.constexpr,
    OF_INPUTS: tl.constexpr,
    ONE_CHUNK: tl.constexpr,
    CHUNK: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
):
    """out (C, T, R) fp32 = left (T, features) times A^T or B, by chunk.

    If ONE_CHUNK, out is the scaled result instead, (T, S * R) in left's dtype.
    """
    block = tl.load(row_tiles + tl.program_id(0) * 2)
    if block < 0:
        return
    rank = tl.multiple_of(tl.load(ranks + block), 8)
    first_rank = tl.program_id(2) * WIDE
    if first_rank >= rank:
        return
    first_row = tl.load(row_tiles + tl.program_id(0) * 2 + 1)
    if OF_INPUTS:
        chunks_each = tl.cdiv(in_features, CHUNK)
        sibling = tl.program_id(1) // chunks_each
        first_chunk = sibling * chunks_each
        num_features = in_features
    else:
        sibling, first_chunk, num_features = sibling_of_tile(siblings, tl.program_id(1), NUM_SIBLINGS, CHUNK)
    before = tl.load(siblings + sibling * 4)
    start = tl.multiple_of(tl.load(adapter_starts + block), 8)
    first_column = (tl.program_id(1) - first_chunk) * CHUNK
    if OF_INPUTS:
        weights = parameters + start + tl.multiple_of(rank * before, 8)
    else:
        weights = parameters + start + tl.multiple_of(rank * (before + in_features), 8)
        left += tl.multiple_of(tl.load(siblings + sibling * 4 + 2), 16)
    if ONE_CHUNK:
        out += sibling * rank_columns
        row_stride = NUM_SIBLINGS * rank_columns
        scale = tl.load(scales + block)
    else:
        out += tl.program_id(1).to(tl.int64) * num_rows * rank_columns
        row_stride = rank_columns
        scale = 1.0
    stop_row = tl.load(block_starts + block + 1)
    block_row = first_row - tl.load(block_starts + block)
    limit = 0
    key0 = tl.zeros((), tl.int64)
    key1 = tl.zeros((), tl.int64)
    if OF_INPUTS:
        limit = tl.load(drop_limits + block)
        key0 = tl.load(dropout_keys + block * num_layers + tl.load(siblings + sibling * 4 + 1))
        key1 = tl.load(micro_steps + block)
    if rank <= NARROW:
        _shrink_tile(
            out, left, weights, first_row, stop_row, first_column, num_features, first_rank, rank,
            left_stride, row_stride, in_features, scale, block_row, limit, key0, key1,
            OF_INPUTS, NARROW, CHUNK, BM, BK,
        )  # fmt: skip
    else:
        _shrink_tile(
            out, left, weights, first_row, stop_row, first_column, num_features, first_rank, rank,
            left_stride, row_stride, in_features, scale, block_row, limit, key0, key1,
            OF_INPUTS, WIDE, CHUNK, BM, BK // 2,
        )  # fmt: skip


@triton.jit
def _shrink_tile(
    out, left, weights, first_row, stop_row, first_column, num_features, first_rank, rank, left_stride,
    row_stride, in_features, scale, block_row, limit, key0, key1, OF_INPUTS: tl.constexpr,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Store one chunk of columns times WIDTH rank columns, summed over columns in ascending order."""
    rows = first_row + tl.arange(0, BM)
    own_rows = rows < stop_row
    chunk = first_rank + tl.arange(0, WIDTH)
    own_ranks = chunk < rank
    left_rows = left + rows.to(tl.int64)[:, None] * left_stride
    total = tl.zeros((BM, WIDTH), tl.float32)
    for step in range(CHUNK // BK):
        columns = first_column + step * BK + tl.arange(0, BK)
        own_columns = columns < num_features
        part = tl.load(left_rows + columns[None, :], mask=own_rows[:, None] & own_columns[None, :], other=0.0)
        if OF_INPUTS:
            places = chunk.to(tl.int64)[None, :] * in_features + columns[:, None]
        else:
            places = columns.to(tl.int64)[:, None] * rank + chunk[None, :]
        weight = tl.load(weights + places, mask=own_columns[:, None] & own_ranks[None, :], other=0.0)
        if limit > 0:
            first = first_column + step * BK
            keep = keep_tile(block_row, first, in_features, limit, key0, key1, BM, BK)
            part = tl.where(keep, part, 0.0)
        total = tl.dot(part, weight.to(part.dtype), total, input_precision="ieee")
    tl.store(
        out + rows.to(tl.int64)[:, None] * row_stride + chunk[None, :],
        (total * scale).to(out.dtype.element_ty),
        mask=own_rows[:, None] & own_ranks[None, :],
    )


@triton.jit(do_not_specialize=["num_rows"])
def lora_sum_chunks_kernel(
    out,
    chunks,
    siblings,
    row_tiles,
    block_starts,
    ranks,
    scales,
    num_rows,
    rank_columns,
    in_features,
    NUM_SIBLINGS: tl.constexpr,
    OF_INPUTS: tl.constexpr,
    MOST_CHUNKS: tl.constexpr,
    CHUNK: tl.constexpr,
    BM: tl.constexpr,
):
    """out (T, S * R) = scale times the sum of each sibling's chunks (C, T, R), in their order."""
    block = tl.load(row_tiles + tl.program_id(0) * 2)
    if block < 0:
        return
    rank = tl.multiple_of(tl.load(ranks + block), 8)
    columns = tl.program_id(2) * SUM_COLUMNS + tl.arange(0, SUM_COLUMNS)
    if tl.program_id(2) * SUM_COLUMNS >= rank:
        return
    sibling = tl.program_id(1)
    if OF_INPUTS:
        count = tl.cdiv(in_features, CHUNK)
        first = sibling * count
    else:
        first, count = tiles_of_sibling(siblings, sibling, NUM_SIBLINGS, CHUNK)
    first_row = tl.load(row_tiles + tl.program_id(0) * 2 + 1)
    rows = first_row + tl.arange(0, BM)
    own = (rows < tl.load(block_starts + block + 1))[:, None] & (columns < rank)[None, :]
    places = rows.to(tl.int64)[:, None] * rank_columns + columns[None, :]
    size = num_rows.to(tl.int64) * rank_columns
    total = tl.zeros((BM, SUM_COLUMNS), tl.float32)
    for index in tl.static_range(MOST_CHUNKS):
        here = chunks + (first + index) * size
        total += tl.load(here + places, mask=own & (index < count), other=0.0)
    total *= tl.load(scales + block)
    places = rows.to(tl.int64)[:, None] * (NUM_SIBLINGS * rank_columns) + columns[None, :]
    tl.store(out + sibling * rank_columns + places, total.to(out.dtype.element_ty), mask=own)


def shrink_inputs(
    x: Tensor, parameters: Tensor, group: AdapterGroup, tables: PassTables, rank_columns: int
) -> Tensor:
    """Each sibling's S = scale * kept(x) A^T: x (T, in) -> (T, S * R) in x's dtype."""
    features = (group.in_features,) * group.num_siblings
    return _shrink(x, parameters, group, tables, rank_columns, features, of_inputs=True)


def shrink_gradients(
    dy: Tensor, parameters: Tensor, group: AdapterGroup, tables: PassTables, rank_columns: int
) -> Tensor:
    """Each sibling's dS = scale * dy B: dy (T, sum of out features) -> (T, S * R) in dy's dtype."""
    return _shrink(dy, parameters, group, tables, rank_columns, group.out_features, of_inputs=False)


def _shrink(
    left: Tensor,
    parameters: Tensor,
    group: AdapterGroup,
    tables: PassTables,
    rank_columns: int,
    features: tuple[int, ...],
    *,
    of_inputs: bool,
) -> Tensor:
    num_rows = len(left)
    chunk = max(OPTIONS["BK"], triton.next_power_of_2(max(features)))
    if chunk > 2 * CHUNK:
        chunk = CHUNK
    counts = [triton.cdiv(each, chunk) for each in features]
    out = left.new_empty(num_rows, group.num_siblings * rank_columns)
    one_chunk = max(counts) == 1
    chunks = (
        out
        if one_chunk
        else torch.empty(sum(counts), num_rows, rank_columns, dtype=torch.float32, device=left.device)
    )
    num_tiles = tables.shape.num_tiles
    launch(
        lora_shrink_kernel,
        (num_tiles, sum(counts), triton.cdiv(rank_columns, WIDE.value)),
        chunks,
        left,
        parameters,
        group.siblings,
        tables.row_tiles,
        tables.block_starts,
        tables.adapter_starts,
        tables.ranks,
        tables.scales,
        tables.drop_limits,
        tables.dropout_keys,
        tables.micro_steps,
        num_rows,
        row_stride(left),
        rank_columns,
        group.in_features,
        tables.shape.num_layers,
        NUM_SIBLINGS=group.num_siblings,
        OF_INPUTS=of_inputs,
        ONE_CHUNK=one_chunk,
        CHUNK=chunk,
        **OPTIONS,
    )
    if not one_chunk:
        launch(
            lora_sum_chunks_kernel,
            (num_tiles, group.num_siblings, triton.cdiv(rank_columns, SUM_COLUMNS.value)),
            out,
            chunks,
            group.siblings,
            tables.row_tiles,
            tables.block_starts,
            tables.ranks,
            tables.scales,
            num_rows,
            rank_columns,
            group.in_features,
            NUM_SIBLINGS=group.num_siblings,
            OF_INPUTS=of_inputs,
            MOST_CHUNKS=max(counts),
            CHUNK=chunk,
            BM=OPTIONS["BM"],
            num_warps=4,
        )
    return out


def row_stride(rows: Tensor) -> int:
    """Elements from one row to the next. ValueError: columns that are not adjacent."""
    if rows.stride(1) != 1 and rows.shape[1] > 1:
        raise ValueError(f"columns must be adjacent, and are {rows.stride(1)} elements apart")
    return rows.stride(0)
