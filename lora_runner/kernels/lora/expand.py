"""The second half of the LoRA branches: rank columns back to features, for all trials in one launch.

A program takes 64 rows of one block and BN columns of one layer, and adds to them in place. Shapes as in
`shrink.py`.
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
from lora_runner.kernels.lora.shrink import row_stride
from lora_runner.kernels.philox import keep_tile
from lora_runner.layout.pass_tables import TILE_ROWS, PassTables

RANK_CHUNK = tl.constexpr(16)
"""Rank columns that one matrix product takes; its smallest size."""
OPTIONS: dict[str, Any] = {"BM": TILE_ROWS, "BN": 64, "num_warps": 4}
"""Tiles so small that several programs share a multiprocessor: each waits for memory, not for products."""


# Not specialised: passes of other sizes would be compiled again.
@triton.jit(do_not_specialize=["num_layers", "column_tiles"])
def lora_expand_kernel(
    out,
    shrunk,
    parameters,
    siblings,
    row_tiles,
    block_starts,
    adapter_starts,
    ranks,
    drop_limits,
    dropout_keys,
    micro_steps,
    row_stride,
    rank_columns,
    in_features,
    num_layers,
    column_tiles,
    NUM_SIBLINGS: tl.constexpr,
    TO_INPUTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """out (T, features) += S B^T by sibling or, TO_INPUTS, each sibling's kept(dS A) in turn."""
    # One axis, since the others hold 65,535 programs: 4 million rows.
    row_tile, column_tile = tl.program_id(0) // column_tiles, tl.program_id(0) % column_tiles
    block = tl.load(row_tiles + row_tile * 2)
    if block < 0:
        return
    first_row = tl.load(row_tiles + row_tile * 2 + 1)
    rank = tl.multiple_of(tl.load(ranks + block), 8)
    start = tl.multiple_of(tl.load(adapter_starts + block), 8)
    block_start = tl.load(block_starts + block)
    rows = first_row + tl.arange(0, BM)
    own_rows = rows < tl.load(block_starts + block + 1)
    if TO_INPUTS:
        first_column = column_tile * BN
        columns = first_column + tl.arange(0, BN)
        own_columns = columns < in_features
    else:
        sibling, first_tile, features = sibling_of_tile(siblings, column_tile, NUM_SIBLINGS, BN)
        columns = (column_tile - first_tile) * BN + tl.arange(0, BN)
        own_columns = columns < features
        out += tl.multiple_of(tl.load(siblings + sibling * 4 + 2), 16)
    here = out + rows.to(tl.int64)[:, None] * row_stride + columns[None, :]
    own = own_rows[:, None] & own_columns[None, :]
    total = tl.load(here, mask=own, other=0.0).to(tl.float32)
    if TO_INPUTS:
        limit = tl.load(drop_limits + block)
        for sibling in range(NUM_SIBLINGS):
            before = tl.load(siblings + sibling * 4)
            a = parameters + start + tl.multiple_of(rank * before, 8)
            left = shrunk + sibling * rank_columns
            if limit > 0:
                term = _add_product(
                    tl.zeros((BM, BN), tl.float32), left, a, rows, columns, own_rows, own_columns, rank,
                    NUM_SIBLINGS * rank_columns, in_features, 1,
                )  # fmt: skip
                layer = tl.load(siblings + sibling * 4 + 1)
                key0 = tl.load(dropout_keys + block * num_layers + layer)
                key1 = tl.load(micro_steps + block)
                keep = keep_tile(
                    first_row - block_start, first_column, in_features, limit, key0, key1, BM, BN
                )
                total = tl.where(keep, total + term, total)
            else:
                total = _add_product(
                    total, left, a, rows, columns, own_rows, own_columns, rank,
                    NUM_SIBLINGS * rank_columns, in_features, 1,
                )  # fmt: skip
    else:
        before = tl.load(siblings + sibling * 4)
        b = parameters + start + tl.multiple_of(rank * (before + in_features), 8)
        total = _add_product(
            total, shrunk + sibling * rank_columns, b, rows, columns, own_rows, own_columns, rank,
            NUM_SIBLINGS * rank_columns, 1, rank,
        )  # fmt: skip
    tl.store(here, total.to(out.dtype.element_ty), mask=own)


@triton.jit
def _add_product(
    total, left, right, rows, columns, own_rows, own_columns, rank, left_stride, rank_stride, column_stride
):
    """total + left (rows, rank) @ right (rank, columns), over ranks in ascending order."""
    first_rank = 0
    while first_rank < rank:
        chunk = first_rank + tl.arange(0, RANK_CHUNK)
        own_ranks = chunk < rank
        part = tl.load(
            left + rows.to(tl.int64)[:, None] * left_stride + chunk[None, :],
            mask=own_rows[:, None] & own_ranks[None, :],
            other=0.0,
        )
        weight = tl.load(
            right + columns.to(tl.int64)[None, :] * column_stride + chunk.to(tl.int64)[:, None] * rank_stride,
            mask=own_ranks[:, None] & own_columns[None, :],
            other=0.0,
        )
        total = tl.dot(part, weight.to(part.dtype), total, input_precision="ieee")
        first_rank += RANK_CHUNK
    return total


def expand_outputs_(
    out: Tensor, s: Tensor, parameters: Tensor, group: AdapterGroup, tables: PassTables, rank_columns: int
) -> None:
    """Add S B^T to out (T, sum of out features), in place; s (T, S * R) in out's dtype."""
    _expand(out, s, parameters, group, tables, rank_columns, group.out_features, to_inputs=False)


def expand_inputs_(
    dx: Tensor, ds: Tensor, parameters: Tensor, group: AdapterGroup, tables: PassTables, rank_columns: int
) -> None:
    """Add each sibling's kept(dS A) to dx (T, in), in place; ds (T, S * R) in dx's dtype."""
    _expand(dx, ds, parameters, group, tables, rank_columns, (group.in_features,), to_inputs=True)


def _expand(
    out: Tensor,
    shrunk: Tensor,
    parameters: Tensor,
    group: AdapterGroup,
    tables: PassTables,
    rank_columns: int,
    features: tuple[int, ...],
    *,
    to_inputs: bool,
) -> None:
    column_tiles = sum(triton.cdiv(each, OPTIONS["BN"]) for each in features)
    launch(
        lora_expand_kernel,
        (column_tiles * tables.shape.num_tiles,),
        out,
        shrunk,
        parameters,
        group.siblings,
        tables.row_tiles,
        tables.block_starts,
        tables.adapter_starts,
        tables.ranks,
        tables.drop_limits,
        tables.dropout_keys,
        tables.micro_steps,
        row_stride(out),
        rank_columns,
        group.in_features,
        tables.shape.num_layers,
        column_tiles,
        NUM_SIBLINGS=group.num_siblings,
        TO_INPUTS=to_inputs,
        **OPTIONS,
    )
