"""Weights of bitsandbytes in 4 bits (NF4, FP4) written into a given tensor, in one launch.

The same bits as bitsandbytes' own, which takes three launches where the scales are quantized too.
Source of the format: QLoRA (Dettmers et al., 2023).
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.launch import launch

PROGRAM_BYTES = 2048
"""Packed bytes of a program: 16 a thread."""
ROUNDED_TO = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


def is_supported(packed: Tensor, state: Any) -> bool:
    """Whether the kernel reads a weight with this bitsandbytes `QuantState`."""
    scales = state.state2.absmax if state.nested else state.absmax
    return (
        packed.is_contiguous()
        and (packed.ndim == 1 or packed.shape[0] != 1)  # a single row means transposed to bitsandbytes
        and scales.dtype == torch.float32
        and state.dtype in ROUNDED_TO
        and not getattr(state, "packing_format_for_cpu", False)
    )


@triton.jit
def dequantize_kernel(
    out,
    packed,
    code,
    scales,
    nested_code,
    nested_scales,
    offset,
    num_elements,
    NESTED: tl.constexpr,
    ROUNDED_TO: tl.constexpr,
    BLOCK: tl.constexpr,
    NESTED_BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    ALL_FULL: tl.constexpr,
):
    """BLOCKS blocks of weights per program; the first weight of a byte is in its upper half.

    ALL_FULL: the last block is as long as the others. A mask by block then leaves loads of 16 bytes whole.
    """
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    exists = block * BLOCK < num_elements
    if NESTED:
        step = tl.load(scales + block, mask=exists, other=0).to(tl.int32)
        factor = tl.load(nested_scales + block // NESTED_BLOCK, mask=exists, other=0.0)
        scale = tl.load(nested_code + step) * factor + tl.load(offset)
    else:
        scale = tl.load(scales + block, mask=exists, other=0.0)
    byte = block[:, None] * (BLOCK // 2) + tl.arange(0, BLOCK // 2)[None, :]
    element = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    if ALL_FULL:
        here = tl.broadcast_to(exists[:, None], (BLOCKS, BLOCK // 2))
        written = tl.broadcast_to(exists[:, None], (BLOCKS, BLOCK))
    else:
        here = byte * 2 < num_elements
        written = element < num_elements
    both = tl.load(packed + byte, mask=here, other=0).to(tl.int32)
    first = tl.load(code + (both >> 4)) * scale[:, None]
    second = tl.load(code + (both & 15)) * scale[:, None]
    weight = tl.interleave(first, second).to(ROUNDED_TO)
    tl.store(out + element, weight.to(out.dtype.element_ty), mask=written)


def dequantize_4bit_into(out: Tensor, packed: Tensor, state: Any) -> None:
    """Write the weight of `state`, bitsandbytes' `QuantState`, to `out`.

    `out` is contiguous, has the weight's number of elements, and may be rows of a larger tensor. Where its
    dtype is not that of the state, weights are rounded to the state's first, as bitsandbytes rounds them.
    """
    if out.numel() != state.shape.numel() or not out.is_contiguous():
        raise ValueError(
            f"a weight of {tuple(state.shape)} is dequantized into a contiguous tensor of as many elements, "
            f"not of {tuple(out.shape)}"
        )
    inner: Any = state.state2 if state.nested else None
    blocks = max(1, PROGRAM_BYTES // (state.blocksize // 2))
    launch(
        dequantize_kernel,
        (triton.cdiv(out.numel(), state.blocksize * blocks),),
        out,
        packed.view(torch.uint8),
        state.code,
        state.absmax,
        inner.code if inner else None,
        inner.absmax if inner else None,
        state.offset if inner else None,
        out.numel(),
        NESTED=inner is not None,
        ROUNDED_TO=ROUNDED_TO[state.dtype],
        BLOCK=state.blocksize,
        NESTED_BLOCK=inner.blocksize if inner else 1,
        BLOCKS=blocks,
        ALL_FULL=out.numel() % state.blocksize == 0,
        num_warps=4,
        # bitsandbytes rounds the product with a scale before it adds the offset.
        enable_fp_fusion=False,
    )
