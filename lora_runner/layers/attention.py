"""Attention of the end-to-end layout, registered with transformers as the implementation `pack`.

How a pass attends is an object that the pass brings (`PackAttention`). The general one is here: the row of
all tokens is cut into its sequences. Sequences of about the same length form a bucket: they attend in one
call of the model's own implementation (sdpa or eager), padded on the right to a common length that follows
from each one's own, so no sequence depends on the others. Nothing else is padded. During generation a token
attends to the cached keys and values of its sequence (`layout/kv_cache.py`).

Shapes: T tokens of the pack, H heads, D head size, B sequences in a call, S their padded length.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

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

    lengths: tuple[int, ...]
    """Tokens of each sequence, in the order of the rows."""
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
        in_order = tuple(sequence[-1] for sequence in sequences)
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
            return cls(in_order, shapes, None, None, None)
        bucket_positions = np.empty(start, dtype=np.int64)
        real = np.flatnonzero(~is_padding)
        bucket_positions[pack_rows[real]] = real
        to_buckets, from_buckets, padding_mask = (
            DeviceCopies(torch.from_numpy(table)) for table in (pack_rows, bucket_positions, is_padding)
        )
        return cls(in_order, shapes, to_buckets, from_buckets, padding_mask if has_padding else None)


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


class PackMask(Protocol):
    """Takes the place of transformers' attention mask: how the layers that use it attend."""

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **arguments: Any
    ) -> Tensor:
        """Attention within each sequence: query (1, H, T, D), key and value (1, G, T, D) -> (1, T, H, D)."""


class PackAttention(Protocol):
    """How a pass attends."""

    def mask(self, *, mask_function: Callable[..., Any], **arguments: Any) -> PackMask:
        """Called once for each kind of mask of a model, with what transformers gives to make one."""


@dataclass(frozen=True)
class BucketMask:
    """The buckets, and a mask for each."""

    implementation: AttentionImplementation
    buckets: LengthBuckets
    masks: tuple[Tensor | None, ...]
    cache: KeyValueCache | None = None
    """Keeps keys and values; once filled, `masks` are for its calls instead of the buckets."""

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **arguments: Any
    ) -> Tensor:
        """See `PackMask.attend`."""
        attend = self.implementation.function_for(module)
        if self.cache is not None:
            if self.cache.is_filled:
                return self.cache.attend(module, attend, query, key, value, self.masks, **arguments)
            self.cache.store(key, value)
        buckets = self.buckets
        there, back, padding = buckets.to_buckets, buckets.from_buckets, buckets.is_padding
        in_buckets = [x[0] for x in (query, key, value)]
        if there is not None:
            # Padding copies a row, without gradient.
            in_buckets = [_Reordered.apply(x, 1, there, back, None) for x in in_buckets]  # type: ignore[no-untyped-call]
        sizes = [count * length for count, length in buckets.shapes]
        outputs = []
        for shape, mask, part in zip(
            buckets.shapes,
            self.masks,
            zip(*(x.split(sizes, dim=1) for x in in_buckets), strict=True),
            strict=True,
        ):
            q, k, v = (x.unflatten(1, shape).transpose(0, 1) for x in part)  # (B, H, S, D)
            here = None if mask is None else mask.to(q.device)
            attended, _ = attend(module, q, k, v, here, **arguments)  # (B, S, H, D)
            outputs.append(attended.flatten(0, 1))
        out: Tensor = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
        if back is not None:
            out = _Reordered.apply(out, 0, back, there, padding)  # type: ignore[no-untyped-call]
        return out[None]


@dataclass(frozen=True)
class BucketAttention:
    """Attention by the model's own implementation, bucket by bucket."""

    buckets: LengthBuckets
    implementation: AttentionImplementation
    cache: KeyValueCache | None = None

    def mask(self, *, mask_function: Callable[..., Any], **arguments: Any) -> BucketMask:
        """One mask per length with transformers' own mask function (causal, sliding window, chunked)."""
        buckets, implementation, cache = self.buckets, self.implementation, self.cache
        if cache is not None and cache.is_filled:
            additive = None if implementation.name == "sdpa" else arguments["dtype"]
            seen = cache.masks(mask_function, arguments["device"], additive)
            return BucketMask(implementation, buckets, seen, cache)
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
        return BucketMask(
            implementation, buckets, tuple(masks[length] for _, length in buckets.shapes), cache
        )


_current: PackAttention | None = None
_wrappers: list[Callable[[PackAttention], PackAttention]] = []


@contextmanager
def attend_by(attention: PackAttention) -> Iterator[None]:
    """Attend by `attention` in the forward pass inside."""
    global _current
    before = _current
    for wrap in _wrappers:
        attention = wrap(attention)
    _current = attention
    try:
        yield
    finally:
        _current = before


@contextmanager
def wrapped_attention(wrap: Callable[[PackAttention], PackAttention]) -> Iterator[None]:
    """Let `wrap` take the place of the attention of each forward pass inside, to watch it."""
    _wrappers.append(wrap)
    try:
        yield
    finally:
        _wrappers.remove(wrap)


@contextmanager
def attend_in_buckets(
    buckets: LengthBuckets, implementation: AttentionImplementation, cache: KeyValueCache | None = None
) -> Iterator[None]:
    """Use `buckets` in the forward pass inside.

    `cache` keeps the keys and values of this pass; if it is filled, its sequences continue.
    """
    with attend_by(BucketAttention(buckets, implementation, cache)):
        if cache is not None:
            cache.begin_pass()
        yield
        if cache is not None:
            cache.end_pass()


def _pack_mask(*, mask_function: Callable[..., Any], **arguments: Any) -> PackMask:
    if _current is None:
        raise RuntimeError("a model with attention implementation 'pack' was called outside of its pack")
    return _current.mask(mask_function=mask_function, **arguments)


def _pack_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: PackMask, **arguments: Any
) -> tuple[Tensor, None]:
    return attention_mask.attend(module, query, key, value, **arguments), None


AttentionInterface.register(PACK_ATTENTION, _pack_attention)
AttentionMaskInterface.register(PACK_ATTENTION, _pack_mask)
