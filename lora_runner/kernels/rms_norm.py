"""RMSNorm and the gradient of its input, one launch each; the weight is frozen.

A row's bits depend on that row alone: one program adds up a whole row, and its configuration follows from the
width only. Source: Root Mean Square Layer Normalization (Zhang and Sennrich, 2019).

Shapes: n rows of width d. Rows may have two strides, as heads of one (T, H * D) tensor do.
"""

# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from lora_runner.kernels.launch import launch

MAX_WIDTH = 16384
"""Columns that one program holds in registers."""
TILE = 2048
"""Elements of a program that computes several narrow rows."""


class NormForm(NamedTuple):
    """In which order a model scales and rounds."""

    adds_one: bool
    """The weight is stored as the difference from 1."""
    rounds_first: bool
    """The normalized row is rounded to the input's dtype before it is multiplied by the weight."""


@triton.jit
def _load_rows(x, rows, num_inner, outer, inner, columns, mask):
    offsets = (rows // num_inner).to(tl.int64) * outer + (rows % num_inner).to(tl.int64) * inner
    return tl.load(x + offsets[:, None] + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _weight_of(weight, columns, WIDTH: tl.constexpr, ADDS_ONE: tl.constexpr):
    values = tl.load(weight + columns, mask=columns < WIDTH, other=0.0).to(tl.float32)
    if ADDS_ONE:
        values += 1.0
    return values[None, :]


@triton.jit
def _inverse_root(values, eps, WIDTH: tl.constexpr):
    """1 / sqrt(mean of squares + eps) of each row."""
    return tl.rsqrt(tl.sum(values * values, axis=1) * (1.0 / WIDTH) + eps)[:, None]


# Not specialized on numbers of rows: another kernel could add in another order. The inner one is that of all
# rows where a model norms its heads after it has transposed them.
@triton.jit(do_not_specialize=["num_rows", "num_inner"])
def rms_norm_kernel(
    x,
    weight,
    out,
    num_rows,
    num_inner,
    x_outer,
    x_inner,
    eps,
    WIDTH: tl.constexpr,
    ADDS_ONE: tl.constexpr,
    ROUNDS_FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out (num_rows, WIDTH), contiguous; x is (num_rows / num_inner, num_inner, WIDTH) with two strides."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    mask = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
    given = _load_rows(x, rows, num_inner, x_outer, x_inner, columns, mask)
    values = given.to(tl.float32)
    normed = values * _inverse_root(values, eps, WIDTH)
    if ROUNDS_FIRST:
        normed = normed.to(given.dtype).to(tl.float32)
    scaled = normed * _weight_of(weight, columns, WIDTH, ADDS_ONE)
    places = rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]
    tl.store(out + places, scaled.to(given.dtype), mask=mask)


@triton.jit(do_not_specialize=["num_rows", "num_inner"])
def rms_norm_backward_kernel(
    grad,
    x,
    weight,
    dx,
    num_rows,
    num_inner,
    grad_outer,
    grad_inner,
    x_outer,
    x_inner,
    eps,
    WIDTH: tl.constexpr,
    ADDS_ONE: tl.constexpr,
    ROUNDS_FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dx (num_rows, WIDTH), contiguous; rows of grad and x are found as in `rms_norm_kernel`."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    mask = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
    given = _load_rows(x, rows, num_inner, x_outer, x_inner, columns, mask)
    values = given.to(tl.float32)
    inverse = _inverse_root(values, eps, WIDTH)
    normed = values * inverse
    dnormed = _load_rows(grad, rows, num_inner, grad_outer, grad_inner, columns, mask).to(tl.float32)
    dnormed *= _weight_of(weight, columns, WIDTH, ADDS_ONE)
    if ROUNDS_FIRST:  # as autograd hands it on
        dnormed = dnormed.to(given.dtype).to(tl.float32)
    along = tl.sum(dnormed * normed, axis=1)[:, None] * (1.0 / WIDTH)
    places = rows.to(tl.int64)[:, None] * WIDTH + columns[None, :]
    tl.store(dx + places, (inverse * (dnormed - normed * along)).to(given.dtype), mask=mask)


def rms_norm(x: Tensor, weight: Tensor, eps: float, form: NormForm) -> Tensor:
    """The normalized `x` (..., d), contiguous; ValueError if d is above `MAX_WIDTH`.

    Heads (B, T, H, D) of a joint tensor are read where they are.
    """
    rows, out = _Rows.of(x), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grid, options = _configuration(rows, form)
    sizes = rows.number, rows.inner, rows.outer, rows.inner_stride
    launch(rms_norm_kernel, grid, rows.x, weight, out, *sizes, eps, **options)
    return out


def rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, eps: float, form: NormForm) -> Tensor:
    """The gradient of `x`, contiguous, given that of the output; see `rms_norm`."""
    rows, grads = _Rows.of(x), _Rows.of(grad)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grid, options = _configuration(rows, form)
    sizes = rows.number, rows.inner, grads.outer, grads.inner_stride, rows.outer, rows.inner_stride
    launch(rms_norm_backward_kernel, grid, grads.x, rows.x, weight, dx, *sizes, eps, **options)
    return dx


class _Rows(NamedTuple):
    """A tensor as rows (outer, inner, d)."""

    x: Tensor
    inner: int
    outer: int
    inner_stride: int

    @property
    def number(self) -> int:
        return self.x.shape[0] * self.inner

    @classmethod
    def of(cls, x: Tensor) -> _Rows:
        # Where 16 bytes would not be aligned, another kernel would add in another order.
        if x.stride(-1) != 1 or x.data_ptr() % 16:
            x = x.clone(memory_format=torch.contiguous_format)
        # By dimensions, not by what can be merged: that may depend on the number of rows. So may whether
        # Triton finds an odd multiple of 8 times an inner number of rows aligned.
        inner = x.shape[-2] if x.dim() > 3 and x.shape[-1] % 16 == 0 else 1
        x = x.reshape(-1, inner, x.shape[-1])
        return cls(x, inner, x.stride(0), x.stride(1) if inner > 1 else 0)


def _configuration(rows: _Rows, form: NormForm) -> tuple[tuple[int], dict[str, Any]]:
    width = rows.x.shape[-1]
    if width > MAX_WIDTH:
        raise ValueError(f"rows of at most {MAX_WIDTH} can be normalized, not of {width}")
    block = triton.next_power_of_2(width)
    per_program = max(1, TILE // block)
    options = {
        "WIDTH": width,
        "ADDS_ONE": form.adds_one,
        "ROUNDS_FIRST": form.rounds_first,
        "ROWS": per_program,
        "BLOCK": block,
        "num_warps": min(16, max(4, block // 512)),
        # Whatever the default of the Triton version, a row's bits stay the same.
        "enable_fp_fusion": False,
    }
    return (triton.cdiv(rows.number, per_program),), options
