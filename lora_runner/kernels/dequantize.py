"""Weights of bitsandbytes in 4 bits (NF4, FP4) written into a given tensor, several in one launch.

The same bits as bitsandbytes' own, which takes three launches a weight where the scales are quantized too.
Source of the format: QLoRA (Dettmers et al., 2023).
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.launch import launch

PROGRAM_BYTES = 2048
"""Packed bytes of a program: 16 a thread."""
MOST_TOGETHER = 4
"""Weights of a launch: q, k and v, or gate and up, and one more."""
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


def can_share_a_launch(weights: Sequence[tuple[Tensor, Any]]) -> bool:
    """Whether the kernel reads these weights, each with its `QuantState`, in one launch."""
    return len(weights) <= MOST_TOGETHER and (
        all(is_supported(*weight) for weight in weights)
        and len({tuple(_options(state).items()) for _, state in weights}) == 1
    )


@triton.jit
def dequantize_kernel(
    out,
    packed,
    codes,
    scales,
    nested_codes,
    nested_scales,
    offsets,
    sizes,
    COUNT: tl.constexpr,
    NESTED: tl.constexpr,
    ROUNDED_TO: tl.constexpr,
    BLOCK: tl.constexpr,
    NESTED_BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    ALL_FULL: tl.constexpr,
):
    """COUNT weights end to end; each argument but `out` is a tuple with one entry for each weight."""
    program = tl.program_id(0)
    for weight in tl.static_range(COUNT):
        num_programs = tl.cdiv(sizes[weight], BLOCK * BLOCKS)
        if (program >= 0) & (program < num_programs):
            _dequantize(
                out, packed[weight], codes[weight], scales[weight], nested_codes[weight],
                nested_scales[weight], offsets[weight], sizes[weight], program,
                NESTED, ROUNDED_TO, BLOCK, NESTED_BLOCK, BLOCKS, ALL_FULL,
            )  # fmt: skip
        program -= num_programs
        out += sizes[weight]


@triton.jit
def _dequantize(
    out,
    packed,
    code,
    scales,
    nested_code,
    nested_scales,
    offset,
    num_elements,
    program,
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
    block = program.to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
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


def dequantize_4bit_into(out: Tensor, *weights: tuple[Tensor, Any]) -> None:
    """Write weights, each given packed and with bitsandbytes' `QuantState`, to `out`, one after another.

    They `can_share_a_launch`. `out` is contiguous, has as many elements as they have together, and may be
    rows of a larger tensor. Where its dtype is not that of a state, weights are rounded to the state's first,
    as bitsandbytes rounds them.
    """
    sizes = tuple(state.shape.numel() for _, state in weights)
    if out.numel() != sum(sizes) or not out.is_contiguous():
        shapes = ", ".join(str(tuple(state.shape)) for _, state in weights)
        raise ValueError(
            f"a weight of {shapes} is dequantized into a contiguous tensor of as many elements, "
            f"not of {tuple(out.shape)}"
        )
    states = [state for _, state in weights]
    options = _options(states[0])
    per_program = options["BLOCK"] * options["BLOCKS"]
    scales = tuple(state.absmax for state in states)
    # Scales that are not quantized stand for those of scales, which are then not read.
    nested = [(state.state2.code, state.state2.absmax, state.offset) for state in states if state.nested]
    nested_codes, nested_scales, offsets = zip(*nested, strict=True) if nested else (scales,) * 3
    launch(
        dequantize_kernel,
        (sum(triton.cdiv(size, per_program) for size in sizes),),
        out,
        tuple(packed.view(torch.uint8) for packed, _ in weights),
        tuple(state.code for state in states),
        scales,
        nested_codes,
        nested_scales,
        offsets,
        sizes,
        COUNT=len(weights),
        **options,
        num_warps=4,
        # bitsandbytes rounds the product with a scale before it adds the offset.
        enable_fp_fusion=False,
    )


def _options(state: Any) -> dict[str, Any]:
    """What a launch has built in; weights with the same share one."""
    return {
        "NESTED": bool(state.nested),
        "ROUNDED_TO": ROUNDED_TO[state.dtype],
        "BLOCK": state.blocksize,
        "NESTED_BLOCK": state.state2.blocksize if state.nested else 1,
        "BLOCKS": max(1, PROGRAM_BYTES // (state.blocksize // 2)),
        "ALL_FULL": state.shape.numel() % state.blocksize == 0,
    }
