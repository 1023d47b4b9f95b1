"""Attention on CUDA whose bits do not depend on what else is in the call.

Flash attention, torch's default there, splits the keys by how many blocks keep the device busy, and adds
query gradients in the order in which blocks end. Memory-efficient attention computes each head of a sequence
separately, also in the backward pass if the keys are not split; torch's deterministic mode ensures that.

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
        with _unsplit_keys():
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
def _unsplit_keys() -> Iterator[None]:
    """torch's deterministic algorithms for the calls inside.

    A whole step cannot use them: they need cuBLAS settings made before the process starts.
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

    Key and value may have fewer heads than the query. Causal without a mask; a boolean mask (1, 1, S, S) says
    what is visible. S and D must be multiples of 8 in bfloat16; otherwise the kernel raises RuntimeError.
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
