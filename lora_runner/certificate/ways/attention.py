"""Ways to attend within each sequence of a pass, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lora_runner.certificate.ways.case import Case, Pass, Setting, Tensors
from lora_runner.certificate.ways.references import rounding, with_gradients
from lora_runner.layers.attention import (
    PACK_ATTENTION,
    AttentionImplementation,
    BucketMask,
    LengthBuckets,
)
from lora_runner.layout.sequence_tables import SequenceShape, SequenceTables

LONGEST = 512
"""Tokens of a sequence at most."""


class AttentionCase(Case):
    """Causal attention; a block is query, key, value (t, heads, D), the output's gradient, and lengths."""

    unit = "TFLOP/s"

    def __init__(self, setting: Setting, attend: Callable[..., Tensors]) -> None:
        """`attend(query, key, value, grad, lengths of each block)` -> output and three gradients."""
        sizes = setting.sizes
        self._setting, self._attend = setting, attend
        self._heads, self._key_heads = sizes.num_heads, sizes.num_key_value_heads
        self._size = sizes.head_size
        self.name = f"causal, {self._heads} heads of {self._size}, {self._key_heads} for keys"
        self.bound = rounding(setting.dtype, 4)

    def draw(self, num_rows: int) -> Tensors:
        lengths = [LONGEST] * (num_rows // LONGEST) + [num_rows % LONGEST] * (num_rows % LONGEST > 0)
        if lengths[-1] > 2:  # sequences of several lengths in a block
            last = lengths.pop()
            lengths += [last - last // 3, last // 3]
        heads = (self._heads, self._key_heads, self._key_heads, self._heads)
        rows = [self._setting.normal(num_rows, count, self._size) for count in heads]
        return (*rows, torch.tensor(lengths))

    def prepare(self, blocks: Sequence[Tensors]) -> tuple[Pass, list[list[int]]]:
        rows = tuple(torch.cat(parts) for parts in zip(*(block[:4] for block in blocks), strict=True))
        lengths = [block[4].tolist() for block in blocks]
        return Pass(rows, tuple(map(sum, lengths))), lengths

    def compute(self, prepared: tuple[Pass, list[list[int]]]) -> Tensors:
        here, lengths = prepared
        return self._attend(*here.rows, lengths)

    def results(self, prepared: tuple[Pass, list[list[int]]], computed: Tensors) -> list[Tensors]:
        return list(zip(*(result.split(prepared[0].sizes) for result in computed), strict=True))

    def reference(self, block: Tensors) -> Tensors:
        parts = [x.double().split(block[4].tolist()) for x in block[:4]]
        found = [
            with_gradients(_exact_attention, (q, k, v), (grad,)) for q, k, v, grad in zip(*parts, strict=True)
        ]
        return tuple(map(torch.cat, zip(*found, strict=True)))

    def work(self, num_rows: int) -> float:
        # 2 products forward and 5 backward, of which a causal mask needs half.
        return 7.0 * num_rows * min(num_rows, LONGEST) * self._heads * self._size


def _exact_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensors:
    """(S, H, D), (S, G, D), (S, G, D) -> (S, H, D)."""
    groups = query.shape[1] // key.shape[1]
    q, k, v = (x.transpose(0, 1) for x in (query, *(x.repeat_interleave(groups, 1) for x in (key, value))))
    scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
    hidden = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return ((weights @ v).transpose(0, 1),)


class _Module(nn.Module):
    """What attention functions read of a model's attention module."""

    is_causal = True

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def in_buckets(setting: Setting) -> Iterator[Case]:
    """Sequences of about the same length in one call, as on the general path."""
    implementation = AttentionImplementation("sdpa", setting.device.type)
    attend = ALL_ATTENTION_FUNCTIONS[PACK_ATTENTION]
    module = _Module(setting.sizes.num_heads // setting.sizes.num_key_value_heads)

    def function(query: Tensor, key: Tensor, value: Tensor, grad: Tensor, lengths: Any) -> Tensors:
        buckets = LengthBuckets.of(lengths, mix_blocks=implementation.can_mix_blocks)
        mask = BucketMask(implementation, buckets, (None,) * len(buckets.shapes))

        def forward(*rows: Tensor) -> Tensors:
            in_heads = (x.transpose(0, 1)[None] for x in rows)
            out, _ = attend(module, *in_heads, mask, scaling=query.shape[-1] ** -0.5)
            return (out[0],)

        return with_gradients(forward, (query, key, value), (grad,))

    yield AttentionCase(setting, function)


def fused(setting: Setting) -> Iterator[Case]:
    """All sequences and heads in one launch forward and two backward, as on the fused path."""
    from lora_runner.kernels.attention_backward import attention_backward
    from lora_runner.kernels.attention_forward import attention_forward
    from lora_runner.kernels.attention_scores import AttentionOptions

    options = AttentionOptions(scale=setting.sizes.head_size**-0.5)

    def function(query: Tensor, key: Tensor, value: Tensor, grad: Tensor, lengths: Any) -> Tensors:
        sequences = [length for block in lengths for length in block]
        shape = SequenceShape(query.shape[0], len(sequences))
        tables = SequenceTables.of(shape, sequences, setting.device)
        out, log_sums = attention_forward(query, key, value, tables, options)
        return out, *attention_backward(grad, query, key, value, out, log_sums, tables, options)

    yield AttentionCase(setting, function)
