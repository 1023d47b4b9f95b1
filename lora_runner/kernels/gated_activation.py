"""act(gate) * up and its gradients, one launch each.

Gate and up may be columns of one (T, 2 I) tensor; their gradients always are, so that the product that comes
next reads them without a copy. Rounding is that of transformers' modules: once after the activation, once
after the product.
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Any, Literal, get_args

import torch
import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.launch import launch

Activation = Literal["silu", "gelu_tanh", "gelu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
BLOCK = 1024
"""Columns of a program, which has one row."""
OPTIONS: dict[str, Any] = {"BLOCK": BLOCK, "num_warps": 4, "enable_fp_fusion": False}


@triton.jit
def _factor(x, KIND: tl.constexpr):
    """act(x) / x: silu and both forms of gelu are x times a smooth step."""
    if KIND == "silu":
        factor = tl.sigmoid(x)
    elif KIND == "gelu_tanh":
        # (1 + tanh(u)) / 2 is sigmoid(2 u), without cancellation.
        factor = tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    else:
        factor = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    return factor


@triton.jit
def _slope(x, factor, KIND: tl.constexpr):
    """The derivative of act at x."""
    if KIND == "silu":
        slope = factor * (1.0 + x * (1.0 - factor))
    elif KIND == "gelu_tanh":
        inner = 1.5957691216057308 * (1.0 + 0.134145 * x * x)
        slope = factor * (1.0 + x * (1.0 - factor) * inner)
    else:
        slope = factor + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    return slope


@triton.jit
def gated_activation_kernel(
    gate, up, out, gate_row, up_row, WIDTH: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr
):
    """out (T, WIDTH), contiguous, from gate and up with these strides between rows."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < WIDTH
    x = tl.load(gate + row * gate_row + columns, mask=mask, other=0.0)
    y = tl.load(up + row * up_row + columns, mask=mask, other=0.0)
    wide = x.to(tl.float32)
    activated = (wide * _factor(wide, KIND)).to(x.dtype).to(tl.float32)
    tl.store(out + row * WIDTH + columns, (activated * y.to(tl.float32)).to(x.dtype), mask=mask)


@triton.jit
def gated_activation_backward_kernel(
    grad,
    gate,
    up,
    joint,
    grad_row,
    gate_row,
    up_row,
    WIDTH: tl.constexpr,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """joint (T, 2 * WIDTH), contiguous: the gradients of gate and of up, side by side."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = columns < WIDTH
    dy = tl.load(grad + row * grad_row + columns, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(gate + row * gate_row + columns, mask=mask, other=0.0)
    y = tl.load(up + row * up_row + columns, mask=mask, other=0.0).to(tl.float32)
    wide = x.to(tl.float32)
    factor = _factor(wide, KIND)
    activated = (wide * factor).to(x.dtype).to(tl.float32)
    dactivated = (dy * y).to(x.dtype).to(tl.float32)  # as autograd hands it on
    into = joint + row * (2 * WIDTH) + columns
    tl.store(into, (dactivated * _slope(wide, factor, KIND)).to(x.dtype), mask=mask)
    tl.store(into + WIDTH, (dy * activated).to(x.dtype), mask=mask)


def gated_activation(gate: Tensor, up: Tensor, kind: Activation) -> Tensor:
    """act(gate) * up: (..., I) -> (..., I), contiguous."""
    rows, other = _rows(gate), _rows(up)
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    strides = rows.stride(0), other.stride(0)
    launch(gated_activation_kernel, _grid(rows), rows, other, out, *strides, gate.shape[-1], kind, **OPTIONS)
    return out


def gated_activation_backward(grad: Tensor, gate: Tensor, up: Tensor, kind: Activation) -> Tensor:
    """The gradients of gate and up side by side (..., 2 I), contiguous, given that of the output."""
    here, rows, other = _rows(grad), _rows(gate), _rows(up)
    width = gate.shape[-1]
    joint = torch.empty((*gate.shape[:-1], 2 * width), dtype=gate.dtype, device=gate.device)
    strides = here.stride(0), rows.stride(0), other.stride(0)
    launch(
        gated_activation_backward_kernel,
        _grid(rows),
        here,
        rows,
        other,
        joint,
        *strides,
        width,
        kind,
        **OPTIONS,
    )
    return joint


def _rows(x: Tensor) -> Tensor:
    """(..., I) as (T, I) with contiguous columns; a copy only where strides do not allow a view."""
    return (x if x.stride(-1) == 1 else x.contiguous()).reshape(-1, x.shape[-1])


def _grid(rows: Tensor) -> tuple[int, int]:
    return rows.shape[0], triton.cdiv(rows.shape[1], BLOCK)
