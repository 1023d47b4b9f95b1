"""Whether the fused kernel computes what a model's attention does, asked in a pass of the general path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lora_runner.fused.attention.in_sequences import attention_options
from lora_runner.fused.attention.visible_window import visible_window
from lora_runner.fused.compute_path import NotFusedError
from lora_runner.layers.attention import BucketAttention, BucketMask, PackAttention, wrapped_attention

if TYPE_CHECKING:
    from lora_runner.kernels.attention_scores import AttentionOptions

TOLERANCE = 1e-3
"""Of the largest output, in float32: attention to one more place, or with another scale, differs by more on
the few tokens of a probe."""


def check_attention(probe: Callable[[], object]) -> str:
    """What the layers' attention is, in words; NotFusedError says what the kernel does not compute.

    `probe` makes one small forward pass of a converted model in the end-to-end layout. A model's own eager
    function may do more than its arguments say (sinks, biases), so its results are compared with plain
    attention by the options that the kernel would be given; transformers' sdpa does no more.
    """
    seen = _Seen()
    with wrapped_attention(lambda attention: _WatchedAttention(attention, seen)):
        probe()
    if not seen.kinds:
        raise NotFusedError("its attention does not use transformers' attention interface")
    return ", ".join(f"{count} layers {kind}" for kind, count in sorted(seen.kinds.items()))


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], options: AttentionOptions
) -> Tensor:
    """What the kernel computes, by plain operations: query (1, H, T, D) -> (1, T, H, D) in float32."""
    group = query.shape[1] // key.shape[1]
    query, key, value = (x[0].float() for x in (query, key, value))
    key, value = key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)
    outputs = []
    for q, k, v in zip(*(x.split(lengths, dim=1) for x in (query, key, value)), strict=True):
        scores = q @ k.transpose(1, 2) * options.scale
        if options.soft_cap:
            scores = options.soft_cap * torch.tanh(scores / options.soft_cap)
        places = torch.arange(k.shape[1], device=k.device)
        seen = places <= places[:, None]
        if options.window:
            seen &= places > places[:, None] - options.window
        outputs.append(scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v)
    return torch.cat(outputs, dim=1).transpose(0, 1)[None]


@dataclass
class _Seen:
    kinds: dict[str, int] = field(default_factory=dict)
    """Calls by their options, in words."""

    def add(self, options: AttentionOptions) -> None:
        kind = f"in a window of {options.window}" if options.window else "causal"
        if options.soft_cap:
            kind += f" with a soft cap of {options.soft_cap:g}"
        self.kinds[kind] = self.kinds.get(kind, 0) + 1


@dataclass(frozen=True)
class _WatchedMask:
    mask: BucketMask
    window: int
    seen: _Seen

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, **arguments: Any
    ) -> Tensor:
        options = attention_options(query, key, value, self.window, arguments)
        if self.mask.implementation.name != "sdpa":
            own = self.mask.attend(module, query.float(), key.float(), value.float(), **arguments)
            plain = plain_attention(query, key, value, self.mask.buckets.lengths, options)
            difference = float((own - plain).abs().max() / plain.abs().max())
            if not difference <= TOLERANCE:
                raise NotFusedError(f"its attention differs from plain attention by {difference:.1e}")
        self.seen.add(options)
        return self.mask.attend(module, query, key, value, **arguments)


@dataclass(frozen=True)
class _WatchedAttention:
    attention: PackAttention
    seen: _Seen

    def mask(self, *, mask_function: Callable[..., Any], **arguments: Any) -> _WatchedMask:
        if not isinstance(self.attention, BucketAttention):
            raise TypeError("a probe takes the general path")
        window = visible_window(mask_function)
        mask = self.attention.mask(mask_function=mask_function, **arguments)
        return _WatchedMask(mask, window, self.seen)
