"""torch's memory-efficient attention, which needs CUDA, computed by its fused attention for CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    compute_log_sumexp: bool,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor, ...]:
    assert query.shape[1] == key.shape[1]  # the kernel does not support grouped heads
    assert bias is None or bias.shape == (*query.shape[:3], key.shape[2])
    out, log_sumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=bias, scale=scale
    )
    none = torch.empty((), dtype=torch.int64)
    return out, log_sumexp, none, none


def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    out: Tensor,
    log_sumexp: Tensor,
    seed: Tensor,
    offset: Tensor,
    dropout_p: float,
    grad_input_mask: list[bool],
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Any, ...]:
    assert torch.are_deterministic_algorithms_enabled()
    grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        grad, query, key, value, out, log_sumexp, dropout_p, is_causal, attn_mask=bias, scale=scale
    )
    return (*grads, None)


@contextmanager
def registered() -> Iterator[None]:
    """Let torch's functions for CUDA take CPU tensors too."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_scaled_dot_product_efficient_attention", _forward, "CPU")
    library.impl("_scaled_dot_product_efficient_attention_backward", _backward, "CPU")
    try:
        yield
    finally:
        library._destroy()
