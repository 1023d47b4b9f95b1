"""Attention on CUDA whose bits do not depend on what else is in the call.

Flash attention, torch's choice there, splits the keys by how many blocks would keep the device busy, and adds
the gradients of queries in the order in which blocks end. Memory-efficient attention computes each head of a
sequence by itself, and its backward pass does too as long as the keys are not split, which torch leaves to
its switch for deterministic algorithms.

Shapes: B sequences, H heads, S their length, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _EfficientAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float | None
    ) -> Tensor:
        ctx.is_causal, ctx.scale = bias is None, scale
        out, log_sumexp, seed, offset = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, any(ctx.needs_input_grad), 0.0, ctx.is_causal, scale=scale
        )
        ctx.save_for_backward(query, key, value, bias, out, log_sumexp, seed, offset)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, out, log_sumexp, seed, offset = ctx.saved_tensors
        with _keys_in_one_piece():
            dquery, dkey, dvalue, _ = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
                grads[0],
                query,
                key,
                value,
                bias,
                out,
                log_sumexp,
                seed,
                offset,
                0.0,
                [True, True, True, False],
                ctx.is_causal,
                scale=ctx.scale,
            )
        return dquery, dkey, dvalue, None, None


@contextmanager
def _keys_in_one_piece() -> Iterator[None]:
    """torch's deterministic algorithms for what is called inside, and for nothing else.

    A step as a whole could not have them: they want settings of cuBLAS that are made before it starts.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def invariant_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' sdpa does without dropout; (B, H, S, D) -> (B, S, H, D).

    Key and value may have fewer heads than the query. Causal without a mask; a boolean one (1, 1, S, S) says
    what is seen. S and D are multiples of 8, as the kernel demands in bfloat16; it raises RuntimeError
    otherwise.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    bias = None
    if attention_mask is not None:
        bias = query.new_zeros(attention_mask.shape).masked_fill_(~attention_mask, float("-inf"))
        bias = bias.expand(*query.shape[:3], key.shape[2])
    out: Tensor = _EfficientAttention.apply(query, key, value, bias, scaling)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2), None
