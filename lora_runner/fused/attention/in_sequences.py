"""Attention of a fused pass: one kernel for all sequences and heads of a layer.

Shapes: T rows of a pass, H heads, G key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lora_runner.fused.attention.visible_window import visible_window
from lora_runner.fused.compute_path import NotFusedError
from lora_runner.layers.attention import attend_by
from lora_runner.layout.sequence_tables import SequenceTables
from lora_runner.layout.slot_cache import SlotCache

if TYPE_CHECKING:
    from lora_runner.kernels.attention_scores import AttentionOptions

MAX_HEAD_SIZE = 256
WITHOUT_EFFECT = (
    "cache_position",
    "layer_idx",
    "position_embeddings",
    "position_ids",
    "sliding_window",  # the mask has it
    "use_cache",
)
"""Arguments that models pass to every attention function and that no eager one reads."""


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, tables: SequenceTables, options: AttentionOptions
    ) -> Tensor:
        from lora_runner.kernels.attention_forward import attention_forward

        out, log_sums = attention_forward(query, key, value, tables, options)
        ctx.save_for_backward(query, key, value, out, log_sums)
        ctx.tables, ctx.options = tables, options
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        from lora_runner.kernels.attention_backward import attention_backward

        query, key, value, out, log_sums = ctx.saved_tensors
        grad = grads[0] if grads[0].stride(-1) == 1 else grads[0].contiguous()
        of_inputs = attention_backward(grad, query, key, value, out, log_sums, ctx.tables, ctx.options)
        return *of_inputs, None, None


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, tables: SequenceTables, options: AttentionOptions
) -> Tensor:
    """Attention within each sequence: query (T, H, D), key and value (T, G, D) -> (T, H, D).

    Gradients are columns of one tensor (T, H + 2 G, D), in the order query, key, value.
    """
    query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
    out: Tensor = _Attention.apply(query, key, value, tables, options)  # type: ignore[no-untyped-call]
    return out


def attention_options(
    query: Tensor, key: Tensor, value: Tensor, window: int, arguments: Mapping[str, Any]
) -> AttentionOptions:
    """The options of a call of transformers' attention interface with query (1, H, T, D).

    NotFusedError says what the kernel does not compute.
    """
    from lora_runner.kernels.attention_scores import AttentionOptions

    if len({x.shape[-1] for x in (query, key, value)}) > 1:
        raise NotFusedError("the values of its attention have another head size than the keys")
    if (size := query.shape[-1]) > MAX_HEAD_SIZE:
        raise NotFusedError(f"its head size is {size}, at most {MAX_HEAD_SIZE} is possible")
    if query.shape[1] % key.shape[1] or key.shape[1] != value.shape[1]:
        raise NotFusedError("its query heads do not share key heads evenly")
    if len({x.dtype for x in (query, key, value)}) > 1:
        raise NotFusedError("the queries, keys and values of its attention differ in dtype")
    rest = dict(arguments)
    scale, soft_cap = rest.pop("scaling", None), rest.pop("softcap", None)
    if dropout := rest.pop("dropout", 0.0):
        raise NotFusedError(f"its attention has dropout ({dropout})")
    if rest.pop("is_causal", None) is False:
        raise NotFusedError("its attention is not causal")
    if isinstance(scale, Tensor) or isinstance(soft_cap, Tensor):
        raise NotFusedError("the scaling of its attention is a tensor")
    for name, given in rest.items():
        if name not in WITHOUT_EFFECT and given is not None and given is not False:
            raise NotFusedError(f"its attention takes {name!r}")
    return AttentionOptions(
        scale=float(size**-0.5 if scale is None else scale), window=window, soft_cap=float(soft_cap or 0.0)
    )


@dataclass(frozen=True)
class SequenceMask:
    """Takes the place of transformers' attention mask in a fused pass."""

    tables: SequenceTables
    window: int
    cache: SlotCache | None

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **arguments: Any
    ) -> Tensor:
        """See `layers.attention.PackMask.attend`."""
        options = attention_options(query, key, value, self.window, arguments)
        query, key, value = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
        if self.cache is not None:
            keys, values = self.cache.store(key, value)
            if self.cache.is_filled:
                key, value = keys, values
        return fused_attention(query, key, value, self.tables, options).unsqueeze(0)


@dataclass(frozen=True)
class SequenceAttention:
    """Attention by tables of the sequences."""

    tables: SequenceTables
    cache: SlotCache | None = None

    def mask(self, *, mask_function: Callable[..., Any], **_: Any) -> SequenceMask:
        """See `layers.attention.PackAttention.mask`; NotFusedError for a mask that is no window."""
        return SequenceMask(self.tables, visible_window(mask_function), self.cache)


@contextmanager
def attend_in_sequences(tables: SequenceTables, cache: SlotCache | None = None) -> Iterator[None]:
    """Let each sequence of `tables` attend to itself in the forward pass inside.

    With `cache`, whose `prepare` has written the tables, keys and values are kept; once it is filled, a pass
    without gradients attends to them. NotFusedError: see `check_attention`, which tells it beforehand.
    """
    if cache is not None:
        cache.begin_pass()
    with attend_by(SequenceAttention(tables, cache)):
        yield
