"""The second half of the LoRA branches: rank columns back to features, for all trials in one launch.

Shapes: T rows, R rank columns (the largest padded rank), S siblings, r a trial's own padded rank. Shrunk
tensors are (T, S * R); columns beyond a trial's r are never read.
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.adapter_group import AdapterGroup
from lora_runner.kernels.launch import launch
from lora_runner.kernels.philox import keep_tile
from lora_runner.layout.pass_tables import PassTables

RANK_CHUNK = tl.constexpr(16)
"""Rank columns that one matrix product takes; its smallest size."""
TILE: dict[str, Any] = {"BM": 64, "BN": 128, "num_warps": 8}


@triton.jit
def lora_delta(
    acc,  # (BM, BN) fp32: a tile of a product
    m0,
    n0,
    num_rows,
    shrunk,
    parameters,
    siblings,
    row_blocks,
    block_starts,
    adapter_starts,
    ranks,
    drop_limits,
    dropout_keys,
    micro_steps,
    rank_columns,
    in_features,
    num_layers,
    NUM_SIBLINGS: tl.constexpr,
    TO_INPUTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """`acc` with the LoRA branch of each row's own block added, at rows from m0 and columns from n0.

    Forward, the columns are those of all siblings' outputs, and S B^T of a column's sibling is added. With
    TO_INPUTS they are those of the input, and each sibling's kept(dS A) is added in turn. Every row selects
    its own block's term, so nothing of a neighbour enters, and rows without adapter keep their bits.

    A term takes as many registers as `acc`: a caller whose tile fills them splits it along its columns first.
    """
    rows = m0 + tl.arange(0, BM)
    columns = n0 + tl.arange(0, BN)
    block = tl.load(row_blocks + m0)
    last_block = tl.load(row_blocks + tl.minimum(m0 + BM, num_rows) - 1)
    while block <= last_block:
        rank = tl.multiple_of(tl.load(ranks + block), 8)
        if rank > 0:
            first_row = tl.load(block_starts + block)
            own_rows = (rows >= first_row) & (rows < tl.load(block_starts + block + 1))
            start = tl.multiple_of(tl.load(adapter_starts + block), 8)
            for sibling in range(NUM_SIBLINGS):
                before = tl.load(siblings + sibling * 4)
                first = tl.multiple_of(tl.load(siblings + sibling * 4 + 2).to(tl.int32), 16)
                out_features = tl.load(siblings + sibling * 4 + 3).to(tl.int32)
                left = shrunk + sibling * rank_columns
                if TO_INPUTS:
                    a = parameters + start + tl.multiple_of(rank * before, 8)
                    own_columns = columns < in_features
                    term = _term(
                        left, a, rows, columns, own_rows, own_columns, rank, rank_columns * NUM_SIBLINGS,
                        in_features, 1, BM, BN,
                    )  # fmt: skip
                    own = own_rows[:, None] & own_columns[None, :]
                    limit = tl.load(drop_limits + block)
                    if limit > 0:
                        layer = tl.load(siblings + sibling * 4 + 1)
                        key0 = tl.load(dropout_keys + block * num_layers + layer)
                        key1 = tl.load(micro_steps + block)
                        own = own & keep_tile(m0 - first_row, n0, in_features, limit, key0, key1, BM, BN)
                    acc = tl.where(own, acc + term, acc)
                elif (first < n0 + BN) & (first + out_features > n0):
                    b = parameters + start + tl.multiple_of(rank * (before + in_features), 8)
                    own_columns = (columns >= first) & (columns < first + out_features)
                    term = _term(
                        left, b, rows, columns - first, own_rows, own_columns, rank,
                        rank_columns * NUM_SIBLINGS, 1, rank, BM, BN,
                    )  # fmt: skip
                    acc = tl.where(own_rows[:, None] & own_columns[None, :], acc + term, acc)
        block += 1
    return acc


@triton.jit
def _term(
    left,
    right,
    rows,
    columns,
    own_rows,
    own_columns,
    rank,
    row_stride,
    rank_stride,
    column_stride,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """left (rows, rank) @ right (rank, columns), summed over ranks in ascending order."""
    term = tl.zeros((BM, BN), tl.float32)
    dtype = left.dtype.element_ty
    first_rank = 0
    while first_rank < rank:
        chunk = first_rank + tl.arange(0, RANK_CHUNK)
        own_ranks = chunk < rank
        part = tl.load(
            left + rows.to(tl.int64)[:, None] * row_stride + chunk[None, :],
            mask=own_rows[:, None] & own_ranks[None, :],
            other=0.0,
        )
        weight = tl.load(
            right + columns.to(tl.int64)[None, :] * column_stride + chunk.to(tl.int64)[:, None] * rank_stride,
            mask=own_ranks[:, None] & own_columns[None, :],
            other=0.0,
        )
        term = tl.dot(part, weight.to(dtype), term, input_precision="ieee")
        first_rank += RANK_CHUNK
    return term


# Not specialised: passes of other sizes would be compiled again.
@triton.jit(do_not_specialize=["num_rows", "num_layers"])
def lora_expand_kernel(
    out,
    shrunk,
    parameters,
    siblings,
    row_blocks,
    block_starts,
    adapter_starts,
    ranks,
    drop_limits,
    dropout_keys,
    micro_steps,
    num_rows,
    num_columns,
    rank_columns,
    in_features,
    num_layers,
    NUM_SIBLINGS: tl.constexpr,
    TO_INPUTS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """out (T, num_columns) += the LoRA branches, a tile per program."""
    m0 = tl.program_id(0) * BM
    n0 = tl.program_id(1) * BN
    rows = m0 + tl.arange(0, BM)
    columns = n0 + tl.arange(0, BN)
    here = out + rows.to(tl.int64)[:, None] * num_columns + columns[None, :]
    inside = (rows < num_rows)[:, None] & (columns < num_columns)[None, :]
    acc = tl.load(here, mask=inside, other=0.0).to(tl.float32)
    acc = lora_delta(
        acc, m0, n0, num_rows, shrunk, parameters, siblings, row_blocks, block_starts, adapter_starts, ranks,
        drop_limits, dropout_keys, micro_steps, rank_columns, in_features, num_layers, NUM_SIBLINGS,
        TO_INPUTS, BM, BN,
    )  # fmt: skip
    tl.store(here, acc.to(out.dtype.element_ty), mask=inside)


def expand_outputs_(
    out: Tensor, s: Tensor, parameters: Tensor, group: AdapterGroup, tables: PassTables, rank_columns: int
) -> None:
    """Add S B^T to out (T, sum of out features), in place; s (T, S * R) in out's dtype."""
    _expand(out, s, parameters, group, tables, rank_columns, to_inputs=False)


def expand_inputs_(
    dx: Tensor, ds: Tensor, parameters: Tensor, group: AdapterGroup, tables: PassTables, rank_columns: int
) -> None:
    """Add each sibling's kept(dS A) to dx (T, in), in place; ds (T, S * R) in dx's dtype."""
    _expand(dx, ds, parameters, group, tables, rank_columns, to_inputs=True)


def _expand(
    out: Tensor,
    shrunk: Tensor,
    parameters: Tensor,
    group: AdapterGroup,
    tables: PassTables,
    rank_columns: int,
    *,
    to_inputs: bool,
) -> None:
    num_rows, num_columns = out.shape
    launch(
        lora_expand_kernel,
        (triton.cdiv(num_rows, TILE["BM"]), triton.cdiv(num_columns, TILE["BN"])),
        out,
        shrunk,
        parameters,
        group.siblings,
        tables.row_blocks,
        tables.block_starts,
        tables.adapter_starts,
        tables.ranks,
        tables.drop_limits,
        tables.dropout_keys,
        tables.micro_steps,
        num_rows,
        num_columns,
        rank_columns,
        group.in_features,
        tables.shape.num_layers,
        NUM_SIBLINGS=group.num_siblings,
        TO_INPUTS=to_inputs,
        **TILE,
    )
