"""Attention of the end-to-end layout, registered with transformers as the implementation `pack`.

A row of all tokens is cut into its sequences again. Sequences of about the same length attend in one call of
the model's own implementation (sdpa or eager), padded on the right to a common length that follows from each
one's own; nothing of a sequence depends on who lies beside it. Only here is anything padded. While text is
generated, a token attends to the keys and values that its sequence left behind (`kv_cache.py`).

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
    """Where each token lies when sequences of one padded length stand together, and the way back."""

    shapes: tuple[tuple[int, int], ...]  # (B, S) a call
    to_buckets: (
        DeviceCopies | None
    )  # (Σ B·S,) row of the pack for each place of the grids; None: they are the same
    from_buckets: DeviceCopies | None  # (T,) place in the grids for each row of the pack
    is_padding: DeviceCopies | None  # (Σ B·S,) bool; None when nothing is padded
    num_padded: int

    @classmethod
    def of(cls, lengths: Sequence[Sequence[int]], *, together: bool) -> LengthBuckets:
        """Grids for the blocks' sequence `lengths`; `together` lets sequences of different blocks meet."""
        sequences, start = [], 0  # (padded length, block, first row, length)
        for index, block in enumerate(lengths):
            for length in block:
                sequences.append((padded_length(length), 0 if together else index, start, length))
                start += length
        sequences.sort()
        groups = [list(group) for _, group in groupby(sequences, key=lambda sequence: sequence[:2])]
        shapes = tuple((len(group), group[0][0]) for group in groups)
        # In NumPy: on the host, and not dozens of small operations of torch a step.
        rows, padding = [], []
        for padded, _, first, length in sequences:
            at = np.arange(padded)
            rows.append(first + np.where(at < length, at, 0))
            padding.append(at >= length)
        to_buckets, is_padding = np.concatenate(rows), np.concatenate(padding)
        num_padded = int(is_padding.sum())
        if num_padded == 0 and np.array_equal(to_buckets, np.arange(start)):
            return cls(shapes, None, None, None, 0)
        from_buckets = np.empty(start, dtype=np.int64)
        real = np.flatnonzero(~is_padding)
        from_buckets[to_buckets[real]] = real
        there, back, padded_places = (
            DeviceCopies(torch.from_numpy(table)) for table in (to_buckets, from_buckets, is_padding)
        )
        return cls(shapes, there, back, padded_places if num_padded else None, num_padded)


class _ToBuckets(torch.autograd.Function):
    """Rows (dimension 1) of the pack -> places of the grids. Padded places copy a row, without gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grids: LengthBuckets) -> Tensor:
        ctx.grids = grids
        assert grids.to_buckets is not None
        return x.index_select(1, grids.to_buckets.on(x.device))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        # A gather, where autograd's own backward would scatter: no atomics, nothing to be zeroed.
        return grads[0].index_select(1, ctx.grids.from_buckets.on(grads[0].device)), None


class _FromBuckets(torch.autograd.Function):
    """Places of the grids (dimension 0) -> rows of the pack."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grids: LengthBuckets) -> Tensor:
        ctx.grids = grids
        assert grids.from_buckets is not None
        return x.index_select(0, grids.from_buckets.on(x.device))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grids: LengthBuckets = ctx.grids
        assert grids.to_buckets is not None
        grad = grads[0].index_select(0, grids.to_buckets.on(grads[0].device))
        if grids.is_padding is not None:
            grad.masked_fill_(grids.is_padding.on(grad.device)[:, None, None], 0.0)
        return grad, None


# --- what transformers calls --------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionImplementation:
    """The attention that a pack's own calls, once for each of the grids."""

    name: str
    """Of the model's implementation: sdpa or eager."""
    device_type: str

    @property
    def can_mix_blocks(self) -> bool:
        """Whether a sequence comes out the same whatever stands beside it in the call."""
        return self.name == "sdpa"

    def of(self, module: nn.Module) -> Callable[..., Any]:
        """The function of that implementation for `module`."""
        if self.name == "sdpa" and self.device_type == "cuda":
            return invariant_attention
        own = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        found: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(self.name, own)
        return found


@dataclass(frozen=True)
class PackMask:
    """What stands where transformers expects an attention mask: the grids, and a mask for each of them."""

    inner: AttentionImplementation
    grids: LengthBuckets
    masks: tuple[Tensor | None, ...]
    cache: KeyValueCache | None = None
    """Keeps keys and values; once it is filled, `masks` are for its calls and not for the grids."""


_current: tuple[LengthBuckets, AttentionImplementation, KeyValueCache | None] | None = None


@contextmanager
def attend_in_buckets(
    grids: LengthBuckets, inner: AttentionImplementation, cache: KeyValueCache | None = None
) -> Iterator[None]:
    """Make `grids` those that the registered mask function describes, for the forward pass inside.

    `cache` keeps the keys and values of this pass; where it holds those of earlier ones, its sequences go on.
    """
    global _current
    before, _current = _current, (grids, inner, cache)
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
    grids, inner, cache = _current
    if cache is not None and cache.is_filled:
        additive = None if inner.name == "sdpa" else arguments["dtype"]
        return PackMask(inner, grids, cache.masks(mask_function, arguments["device"], additive), cache)
    make = ALL_MASK_ATTENTION_FUNCTIONS[inner.name]
    masks: dict[int, Tensor | None] = {}
    for _, length in grids.shapes:
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
    return PackMask(inner, grids, tuple(masks[length] for _, length in grids.shapes), cache)


def _pack_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: PackMask, **arguments: Any
) -> tuple[Tensor, None]:
    """Attend within each sequence; query, key, value (1, H, T, D) -> (1, T, H, D)."""
    grids, cache = attention_mask.grids, attention_mask.cache
    attend = attention_mask.inner.of(module)
    if cache is not None:
        if cache.is_filled:
            return cache.attend(module, attend, query, key, value, attention_mask.masks, **arguments), None
        cache.store(key, value)
    laid = [_in_buckets(x[0], grids) for x in (query, key, value)]
    sizes = [count * length for count, length in grids.shapes]
    outputs = []
    for shape, mask, part in zip(
        grids.shapes,
        attention_mask.masks,
        zip(*(x.split(sizes, dim=1) for x in laid), strict=True),
        strict=True,
    ):
        q, k, v = (x.unflatten(1, shape).transpose(0, 1) for x in part)  # (B, H, S, D)
        here = None if mask is None else mask.to(q.device)
        out, _ = attend(module, q, k, v, here, **arguments)  # (B, S, H, D)
        outputs.append(out.flatten(0, 1))
    out = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    return (out if grids.from_buckets is None else _FromBuckets.apply(out, grids))[None], None  # type: ignore[no-untyped-call]


def _in_buckets(x: Tensor, grids: LengthBuckets) -> Tensor:
    return x if grids.to_buckets is None else _ToBuckets.apply(x, grids)  # type: ignore[no-any-return,no-untyped-call]


AttentionInterface.register(PACK_ATTENTION, _pack_attention)
AttentionMaskInterface.register(PACK_ATTENTION, _pack_mask)
