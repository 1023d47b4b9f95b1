"""Greedy continuations of the same prompts by all seats of a pack at once.

In the end-to-end layout keys and values are cached (`layout/kv_cache.py`), so a pass computes one token per
sequence. Models that need the rectangular layout, and those whose logits a cache would change, compute the
whole text for every new token. Which way is taken is tested on the plain base when text is first generated.
Either way a seat's continuations do not depend on its neighbours: its block holds only its own texts, and
those that have ended leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from lora_runner.base.load_model import vocabulary_size
from lora_runner.layers.linear import pack_order
from lora_runner.layout.kv_cache import KeyValueCache
from lora_runner.layout.pack_layout import Block
from lora_runner.layout.slot_cache import SlotCache
from lora_runner.pack.packed_model import MODEL_ERRORS, PackedModel, logit_difference
from lora_runner.pack.seat import Seat


class TextGenerator:
    """Continues prompts on the seats of one pack."""

    def __init__(self, pack: PackedModel) -> None:
        self._pack = pack
        self._reason: str | None = None

    @property
    def uncached_reason(self) -> str:
        """Why each new token costs a pass over the whole text; empty when the cache is used."""
        if self._reason is None:
            self._reason = self._why_uncached()
        return self._reason

    @torch.no_grad()
    def generate(
        self,
        seats: Sequence[Seat | None],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop_token_ids: frozenset[int],
        batch_size: int,
    ) -> list[list[list[int]]]:
        """New token ids, [seat][prompt], without the stop token; `batch_size` prompts of a seat at a time.

        No text grows beyond the model's number of positions.
        """
        found: list[list[list[int]]] = [[[] for _ in prompts] for _ in seats]
        if not (seats and max_new_tokens):
            return found
        # Batches of similar length; the order depends only on the prompts.
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        order = pack_order(seats)
        longest = max(map(len, prompts), default=0) + max_new_tokens
        cached = not self.uncached_reason
        with (
            self._pack.one_cache(len(seats) * min(batch_size, len(prompts)), longest)
            if cached
            else nullcontext()
        ):
            for start in range(0, len(by_length), batch_size):
                batch = by_length[start : start + batch_size]
                texts = _GrowingTexts(
                    self._pack, [seats[i] for i in order], [prompts[i] for i in batch], max_new_tokens
                )
                texts.grow(stop_token_ids, cached=cached)
                for seat, continuations in zip(order, texts.new, strict=True):
                    for prompt, ids in zip(batch, continuations, strict=True):
                        found[seat][prompt] = ids
        return found

    def _why_uncached(self) -> str:
        """Empty when a cache gives the logits of whole texts."""
        pack = self._pack
        if pack.layout != "end_to_end":
            return f"this model needs the {pack.layout} layout ({pack.layout_reason})"
        vocabulary = vocabulary_size(pack.model)
        generator = torch.Generator().manual_seed(0)
        prompts = [torch.randint(vocabulary, (n,), generator=generator).tolist() for n in (7, 12)]
        seats = [None, None]
        try:
            with torch.no_grad():
                with pack.one_cache(len(seats) * len(prompts), max(map(len, prompts)) + 3):
                    cached = _GrowingTexts(pack, seats, prompts, 3).force(cached=True)
                whole = _GrowingTexts(pack, seats, prompts, 3).force(cached=False)
        except MODEL_ERRORS as error:
            return f"it does not run with a cache: {type(error).__name__}: {error}"[:200]
        difference = logit_difference(cached, whole, pack.base.compute_dtype)
        return "" if difference is None else f"a cache changes its logits by {difference:.1e}"


class _GrowingTexts:
    """The prompts of every seat, in pack order, and their continuations."""

    def __init__(
        self,
        pack: PackedModel,
        seats: Sequence[Seat | None],
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
    ) -> None:
        self._pack, self._seats, self._prompts = pack, list(seats), prompts
        self._max_new_tokens = max_new_tokens
        self.new: list[list[list[int]]] = [[[] for _ in prompts] for _ in seats]
        """Token ids added so far, [seat][prompt]."""
        self._open = [list(range(len(prompts))) for _ in seats]
        """Indices of each seat's prompts that are still continued."""
        most = pack.max_positions
        self._limits = [
            max_new_tokens if most is None else min(max_new_tokens, most - len(p)) for p in prompts
        ]

    def grow(self, stop_token_ids: frozenset[int], *, cached: bool) -> None:
        """Add the most likely token to every text until a stop token or its limit ends it."""
        for one in self._open:
            one[:] = [i for i in one if self._limits[i] > 0]
        next_logits = self._with_cache() if cached else self._whole
        while any(self._open):
            tokens = [logits.argmax(-1) for logits in next_logits()]
            self._take(torch.cat(tokens).tolist(), stop_token_ids)

    def force(self, *, cached: bool) -> Tensor:
        """Logits of the next tokens of prompts and of texts that grow by fixed tokens, for comparison."""
        next_logits = self._with_cache() if cached else self._whole
        seen = []
        for token in range(self._max_new_tokens):
            seen.append(torch.cat(next_logits()))
            self._take([token] * sum(map(len, self._open)), frozenset())
        return torch.cat(seen)

    def _take(self, tokens: Sequence[int], stop_token_ids: frozenset[int]) -> None:
        given = iter(tokens)
        for seat, still_open in enumerate(self._open):
            goes_on = []
            for prompt in still_open:
                token, text = next(given), self.new[seat][prompt]
                if token in stop_token_ids:
                    continue
                text.append(token)
                if len(text) < self._limits[prompt]:
                    goes_on.append(prompt)
            still_open[:] = goes_on

    @property
    def _present(self) -> list[int]:
        """Seats with an open text: no block may be empty."""
        return [index for index, still_open in enumerate(self._open) if still_open]

    def _whole(self) -> list[Tensor]:
        """Logits of every open text's next token, from a pass over whole texts."""
        return self._logits_of(lambda seat, prompt: [*self._prompts[prompt], *self.new[seat][prompt]])

    def _with_cache(self) -> Callable[[], list[Tensor]]:
        """The same from the newest tokens and a cache; call once per new token."""
        pack = self._pack
        lengths = [[len(self._prompts[prompt]) for prompt in self._open[seat]] for seat in self._present]
        cache = pack.new_cache(lengths or [[1]], self._max_new_tokens)
        known = [(seat, prompt) for seat in self._present for prompt in self._open[seat]]

        def next_logits() -> list[Tensor]:
            nonlocal known
            still_open = [(seat, prompt) for seat in self._present for prompt in self._open[seat]]
            if not cache.is_filled:
                return self._logits_of(lambda seat, prompt: self._prompts[prompt], cache)
            if still_open != known:
                kept = set(still_open)
                cache.keep([row for row, text in enumerate(known) if text in kept])
                known = still_open
            return self._logits_of(lambda seat, prompt: self.new[seat][prompt][-1:], cache)

        return next_logits

    def _logits_of(
        self, tokens: Callable[[int, int], Sequence[int]], cache: KeyValueCache | SlotCache | None = None
    ) -> list[Tensor]:
        blocks = [
            Block.next_token([tokens(seat, prompt) for prompt in self._open[seat]], self._pack.base.device)
            for seat in self._present
        ]
        seats = [self._seats[seat] for seat in self._present]
        return self._pack.logits(seats, blocks, self._pack.layout, cache)
