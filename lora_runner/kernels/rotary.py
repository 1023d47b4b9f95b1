"""Rotary position embeddings of queries and keys in one launch, and of their gradients in another.

Each pair (a, b) of a head becomes (a c - b s, b c' + a s'), with the cosines and sines of its two elements.
The backward pass applies the transposed map. Sums are in fp32, rounded once.
Source: RoFormer (Su et al., 2021).

Shapes: T rows, H heads, D wide; R <= D elements of a head are rotated, the others are copied.
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.launch import launch

PAIRS = 512
"""Pairs that a program rotates: all of a few heads of one row."""


class RotaryForm(NamedTuple):
    """Which elements are pairs, and where their angles are."""

    interleaved: bool
    """Pairs are (0, 1), (2, 3), ...; otherwise element i is paired with i + R / 2."""
    shares_angles: bool
    """Pair i uses the cosine and sine at i; otherwise each element those at its own place."""


@triton.jit
def _rotate(
    x,
    out,
    cos,
    sin,
    head,
    x_head,
    out_head,
    HEADS: tl.constexpr,
    ROTATED: tl.constexpr,
    WIDTH: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    SHARED: tl.constexpr,
    BACKWARD: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
):
    """Rotate the heads `head` of one row; pointers are to that row."""
    pair = tl.arange(0, HALF)
    first = pair * 2 if INTERLEAVED else pair
    second = pair * 2 + 1 if INTERLEAVED else pair + ROTATED // 2
    angle = pair if SHARED else first
    other_angle = pair if SHARED else second
    is_pair = pair < ROTATED // 2
    c = tl.load(cos + angle, mask=is_pair, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + angle, mask=is_pair, other=0.0).to(tl.float32)[None, :]
    c2 = tl.load(cos + other_angle, mask=is_pair, other=0.0).to(tl.float32)[None, :]
    s2 = tl.load(sin + other_angle, mask=is_pair, other=0.0).to(tl.float32)[None, :]
    mask = (head < HEADS)[:, None] & is_pair[None, :]
    heads = head.to(tl.int64)[:, None]
    a = tl.load(x + heads * x_head + first[None, :], mask=mask, other=0.0)
    b = tl.load(x + heads * x_head + second[None, :], mask=mask, other=0.0)
    dtype = a.dtype
    a, b = a.to(tl.float32), b.to(tl.float32)
    if BACKWARD:
        rotated, other = a * c + b * s2, b * c2 - a * s
    else:
        rotated, other = a * c - b * s, b * c2 + a * s2
    tl.store(out + heads * out_head + first[None, :], rotated.to(dtype), mask=mask)
    tl.store(out + heads * out_head + second[None, :], other.to(dtype), mask=mask)
    if WIDTH > ROTATED:
        column = ROTATED + tl.arange(0, REST)
        mask = (head < HEADS)[:, None] & (column < WIDTH)[None, :]
        kept = tl.load(x + heads * x_head + column[None, :], mask=mask, other=0.0)
        tl.store(out + heads * out_head + column[None, :], kept, mask=mask)


@triton.jit
def rotary_kernel(
    q,
    k,
    cos,
    sin,
    q_out,
    k_out,
    q_row,
    q_head,
    k_row,
    k_head,
    q_out_row,
    q_out_head,
    k_out_row,
    k_out_head,
    cos_row,
    sin_row,
    Q_HEADS: tl.constexpr,
    K_HEADS: tl.constexpr,
    ROTATED: tl.constexpr,
    WIDTH: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    SHARED: tl.constexpr,
    BACKWARD: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
):
    """A program for each row and HEADS heads: first those of q, then those of k."""
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    q_groups: tl.constexpr = (Q_HEADS + HEADS - 1) // HEADS
    cos += row * cos_row
    sin += row * sin_row
    if group < q_groups:
        _rotate(
            q + row * q_row,
            q_out + row * q_out_row,
            cos,
            sin,
            group * HEADS + tl.arange(0, HEADS),
            q_head,
            q_out_head,
            Q_HEADS,
            ROTATED,
            WIDTH,
            INTERLEAVED,
            SHARED,
            BACKWARD,
            HALF,
            REST,
        )
    else:
        _rotate(
            k + row * k_row,
            k_out + row * k_out_row,
            cos,
            sin,
            (group - q_groups) * HEADS + tl.arange(0, HEADS),
            k_head,
            k_out_head,
            K_HEADS,
            ROTATED,
            WIDTH,
            INTERLEAVED,
            SHARED,
            BACKWARD,
            HALF,
            REST,
        )


def rotate(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    form: RotaryForm,
    *,
    backward: bool = False,
    in_place: bool = False,
) -> tuple[Tensor, Tensor]:
    """Rotated q (T, H, D) and k (T, H', D), or of gradients by the transposed map; cos and sin (T, R).

    Any strides between rows and heads; the last dimension of q and k must be contiguous. The outputs are new
    contiguous tensors, or q and k themselves.
    """
    q_out, k_out = (x if in_place else torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k))
    width, rotated = q.shape[-1], cos.shape[-1]
    half = triton.next_power_of_2(rotated // 2)
    heads = max(1, PAIRS // half)
    grid = (q.shape[0], triton.cdiv(q.shape[1], heads) + triton.cdiv(k.shape[1], heads))
    strides = [x.stride(d) for x in (q, k, q_out, k_out) for d in (0, 1)]
    options: dict[str, Any] = {
        "Q_HEADS": q.shape[1],
        "K_HEADS": k.shape[1],
        "ROTATED": rotated,
        # In place, what is not rotated stays where it is.
        "WIDTH": rotated if in_place else width,
        "INTERLEAVED": form.interleaved,
        "SHARED": form.shares_angles,
        "BACKWARD": backward,
        "HEADS": heads,
        "HALF": half,
        "REST": triton.next_power_of_2(max(1, width - rotated)),
        "num_warps": 2,  # 16 bytes a load in 16 bits
        "enable_fp_fusion": False,
    }
    launch(
        rotary_kernel, grid, q, k, cos, sin, q_out, k_out, *strides, cos.stride(0), sin.stride(0), **options
    )
    return q_out, k_out
