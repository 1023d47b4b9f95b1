"""A key-value cache for generation in the end-to-end layout.

Keys and values are kept as the attention function of a pack sees them, one buffer per call in a pass. A
sequence attends in a call of its own padded length, so it does not depend on the other sequences.

Shapes: N sequences, T tokens of a pass, H query heads, G key heads, C capacity of a sequence in tokens, S
padded length of a call, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lora_runner.layout.device_copies import DeviceCopies
from lora_runner.layout.pack_layout import padded_length


class KeyValueCache:
    """Keys and values of all layers; filled by one pass over the prompts, then one token per pass.

    `lengths` are the tokens of each block's prompts, `num_new` the most that may follow. With `mix_blocks`,
    sequences of different blocks share an attention call.
    """

    def __init__(self, lengths: Sequence[Sequence[int]], num_new: int, *, mix_blocks: bool) -> None:
        self.is_filled = False
        """Whether the pass over the prompts has been made."""
        self._lengths = [length for block in lengths for length in block]
        """Cached tokens of each sequence, by its row in a pass of one token each."""
        self._blocks = [0 if mix_blocks else index for index, block in enumerate(lengths) for _ in block]
        """By the same rows; only sequences of one block share an attention call."""
        self._starts = np.cumsum([0, *self._lengths[:-1]]).tolist()
        self._capacity = padded_length(max(self._lengths) + num_new)
        # Sequences that will attend together are adjacent, however many tokens follow.
        self._order = sorted(
            range(len(self._lengths)), key=lambda row: (self._blocks[row], self._lengths[row])
        )
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._call = 0

    def begin_pass(self) -> None:
        """Start a pass through the layers."""
        self._call = 0
        if self.is_filled:
            self._to_order, self._from_order = (
                DeviceCopies(torch.tensor(rows)) for rows in (self._order, np.argsort(self._order))
            )
            self._ends = DeviceCopies(torch.tensor([self._lengths[row] for row in self._order]))

    def end_pass(self) -> None:
        """Count the tokens of the pass."""
        if self.is_filled:
            self._lengths = [length + 1 for length in self._lengths]
        self.is_filled = True

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every sequence but those of these rows, which keep their order."""
        new_row = {row: index for index, row in enumerate(rows)}
        kept = [index for index, row in enumerate(self._order) if row in new_row]
        self._order = [new_row[self._order[index]] for index in kept]
        self._lengths = [self._lengths[row] for row in rows]
        self._blocks = [self._blocks[row] for row in rows]
        chosen = DeviceCopies(torch.tensor(kept, dtype=torch.int64))
        for buffers in (self._keys, self._values):
            for index, buffer in enumerate(buffers):
                # One after another, so that only one buffer exists twice.
                buffers[index] = buffer.index_select(0, chosen.on(buffer.device))

    @property
    def positions(self) -> list[int]:
        """The position of each sequence's next token."""
        return list(self._lengths)

    # --- what the attention function calls ------------------------------------------------------------

    def store(self, key: Tensor, value: Tensor) -> None:
        """Keep the prompts' keys and values (1, G, T, D) of one call."""
        if not self._keys:
            rows = []
            for row in self._order:
                at = np.arange(self._capacity)
                # Padding copies a row: uninitialised memory could hold NaN, which a weight of zero keeps.
                rows.append(self._starts[row] + np.where(at < self._lengths[row], at, 0))
            self._table = DeviceCopies(torch.from_numpy(np.concatenate(rows)))
        for x, buffers in ((key, self._keys), (value, self._values)):
            taken = x[0].index_select(1, self._table.on(x.device))  # (G, N·C, D)
            # A head's keys are contiguous and start at a multiple of 8 rows.
            buffers.append(taken.unflatten(1, (-1, self._capacity)).transpose(0, 1).contiguous())

    def masks(
        self,
        mask_function: Callable[..., Any],
        device: torch.device,
        additive: torch.dtype | None,
    ) -> tuple[Tensor, ...]:
        """What each sequence's new token sees, one mask (n, 1, 1, S) per attention call.

        `mask_function` is transformers', of batch, head, query and key indices. Boolean; additive of dtype
        `additive` if given.
        """
        found = []
        for first, stop, length in self._calls():
            query = self._ends.on(device)[first:stop, None, None, None]
            key = torch.arange(length, device=device)[None, None, None]
            none = torch.zeros_like(query)
            seen = mask_function(none, none[:1], query, key) & (key <= query)
            if additive is not None:
                low = torch.finfo(additive).min
                seen = torch.zeros((), dtype=additive, device=device).where(seen, low)
            found.append(seen.expand(stop - first, 1, 1, length))
        return tuple(found)

    def _calls(self) -> list[tuple[int, int, int]]:
        """(first, stop, padded length) of the sequences of each attention call, with this pass's token."""
        calls, first = [], 0
        for (_, length), group in groupby(self._order, key=self._group):
            stop = first + len(list(group))
            calls.append((first, stop, length))
            first = stop
        return calls

    def _group(self, row: int) -> tuple[int, int]:
        return self._blocks[row], padded_length(self._lengths[row] + 1)

    def attend(
        self,
        module: nn.Module,
        attention: Callable[..., Any],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        masks: Sequence[Tensor | None],
        **arguments: Any,
    ) -> Tensor:
        """Cache each token's key and value and let it attend to its sequence: (1, H, N, D) -> (1, N, H, D).

        `attention` is an attention function of transformers.
        """
        order, ends = self._to_order.on(query.device), self._ends.on(query.device)
        keys, values = self._keys[self._call], self._values[self._call]
        self._call += 1
        rows = torch.arange(len(order), device=query.device)
        for x, buffer in ((key, keys), (value, values)):
            buffer[rows, :, ends] = x[0].transpose(0, 1).index_select(0, order)
        queries = query[0].transpose(0, 1).index_select(0, order)[:, :, None]  # (N, H, 1, D)
        outputs = []
        for (first, stop, length), mask in zip(self._calls(), masks, strict=True):
            out, _ = attention(
                module,
                queries[first:stop],
                keys[first:stop, :, :length],
                values[first:stop, :, :length],
                None if mask is None else mask.to(query.device),
                **arguments,
            )
            outputs.append(out[:, 0])  # (n, H, D)
        out = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
        return out.index_select(0, self._from_order.on(out.device))[None]
