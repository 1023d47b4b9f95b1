"""Hidden states of passes on the general path: a decoder whose modules compute block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lora_runner.layers.adapter_bank import SeatWeights
from lora_runner.layers.attention import (
    PACK_ATTENTION,
    AttentionImplementation,
    LengthBuckets,
    attend_in_buckets,
)
from lora_runner.layout.kv_cache import KeyValueCache
from lora_runner.layout.pack_layout import Layout


class GeneralPasses:
    """Computes the passes of a pack; `config` is the model's, `attention` tells how it attends now."""

    def __init__(
        self, decoder: nn.Module, config: Any, attention: Callable[[], AttentionImplementation]
    ) -> None:
        self._decoder, self._config, self._attention = decoder, config, attention
        self.reason = ""
        """Why passes are not computed on the fused path."""

    def hidden(
        self,
        seats: Sequence[SeatWeights | None],
        layout: Layout,
        cache: Any,
        *,
        training: bool,
    ) -> Tensor:
        """Hidden states (T, h) of all rows of a pass; `cache`, if any, is one that `new_cache` has made."""
        if layout.kind == "rectangular":
            self._config._attn_implementation = self._attention().name
            hidden: Tensor = self._decoder(**layout.inputs)[0]
        else:
            self._config._attn_implementation = PACK_ATTENTION
            lengths = [block.lengths for block in layout.blocks]
            buckets = LengthBuckets.of(lengths, mix_blocks=self._attention().can_mix_blocks)
            with attend_in_buckets(buckets, self._attention(), cache):
                hidden = self._decoder(**layout.inputs)[0]
        return hidden.flatten(0, 1)

    @contextmanager
    def one_cache(self, num_texts: int, num_tokens: int) -> Iterator[None]:
        """For all texts generated inside: at most `num_texts` at a time, of up to `num_tokens` tokens."""
        yield

    def new_cache(self, lengths: Sequence[Sequence[int]], num_new: int) -> KeyValueCache:
        """A cache for prompts of these lengths, by block, each with up to `num_new` tokens after it."""
        return KeyValueCache(lengths, num_new, mix_blocks=self._attention().can_mix_blocks)

    def captures(self) -> tuple[int, str]:
        """No passes, and why."""
        return 0, self.reason

    def drop_captured(self) -> bool:
        """Whether there were captured passes."""
        return False

    def stop_capturing(self, reason: str) -> bool:
        """Whether there were captured passes."""
        return False

    def resume_capturing(self) -> None:
        """Nothing is captured."""
