"""The gradients of causal attention of all sequences and heads of a pass, in two launches.

The first computes dq, tile by tile of rows over the keys before them, and each row's sum of gradient · out.
The second computes dk and dv, tile by tile of keys over the rows that see them. Every sum is added by one
program in a fixed order, so there are no atomics (see Dao, FlashAttention-2, 2023, for the formulas).
"""

# Triton is untyped; mypy cannot check kernels.
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.attention_scores import (
    AttentionOptions,
    HeadTiles,
    capped,
    load_rows,
    store_rows,
    visible,
)
from lora_runner.kernels.launch import launch
from lora_runner.layout.sequence_tables import SequenceTables


@triton.jit
def query_gradient_kernel(
    query,
    key,
    value,
    out,
    grad_out,
    log_sums,
    deltas,
    grad_query,
    tiles,
    query_starts,
    query_lengths,
    query_row,
    query_head,
    key_row,
    key_head,
    value_row,
    value_head,
    grad_row,
    grad_head,
    grad_query_row,
    scale,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    TILE: tl.constexpr,
    KEYS: tl.constexpr,
):
    """grad_query (T, H, D), from KEYS keys at a time, and deltas (T, H): each row's sum of grad_out · out."""
    CHUNKS: tl.constexpr = HEADS // SHARED
    TOKENS: tl.constexpr = TILE // SHARED
    PARTS: tl.constexpr = (TILE + TOKENS - 1) // TOKENS
    program = tl.program_id(0)
    chunk = program % CHUNKS
    tile = program // CHUNKS // PARTS
    part = program // CHUNKS % PARTS
    sequence = tl.load(tiles + 2 * tile)
    if sequence < 0:
        return
    start = tl.load(query_starts + sequence)
    length = tl.load(query_lengths + sequence)
    tile_first = tl.load(tiles + 2 * tile + 1) - start
    first = tile_first + part * TOKENS
    stop = tl.minimum(tl.minimum(first + TOKENS, tile_first + TILE), length)
    if first >= stop:
        return

    rows = tl.arange(0, TILE)
    dims = tl.arange(0, PADDED_SIZE)
    tokens = first + rows // SHARED
    heads = chunk * SHARED + rows % SHARED
    is_row = (tokens < stop) & (rows < TOKENS * SHARED)
    start = start.to(tl.int64)
    group = chunk * SHARED // (HEADS // KEY_HEADS)
    key += start * key_row + group * key_head
    value += start * value_row + group * value_head

    q = load_rows(
        query + start * query_row + (tokens * query_row + heads * query_head)[:, None] + dims[None, :],
        is_row,
        dims,
        HEAD_SIZE,
        PADDED_SIZE,
    )
    do = load_rows(
        grad_out + start * grad_row + (tokens * grad_row + heads * grad_head)[:, None] + dims[None, :],
        is_row,
        dims,
        HEAD_SIZE,
        PADDED_SIZE,
    )
    row_offsets = (start + tokens) * HEADS + heads
    o = load_rows(
        out + row_offsets[:, None] * HEAD_SIZE + dims[None, :], is_row, dims, HEAD_SIZE, PADDED_SIZE
    )
    delta = tl.sum(o.to(tl.float32) * do.to(tl.float32), 1)
    tl.store(deltas + row_offsets, delta, mask=is_row)
    log_sum = tl.load(log_sums + row_offsets, mask=is_row, other=0.0)

    result = tl.zeros((TILE, PADDED_SIZE), tl.float32)
    lowest = 0
    if WINDOW > 0:
        lowest = tl.maximum(first - WINDOW + 1, 0) // KEYS * KEYS
    for block in range(lowest, stop, KEYS):
        places = block + tl.arange(0, KEYS)
        is_key = places < length
        k = load_rows(key + (places * key_row)[:, None] + dims[None, :], is_key, dims, HEAD_SIZE, PADDED_SIZE)
        v = load_rows(
            value + (places * value_row)[:, None] + dims[None, :], is_key, dims, HEAD_SIZE, PADDED_SIZE
        )
        scores, tanh = capped(tl.dot(q, tl.trans(k), input_precision="ieee"), scale, SOFT_CAP)
        seen = visible(tokens[:, None], places[None, :], WINDOW) & is_row[:, None]
        weights = tl.exp2(tl.where(seen, scores - log_sum[:, None], float("-inf")))
        slopes = weights
        if SOFT_CAP > 0.0:
            slopes = weights * (1.0 - tanh * tanh)
        grad_weights = tl.dot(do, tl.trans(v), input_precision="ieee")
        grad_scores = slopes * (grad_weights - delta[:, None])
        result += tl.dot(grad_scores.to(k.dtype), k, input_precision="ieee")
    store_rows(
        grad_query
        + start * grad_query_row
        + (tokens * grad_query_row + heads * HEAD_SIZE)[:, None]
        + dims[None, :],
        result * scale,
        is_row,
        dims,
        HEAD_SIZE,
        PADDED_SIZE,
    )


@triton.jit
def key_gradient_kernel(
    query,
    key,
    value,
    grad_out,
    log_sums,
    deltas,
    grad_key,
    grad_value,
    tiles,
    query_starts,
    query_lengths,
    query_row,
    query_head,
    key_row,
    key_head,
    value_row,
    value_head,
    grad_row,
    grad_head,
    grad_key_row,
    grad_value_row,
    scale,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """grad_key and grad_value (T, G, D), from ROWS rows at a time."""
    TOKENS: tl.constexpr = ROWS // SHARED
    GROUP: tl.constexpr = HEADS // KEY_HEADS
    program = tl.program_id(0)
    group = program % KEY_HEADS
    # From the end of the table, where the keys are that most rows see.
    tile = tl.num_programs(0) // KEY_HEADS - 1 - program // KEY_HEADS
    sequence = tl.load(tiles + 2 * tile)
    if sequence < 0:
        return
    start = tl.load(query_starts + sequence).to(tl.int64)
    length = tl.load(query_lengths + sequence)
    first = (tl.load(tiles + 2 * tile + 1) - start).to(tl.int32)
    stop = length
    if WINDOW > 0:
        stop = tl.minimum(stop, first + TILE + WINDOW - 1)

    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, PADDED_SIZE)
    places = first + tl.arange(0, TILE)
    is_key = places < length
    k = load_rows(
        key + start * key_row + group * key_head + (places * key_row)[:, None] + dims[None, :],
        is_key,
        dims,
        HEAD_SIZE,
        PADDED_SIZE,
    )
    v = load_rows(
        value + start * value_row + group * value_head + (places * value_row)[:, None] + dims[None, :],
        is_key,
        dims,
        HEAD_SIZE,
        PADDED_SIZE,
    )
    query += start * query_row
    grad_out += start * grad_row
    log_sums += start * HEADS
    deltas += start * HEADS

    dk = tl.zeros((TILE, PADDED_SIZE), tl.float32)
    dv = tl.zeros((TILE, PADDED_SIZE), tl.float32)
    for split in range(GROUP // SHARED):
        heads = group * GROUP + split * SHARED + rows % SHARED
        for block in range(first, stop, TOKENS):
            tokens = block + rows // SHARED
            is_row = (tokens < stop) & (rows < TOKENS * SHARED)
            q = load_rows(
                query + (tokens * query_row + heads * query_head)[:, None] + dims[None, :],
                is_row,
                dims,
                HEAD_SIZE,
                PADDED_SIZE,
            )
            do = load_rows(
                grad_out + (tokens * grad_row + heads * grad_head)[:, None] + dims[None, :],
                is_row,
                dims,
                HEAD_SIZE,
                PADDED_SIZE,
            )
            log_sum = tl.load(log_sums + tokens * HEADS + heads, mask=is_row, other=0.0)
            delta = tl.load(deltas + tokens * HEADS + heads, mask=is_row, other=0.0)
            # Transposed, so that the weights are the first operand of the products that follow.
            scores, tanh = capped(tl.dot(k, tl.trans(q), input_precision="ieee"), scale, SOFT_CAP)
            seen = visible(tokens[None, :], places[:, None], WINDOW) & is_row[None, :]
            weights = tl.exp2(tl.where(seen, scores - log_sum[None, :], float("-inf")))
            slopes = weights
            if SOFT_CAP > 0.0:
                slopes = weights * (1.0 - tanh * tanh)
            dv += tl.dot(weights.to(do.dtype), do, input_precision="ieee")
            grad_weights = tl.dot(v, tl.trans(do), input_precision="ieee")
            grad_scores = slopes * (grad_weights - delta[None, :])
            dk += tl.dot(grad_scores.to(q.dtype), q, input_precision="ieee")
    key_offsets = (places * grad_key_row)[:, None] + dims[None, :]
    value_offsets = (places * grad_value_row)[:, None] + dims[None, :]
    grad_key += start * grad_key_row + group * HEAD_SIZE
    grad_value += start * grad_value_row + group * HEAD_SIZE
    store_rows(grad_key + key_offsets, dk * scale, is_key, dims, HEAD_SIZE, PADDED_SIZE)
    store_rows(grad_value + value_offsets, dv, is_key, dims, HEAD_SIZE, PADDED_SIZE)


def attention_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sums: Tensor,
    tables: SequenceTables,
    options: AttentionOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value: columns of one tensor (T, H + 2 G, D), as siblings' outputs are.

    `out` and `log_sums` are those of `attention_forward` without a cache. `grad_out` (T, H, D) has any
    strides but the last, which is 1. Rows of no sequence are not written.
    """
    heads = HeadTiles.of(query, key)
    constants = heads.constants(options)
    # So that neither registers nor shared memory run out with accumulators of 256 columns.
    is_wide = constants["PADDED_SIZE"] > 128
    counts = (heads.heads, heads.key_heads, heads.key_heads)
    joint = torch.empty(
        (query.shape[0], sum(counts), heads.head_size), dtype=query.dtype, device=query.device
    )
    grad_query, grad_key, grad_value = joint.split(counts, dim=1)
    deltas = torch.empty_like(log_sums)
    sequences = (tables.tiles, tables.query_starts, tables.query_lengths)
    strides = [stride for x in (query, key, value, grad_out) for stride in x.stride()[:2]]
    launch(
        query_gradient_kernel,
        (tables.shape.num_tiles * heads.parts * (heads.heads // heads.shared),),
        query,
        key,
        value,
        out,
        grad_out,
        log_sums,
        deltas,
        grad_query,
        *sequences,
        *strides,
        grad_query.stride(0),
        options.scale,
        KEYS=32 if is_wide else 64,
        num_stages=2,
        **constants,
    )
    launch(
        key_gradient_kernel,
        (tables.shape.num_tiles * heads.key_heads,),
        query,
        key,
        value,
        grad_out,
        log_sums,
        deltas,
        grad_key,
        grad_value,
        *sequences,
        *strides,
        grad_key.stride(0),
        grad_value.stride(0),
        options.scale,
        ROWS=16 if is_wide else 32,
        num_stages=2,
        **constants,
    )
    return grad_query, grad_key, grad_value
