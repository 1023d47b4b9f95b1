"""A key-value cache in which every sequence has a slot of its own, for attention that reads tables.

What a pass writes and reads is in tensors that are refreshed in place, and the buffers keep their place when
other prompts start, so that a captured pass over one token per sequence can be replayed.

Shapes: T rows of a pass, N slots, C capacity of a slot in tokens, G key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lora_runner.layout.device_copies import to_device
from lora_runner.layout.sequence_tables import CachedKeys, SequenceTables


class SlotCache:
    """Keys and values of all layers; filled by a pass over prompts, then one token per sequence and pass.

    Before each pass call `prepare`, after it `end_pass`.
    """

    def __init__(self, num_slots: int, capacity: int, device: torch.device) -> None:
        self.num_slots = num_slots
        self.capacity = capacity
        self.is_filled = False
        """Whether the pass over the prompts has been made."""
        self._device = device
        self._lengths: list[int] = []
        """Cached tokens of each sequence, in the order of the rows of a pass of one token each."""
        self._slots: list[int] = []
        """By the same rows."""
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._destinations: dict[int, Tensor] = {}
        """By number of rows of a pass: the cache's row of each, (T,) int64."""
        self._layer = 0

    def start(self, lengths: Sequence[int], num_new: int) -> None:
        """Forget all sequences; the next pass is over prompts of `lengths` tokens, `num_new` may follow.

        ValueError: more prompts than slots, or longer ones than a slot holds.
        """
        if len(lengths) > self.num_slots:
            raise ValueError(f"a cache of {self.num_slots} slots cannot hold {len(lengths)} sequences")
        if (longest := max(lengths) + num_new) > self.capacity:
            raise ValueError(f"a slot of {self.capacity} tokens cannot hold {longest}")
        self.is_filled = False
        self._lengths, self._slots = list(lengths), list(range(len(lengths)))

    def prepare(self, tables: SequenceTables) -> None:
        """Write the tables of the next pass: those of its attention, and where its keys and values go."""
        num_rows = tables.shape.num_rows
        firsts = np.array(self._slots, dtype=np.int64) * self.capacity
        # Padding rows write to one more row that nothing reads.
        rows = np.full(num_rows, self.num_slots * self.capacity, dtype=np.int64)
        if self.is_filled:
            tables.refresh(
                [1] * len(firsts), CachedKeys(firsts.tolist(), [length + 1 for length in self._lengths])
            )
            rows[: len(firsts)] = firsts + self._lengths
        else:
            tables.refresh(self._lengths)
            prompts = [first + np.arange(n) for first, n in zip(firsts, self._lengths, strict=True)]
            rows[: sum(self._lengths)] = np.concatenate(prompts)
        if num_rows not in self._destinations:
            self._destinations[num_rows] = torch.empty(num_rows, dtype=torch.int64, device=self._device)
        self._destinations[num_rows].copy_(to_device(torch.from_numpy(rows), self._device))

    def begin_pass(self) -> None:
        """Start with the first layer, in each pass that is computed or recorded, but not in a replay."""
        self._layer = 0

    def end_pass(self) -> None:
        """Count the tokens of the pass."""
        if self.is_filled:
            self._lengths = [length + 1 for length in self._lengths]
        self.is_filled = True

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every sequence but those of these rows, which keep their order."""
        self._lengths = [self._lengths[row] for row in rows]
        self._slots = [self._slots[row] for row in rows]

    @property
    def positions(self) -> list[int]:
        """The position of each sequence's next token."""
        return list(self._lengths)

    def store(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the next layer's keys and values (T, G, D); return all of that layer (N · C + 1, G, D)."""
        layer, self._layer = self._layer, self._layer + 1
        if layer == len(self._keys):
            for x, buffers in ((key, self._keys), (value, self._values)):
                shape = (self.num_slots * self.capacity + 1, *x.shape[1:])
                buffers.append(torch.empty(shape, dtype=x.dtype, device=x.device))
        keys, values = self._keys[layer], self._values[layer]
        rows = self._destinations[len(key)]
        keys.index_copy_(0, rows, key)
        values.index_copy_(0, rows, value)
        return keys, values
