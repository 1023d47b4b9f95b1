"""Greedy continuations of the same prompts by all seats of a pack at once.

In the end-to-end layout keys and values are kept (`kv_cache.py`), so a new token costs the pass of one token
a sequence. Models that need the rectangular layout, and those whose logits come out otherwise with kept keys
and values, compute every text again for each new token. Which way is taken is found out on the untouched
base when text is first asked for. Either way a seat's continuations do not depend on its neighbours: its own
texts alone make up its block, and those that have ended leave it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lora_runner.layers.linear import pack_order
from lora_runner.layout.kv_cache import KeyValueCache
from lora_runner.layout.pack_layout import Block

if TYPE_CHECKING:
    from lora_runner.pack.packed_model import PackedModel
    from lora_runner.pack.seat import Seat

_Refused = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError)
"""What a model's own code raises where it does not know what it is given."""


class TextGenerator:
    """Continues prompts on the seats of one pack."""

    def __init__(self, pack: PackedModel) -> None:
        self._pack = pack
        self._reason: str | None = None

    @property
    def uncached_reason(self) -> str:
        """Why each new token costs a pass over the whole text; empty where it does not."""
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

        No text grows beyond the positions that the model has.
        """
        found: list[list[list[int]]] = [[[] for _ in prompts] for _ in seats]
        if not (seats and max_new_tokens):
            return found
        # Prompts of about one length together; as everywhere, a matter of the prompts alone.
        places = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        order = pack_order(seats)
        for start in range(0, len(places), batch_size):
            batch = places[start : start + batch_size]
            done = _GrowingTexts(
                self._pack, [seats[i] for i in order], [prompts[i] for i in batch], max_new_tokens
            )
            done.grow(stop_token_ids, cached=not self.uncached_reason)
            for index, continued in zip(order, done.new, strict=True):
                for place, ids in zip(batch, continued, strict=True):
                    found[index][place] = ids
        return found

    def _why_uncached(self) -> str:
        """Empty when kept keys and values give the logits that whole texts give."""
        pack = self._pack
        if pack.layout != "end_to_end":
            return f"this model needs the {pack.layout} layout ({pack.layout_reason})"
        vocabulary = int(pack.model.get_input_embeddings().weight.shape[0])
        generator = torch.Generator().manual_seed(0)
        prompts = [torch.randint(vocabulary, (n,), generator=generator).tolist() for n in (7, 12)]
        seats = [None, None]
        try:
            with torch.no_grad():
                cached, whole = (
                    _GrowingTexts(pack, seats, prompts, 3).follow(cached=cached) for cached in (True, False)
                )
        except _Refused as error:
            return f"it takes no kept keys and values: {type(error).__name__}: {error}"[:200]
        difference = float((cached.float() - whole.float()).abs().max() / whole.float().abs().max())
        tolerance = 1e-4 if pack.base.compute_dtype == torch.float32 else 5e-2
        return "" if difference <= tolerance else f"kept keys and values move its logits by {difference:.1e}"


class _GrowingTexts:
    """Prompts of every seat, in pack order, on their way to longer texts."""

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
        """Places of the prompts of each seat that are still continued."""
        most = pack.max_positions
        self._room = [max_new_tokens if most is None else min(max_new_tokens, most - len(p)) for p in prompts]

    def grow(self, stop_token_ids: frozenset[int], *, cached: bool) -> None:
        """Add the likeliest token to every text until a stop token or its limit ends it."""
        for one in self._open:
            one[:] = [place for place in one if self._room[place] > 0]
        next_logits = self._with_cache() if cached else self._whole
        while any(self._open):
            tokens = [logits.argmax(-1) for logits in next_logits()]
            self._take(torch.cat(tokens).tolist(), stop_token_ids)

    def follow(self, *, cached: bool) -> Tensor:
        """Logits of the prompts' next tokens and of texts that grow by given tokens, to compare both ways."""
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
            for place in still_open:
                token, text = next(given), self.new[seat][place]
                if token in stop_token_ids:
                    continue
                text.append(token)
                if len(text) < self._room[place]:
                    goes_on.append(place)
            still_open[:] = goes_on

    @property
    def _present(self) -> list[int]:
        """Seats with a text that goes on: an empty block is nobody's."""
        return [index for index, still_open in enumerate(self._open) if still_open]

    def _whole(self) -> list[Tensor]:
        """Logits of every open text's next token, computed from the first token on."""
        pack = self._pack
        blocks = [
            Block.next_token(
                [[*self._prompts[place], *self.new[seat][place]] for place in self._open[seat]],
                pack.base.device,
            )
            for seat in self._present
        ]
        return pack.logits([self._seats[seat] for seat in self._present], blocks, pack.layout)

    def _with_cache(self) -> Callable[[], list[Tensor]]:
        """The same, of the newest tokens alone; each call must follow one token after the other."""
        pack = self._pack
        lengths = [[len(self._prompts[place]) for place in self._open[seat]] for seat in self._present]
        cache = KeyValueCache(
            lengths or [[1]], self._max_new_tokens, mix_blocks=pack.attention.can_mix_blocks
        )
        known = [(seat, place) for seat in self._present for place in self._open[seat]]

        def next_logits() -> list[Tensor]:
            nonlocal known
            still_open = [(seat, place) for seat in self._present for place in self._open[seat]]
            if not cache.is_filled:
                return self._logits_of(lambda seat, place: self._prompts[place], cache)
            if still_open != known:
                kept = set(still_open)
                cache.keep([row for row, text in enumerate(known) if text in kept])
                known = still_open
            return self._logits_of(lambda seat, place: self.new[seat][place][-1:], cache)

        return next_logits

    def _logits_of(self, tokens: Callable[[int, int], Sequence[int]], cache: KeyValueCache) -> list[Tensor]:
        blocks = [
            Block.next_token([tokens(seat, place) for place in self._open[seat]], self._pack.base.device)
            for seat in self._present
        ]
        seats = [self._seats[seat] for seat in self._present]
        return self._pack.logits(seats, blocks, self._pack.layout, cache)
