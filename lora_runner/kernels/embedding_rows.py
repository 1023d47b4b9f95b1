"""Rows of trained embeddings for all seats in one launch, and their gradients in another.

A row comes from its seat's fp32 copy, cast to the base's dtype, or from the base. One program adds up the
gradient of a copy's row over the tokens that read it, in their order: without atomics, its bits depend on the
seat's own tokens alone.

Shapes: T rows of a pass, h hidden, V vocabulary.
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.launch import launch
from lora_runner.layout.embedding_tables import EmbeddingTables

BLOCK = 1024
"""Columns of a program that reads a row."""
TOKENS, COLUMNS = 8, 512
"""Tokens that a program adds at a time, lane by lane, and its columns."""


@triton.jit
def embedding_rows_kernel(
    parameters,
    weight,
    ids,
    row_places,
    out,
    scale,
    WIDTH: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out (T, WIDTH): the row at a place of `parameters`, or that of the id in `weight` where it is -1."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < WIDTH
    place = tl.load(row_places + row)
    is_own = place >= 0
    own_row = parameters + tl.multiple_of(tl.where(is_own, place, 0), ALIGNMENT)
    own = tl.load(own_row + columns, mask=inside & is_own, other=0.0)
    frozen = tl.load(weight + tl.load(ids + row) * WIDTH + columns, mask=inside & (place < 0), other=0.0)
    values = tl.where(is_own, own.to(frozen.dtype), frozen).to(tl.float32) * scale
    tl.store(out + row * WIDTH + columns, values.to(frozen.dtype), mask=inside)


@triton.jit
def embedding_gradients_kernel(
    gradients,
    grad,
    order,
    group_starts,
    group_places,
    grad_row,
    scale,
    WIDTH: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Add to the row at a group's place the gradients of its tokens; groups that are not used are empty."""
    group = tl.program_id(0)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < WIDTH
    first = tl.load(group_starts + group)
    stop = tl.load(group_starts + group + 1)
    if first < stop:
        into = gradients + tl.multiple_of(tl.load(group_places + group), ALIGNMENT) + columns
        total = tl.zeros((TOKENS, COLUMNS), tl.float32)
        # Not a range: the interpreter of Triton 3.6 has none over loaded bounds.
        while first < stop:
            tokens = first + tl.arange(0, TOKENS)
            is_token = tokens < stop
            rows = tl.load(order + tokens, mask=is_token, other=0).to(tl.int64)
            mask = is_token[:, None] & inside[None, :]
            read = tl.load(grad + rows[:, None] * grad_row + columns[None, :], mask=mask, other=0.0)
            total += read.to(tl.float32)
            first += TOKENS
        before = tl.load(into, mask=inside, other=0.0)
        tl.store(into, before + tl.sum(total, axis=0) * scale, mask=inside)


def embedding_rows(
    parameters: Tensor, weight: Tensor, ids: Tensor, tables: EmbeddingTables, scale: float
) -> Tensor:
    """Embeddings (T, h) of ids (T,), times `scale`, in the dtype of the base's weight (V, h).

    `parameters` is the flat fp32 buffer in which the seats' copies lie.
    """
    num_rows, width = ids.shape[0], weight.shape[1]
    out = torch.empty(num_rows, width, dtype=weight.dtype, device=weight.device)
    launch(
        embedding_rows_kernel,
        (num_rows, triton.cdiv(width, BLOCK)),
        parameters,
        weight,
        ids,
        tables.row_places,
        out,
        scale,
        BLOCK=BLOCK,
        **_options(width),
    )
    return out


def add_embedding_gradients(gradients: Tensor, grad: Tensor, tables: EmbeddingTables, scale: float) -> None:
    """Add the gradients of the copies' rows to the flat fp32 buffer, given those (T, h) of the embeddings."""
    width = grad.shape[1]
    grad = grad if grad.stride(1) == 1 else grad.contiguous()
    launch(
        embedding_gradients_kernel,
        (grad.shape[0], triton.cdiv(width, COLUMNS)),
        gradients,
        grad,
        tables.order,
        tables.group_starts,
        tables.group_places,
        grad.stride(0),
        scale,
        TOKENS=TOKENS,
        COLUMNS=COLUMNS,
        **_options(width),
    )


def _options(width: int) -> dict[str, Any]:
    # Copies start at multiples of more than 16 elements, and of their rows.
    return {"WIDTH": width, "ALIGNMENT": min(16, width & -width), "num_warps": 4, "enable_fp_fusion": False}
