"""Hidden states of passes on the fused path, by captured graphs where the device has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from lora_runner.fused.fused_decoder import FusedDecoder
from lora_runner.fused.pass_inputs import PassInputs, PassKey
from lora_runner.graphs.captured_decoder import CapturedDecoder
from lora_runner.graphs.graph import GraphPool
from lora_runner.layers.adapter_bank import SeatWeights
from lora_runner.layers.attention import PACK_ATTENTION
from lora_runner.layers.linear import PackContext, RowOwners
from lora_runner.layout.pack_layout import Layout
from lora_runner.layout.slot_cache import SlotCache
from lora_runner.optim.flat_buffers import FlatBuffers

SeatBuffers = tuple[FlatBuffers | None, FlatBuffers | None]
"""Where the seats' adapters and their trained embeddings lie; None while there can be no seats."""


class FusedPasses:
    """Computes the passes of a pack; `buffers` tells where the seats' state lies now."""

    def __init__(
        self,
        fused: FusedDecoder,
        context: PackContext,
        config: Any,
        buffers: Callable[[], SeatBuffers],
        new_pool: Callable[[], GraphPool] | None,
        reason: str,
    ) -> None:
        """`config` is the model's; without `new_pool` nothing is captured, for `reason`."""
        self._fused, self._context, self._config, self._buffers = fused, context, config, buffers
        self._passes: CapturedDecoder[PassKey, PassInputs] = CapturedDecoder(
            lambda inputs: fused.compute(inputs, *buffers()),
            lambda key: PassInputs(key, fused.device),
            new_pool,
            reason=reason,
        )
        self._cache: SlotCache | None = None
        """That of the texts that are being generated."""

    def hidden(
        self,
        seats: Sequence[SeatWeights | None],
        layout: Layout,
        cache: Any,
        *,
        training: bool,
    ) -> Tensor:
        """See `GeneralPasses.hidden`; rows of padding come last."""
        key = self._fused.key_of(seats, layout, cache, training=training, padded=self._passes.captures)
        if padding := key.num_rows - layout.num_rows:
            self._context.rows = RowOwners([*seats, None], [*layout.sizes, padding])
        self._config._attn_implementation = PACK_ATTENTION
        both = [(each.parameters, each.gradients) for each in self._buffers() if each is not None]
        hidden = self._passes.hidden_states(
            key,
            lambda inputs: self._fused.write(inputs, seats, layout),
            built_in=tuple(tensor.data_ptr() for pair in both for tensor in pair),
        )
        if cache is not None:
            cache.end_pass()
        return hidden

    # --- caches of generated texts --------------------------------------------------------------------

    @contextmanager
    def one_cache(self, num_texts: int, num_tokens: int) -> Iterator[None]:
        """See `GeneralPasses.one_cache`; a captured pass serves all texts inside."""
        cache = self._cache = SlotCache(num_texts, num_tokens, self._fused.device)
        try:
            yield
        finally:
            self._cache = None
            self._passes.drop_those(lambda key: key.cache is cache)

    def new_cache(self, lengths: Sequence[Sequence[int]], num_new: int) -> SlotCache:
        """See `GeneralPasses.new_cache`."""
        assert self._cache is not None, "texts are generated inside one_cache"
        self._cache.start([length for block in lengths for length in block], num_new)
        return self._cache

    # --- captured passes ------------------------------------------------------------------------------

    def captures(self) -> tuple[int, str]:
        """How many passes are captured as graphs now, and why no others will be; empty where they will."""
        return self._passes.num_captured, self._passes.reason

    def drop_captured(self) -> bool:
        """Free captured passes, to be captured again when they are used; whether there were any."""
        return self._passes.drop()

    def stop_capturing(self, reason: str) -> bool:
        """Free captured passes and compute all passes as usual, for `reason`; whether there were any."""
        return self._passes.stop(reason)

    def resume_capturing(self) -> None:
        """Capture passes again, now that a pack that had run out of memory has become smaller."""
        self._passes.resume()
