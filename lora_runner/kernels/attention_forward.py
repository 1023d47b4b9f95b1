"""Causal attention of all sequences and heads of a pass in one launch, forward.

A program computes one tile of rows (tokens and heads, see `attention_scores.py`) with an online softmax in
fp32 (Dao et al., FlashAttention, 2022). A row's numbers depend on its own sequence alone: no other is read,
and the keys are taken in blocks that start at fixed places of the sequence.
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
def attention_forward_kernel(
    query,
    key,
    value,
    out,
    log_sums,
    tiles,
    query_starts,
    query_lengths,
    key_starts,
    key_lengths,
    query_row,
    query_head,
    key_row,
    key_head,
    value_row,
    value_head,
    scale,
    HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr,
    SHARED: tl.constexpr,
    HEAD_SIZE: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    TILE: tl.constexpr,
):
    """out (T, H, D) and log_sums (T, H): log2 of the sum over visible keys of e^score."""
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
    key_length = tl.load(key_lengths + sequence)
    before = key_length - length  # keys before the first query's own

    rows = tl.arange(0, TILE)
    dims = tl.arange(0, PADDED_SIZE)
    tokens = first + rows // SHARED
    heads = chunk * SHARED + rows % SHARED
    is_row = (tokens < stop) & (rows < TOKENS * SHARED)
    positions = tokens + before

    query += start.to(tl.int64) * query_row
    q = load_rows(
        query + (tokens * query_row + heads * query_head)[:, None] + dims[None, :],
        is_row,
        dims,
        HEAD_SIZE,
        PADDED_SIZE,
    )
    group = chunk * SHARED // (HEADS // KEY_HEADS)
    key_start = tl.load(key_starts + sequence).to(tl.int64)
    key += key_start * key_row + group * key_head
    value += key_start * value_row + group * value_head

    largest = tl.full((TILE,), float("-inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    result = tl.zeros((TILE, PADDED_SIZE), tl.float32)
    lowest = 0
    if WINDOW > 0:
        lowest = tl.maximum(first + before - WINDOW + 1, 0) // TILE * TILE
    for block in range(lowest, stop + before, TILE):
        places = block + tl.arange(0, TILE)
        is_key = places < key_length
        k = load_rows(key + (places * key_row)[:, None] + dims[None, :], is_key, dims, HEAD_SIZE, PADDED_SIZE)
        v = load_rows(
            value + (places * value_row)[:, None] + dims[None, :], is_key, dims, HEAD_SIZE, PADDED_SIZE
        )
        scores, _ = capped(tl.dot(q, tl.trans(k), input_precision="ieee"), scale, SOFT_CAP)
        seen = visible(positions[:, None], places[None, :], WINDOW) & is_key[None, :]
        scores = tl.where(seen, scores, float("-inf"))
        new = tl.maximum(largest, tl.max(scores, 1))
        # A row that has seen no key yet: -inf - -inf would be NaN.
        base = tl.where(new == float("-inf"), 0.0, new)
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(largest - base)
        total = total * shrink + tl.sum(weights, 1)
        result = result * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = new
    # A padding row of a pass with a cache has no keys; its result is 0.
    total = tl.where(is_row & (positions >= 0), total, 1.0)
    result = result / total[:, None]
    row_offsets = (start + tokens).to(tl.int64) * HEADS + heads
    store_rows(
        out + row_offsets[:, None] * HEAD_SIZE + dims[None, :], result, is_row, dims, HEAD_SIZE, PADDED_SIZE
    )
    tl.store(log_sums + row_offsets, largest + tl.log2(total), mask=is_row)


def attention_forward(
    query: Tensor, key: Tensor, value: Tensor, tables: SequenceTables, options: AttentionOptions
) -> tuple[Tensor, Tensor]:
    """Attention of every token to its sequence: (T, H, D) and the log2 of each row's sum (T, H) in fp32.

    query (T, H, D), key and value (rows, G, D), of any strides but the last, which is 1. Rows of no sequence
    are not written.
    """
    heads = HeadTiles.of(query, key)
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    log_sums = torch.empty(query.shape[:2], dtype=torch.float32, device=query.device)
    launch(
        attention_forward_kernel,
        (tables.shape.num_tiles * heads.parts * (heads.heads // heads.shared),),
        query,
        key,
        value,
        out,
        log_sums,
        tables.tiles,
        tables.query_starts,
        tables.query_lengths,
        tables.key_starts,
        tables.key_lengths,
        *query.stride()[:2],
        *key.stride()[:2],
        *value.stride()[:2],
        options.scale,
        num_stages=2,
        **heads.constants(options),
    )
    return out, log_sums
