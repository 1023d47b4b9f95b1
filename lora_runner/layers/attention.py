"""Attention of the end-to-end layout, registered with transformers as the implementation `pack`.

The row of all tokens is cut into its sequences. Sequences of about the same length form a bucket: they attend
in one call of the model's own implementation (sdpa or eager), padded on the right to a common length that
follows from each one's own, so no sequence depends on the others. Nothing else is padded. During generation a
token attends to the cached keys and values of its sequence (`layout/kv_cache.py`).

Shapes: T tokens of the pack, H heads, D head size, B sequences in a call, S their padded length.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lora_runner.layers.invariant_attention import invariant_attention
from lora_runner.layout.device_copies import DeviceCopies
from lora_runner.layout.kv_cache import KeyValueCache
from lora_runner.layout.pack_layout import padded_length

PACK_ATTENTION = "pack"
"""Name under which this attention is registered with transformers."""


@dataclass(frozen=True)
class LengthBuckets:
    """Sequences grouped by padded length: where each token goes, and the way back."""

    shapes: tuple[tuple[int, int], ...]  # (B, S) of each bucket
    to_buckets: DeviceCopies | None  # (Σ B·S,) pack row of each bucket position; None: the same order
    from_buckets: DeviceCopies | None  # (T,) bucket position of each pack row
    is_padding: DeviceCopies | None  # (Σ B·S,) bool; None when nothing is padded

    @classmethod
    def of(cls, lengths: Sequence[Sequence[int]], *, mix_blocks: bool) -> LengthBuckets:
        """Buckets for the sequence `lengths` of each block; `mix_blocks` lets blocks share a bucket."""
        sequences, start = [], 0  # (padded length, block, first row, length)
        for index, block in enumerate(lengths):
            for length in block:
                sequences.append((padded_length(length), 0 if mix_blocks else index, start, length))
                start += length
        sequences.sort()
        groups = [list(group) for _, group in groupby(sequences, key=lambda sequence: sequence[:2])]
        shapes = tuple((len(group), group[0][0]) for group in groups)
        # NumPy on the host, instead of dozens of small torch operations per step.
        rows, padding = [], []
        for padded, _, first, length in sequences:
            at = np.arange(padded)
            rows.append(first + np.where(at < length, at, 0))
            padding.append(at >= length)
        pack_rows, is_padding = np.concatenate(rows), np.concatenate(padding)
        has_padding = bool(is_padding.any())
        if not has_padding and np.array_equal(pack_rows, np.arange(start)):
            return cls(shapes, None, None, None)
        bucket_positions = np.empty(start, dtype=np.int64)
        real = np.flatnonzero(~is_padding)
        bucket_positions[pack_rows[real]] = real
        to_buckets, from_buckets, padding_mask = (
            DeviceCopies(torch.from_numpy(table)) for table in (pack_rows, bucket_positions, is_padding)
        )
        return cls(shapes, to_buckets, from_buckets, padding_mask if has_padding else None)


class _Reordered(torch.autograd.Function):
    """Rows of `x` along `dim` in the order `there`; the gradient returns in the order `back`.

    Both are gathers, where autograd's own backward would scatter: no atomics, nothing to zero. Rows of the
    gradient that are `padding` are zero.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dim: int, there: DeviceCopies, back: DeviceCopies, padding: DeviceCopies | None
    ) -> Tensor:
        ctx.dim, ctx.back, ctx.padding = dim, back, padding
        return x.index_select(dim, there.on(x.device))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0].index_select(ctx.dim, ctx.back.on(grads[0].device))
        if ctx.padding is not None:
            grad.masked_fill_(ctx.padding.on(grad.device)[:, None, None], 0.0)
        return grad, None, None, None, None


# --- what transformers calls --------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionImplementation:
    """The implementation that a pack calls for each bucket."""

    name: str
    """As transformers names it: sdpa or eager."""
    device_type: str

    @property
    def can_mix_blocks(self) -> bool:
        """Whether a sequence gets the same result whatever else is in the call."""
        return self.name == "sdpa"

    def function_for(self, module: nn.Module) -> Callable[..., Any]:
        """The attention function for `module`: on CUDA one that is exact in any pack."""
        if self.name == "sdpa" and self.device_type == "cuda":
            return invariant_attention
        own = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        found: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(self.name, own)
        return found


@dataclass(frozen=True)
class PackMask:
    """Takes the place of transformers' attention mask: the buckets, and a mask for each."""

    implementation: AttentionImplementation
    buckets: LengthBuckets
    masks: tuple[Tensor | None, ...]
    cache: KeyValueCache | None = None
    """Keeps keys and values; once filled, `masks` are for its calls instead of the buckets."""


_current: tuple[LengthBuckets, AttentionImplementation, KeyValueCache | None] | None = None


@contextmanager
def attend_in_buckets(
    buckets: LengthBuckets, implementation: AttentionImplementation, cache: KeyValueCache | None = None
) -> Iterator[None]:
    """Use `buckets` in the forward pass inside.

    `cache` keeps the keys and values of this pass; if it is filled, its sequences continue.
    """
    global _current
    before, _current = _current, (buckets, implementation, cache)
    try:
        if cache is not None:
            cache.begin_pass()
        yield
        if cache is not None:
            cache.end_pass()
    finally:
        _current = before


def _pack_mask(*, mask_function: Callable[..., Any], **arguments: Any) -> PackMask:
    """Build one mask per length with transformers' own mask function (causal, sliding window, chunked)."""
    if _current is None:
        raise RuntimeError("a model with attention implementation 'pack' was called outside of its pack")
    buckets, implementation, cache = _current
    if cache is not None and cache.is_filled:
        additive = None if implementation.name == "sdpa" else arguments["dtype"]
        return PackMask(
            implementation, buckets, cache.masks(mask_function, arguments["device"], additive), cache
        )
    make = ALL_MASK_ATTENTION_FUNCTIONS[implementation.name]
    masks: dict[int, Tensor | None] = {}
    for _, length in buckets.shapes:
        if length not in masks:
            masks[length] = make(
                **{
                    **arguments,
                    "mask_function": mask_function,
                    "batch_size": 1,
                    "q_length": length,
                    "kv_length": length,
                    "q_offset": 0,
                    "kv_offset": 0,
                    "attention_mask": None,
                }
            )
    return PackMask(implementation, buckets, tuple(masks[length] for _, length in buckets.shapes), cache)


def _pack_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: PackMask, **arguments: Any
) -> tuple[Tensor, None]:
    """Attend within each sequence; query, key, value (1, H, T, D) -> (1, T, H, D)."""
    buckets, cache = attention_mask.buckets, attention_mask.cache
    attend = attention_mask.implementation.function_for(module)
    if cache is not None:
        if cache.is_filled:
            return cache.attend(module, attend, query, key, value, attention_mask.masks, **arguments), None
        cache.store(key, value)
    there, back, padding = buckets.to_buckets, buckets.from_buckets, buckets.is_padding
    in_buckets = [x[0] for x in (query, key, value)]
    if there is not None:
        # Padding copies a row, without gradient.
        in_buckets = [_Reordered.apply(x, 1, there, back, None) for x in in_buckets]  # type: ignore[no-untyped-call]
    sizes = [count * length for count, length in buckets.shapes]
    outputs = []
    for shape, mask, part in zip(
        buckets.shapes,
        attention_mask.masks,
        zip(*(x.split(sizes, dim=1) for x in in_buckets), strict=True),
        strict=True,
    ):
        q, k, v = (x.unflatten(1, shape).transpose(0, 1) for x in part)  # (B, H, S, D)
        here = None if mask is None else mask.to(q.device)
        out, _ = attend(module, q, k, v, here, **arguments)  # (B, S, H, D)
        outputs.append(out.flatten(0, 1))
    out = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    if back is not None:
        out = _Reordered.apply(out, 0, back, there, padding)  # type: ignore[no-untyped-call]
    return out[None], None


AttentionInterface.register(PACK_ATTENTION, _pack_attention)
AttentionMaskInterface.register(PACK_ATTENTION, _pack_mask)
