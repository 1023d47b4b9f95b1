"""Where the sequences of a pass are, as tables that attention kernels read on the device.

All of them are views of one buffer, refreshed in place by one copy (see `pass_tables.py`).

Shapes: T rows of a pass, S sequences, N tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lora_runner.layout.device_copies import to_device
from lora_runner.layout.pass_tables import TILE_ROWS


@dataclass(frozen=True)
class SequenceShape:
    """The sizes of the tables; passes of one shape can share a captured graph."""

    num_rows: int
    """Rows of the pass, with padding."""
    num_sequences: int
    """At most so many sequences, with the one of the padding rows."""

    @property
    def num_tiles(self) -> int:
        """Every sequence ends with at most one tile that is not full."""
        return self.num_rows // TILE_ROWS + self.num_sequences


@dataclass(frozen=True)
class CachedKeys:
    """Where the keys of each sequence are in a cache (`slot_cache.py`)."""

    starts: Sequence[int]
    """First row of each sequence among the cache's rows."""
    lengths: Sequence[int]
    """Tokens of each sequence, the ones of this pass last."""


class SequenceTables:
    """The tables of one pass on a device; attributes are views of `buffer`."""

    def __init__(self, shape: SequenceShape, buffer: Tensor) -> None:
        self.shape = shape
        self.buffer = buffer
        size = _aligned(shape.num_sequences)
        per_sequence = buffer[: 4 * size].view(4, size)[:, : shape.num_sequences]
        self.query_starts, self.query_lengths, self.key_starts, self.key_lengths = per_sequence
        """(S,) int32 each; sequences that are not used have no queries. While training, keys and queries
        are the same rows; with a cache the queries are the last tokens of the keys."""
        self.tiles = buffer[4 * size :].view(-1, 2)
        """(N, 2) int32: a sequence and the first row of a tile of TILE_ROWS queries, those with the longest
        way back to their sequence's start first; -1, -1 where there is nothing to do."""

    @classmethod
    def empty(cls, shape: SequenceShape, device: torch.device) -> SequenceTables:
        """Tables of a pass without sequences."""
        size = 4 * _aligned(shape.num_sequences) + 2 * shape.num_tiles
        tables = cls(shape, torch.zeros(size, dtype=torch.int32, device=device))
        tables.tiles.fill_(-1)
        return tables

    @classmethod
    def of(
        cls,
        shape: SequenceShape,
        lengths: Sequence[int],
        device: torch.device,
        keys: CachedKeys | None = None,
    ) -> SequenceTables:
        """The tables of sequences of `lengths` rows, end to end; without `keys` they attend to themselves.

        Rows beyond theirs are padding: one more sequence, without keys if there is a cache. ValueError: more
        sequences or rows than the shape has.
        """
        tables = cls.empty(shape, device)
        tables.refresh(lengths, keys)
        return tables

    def refresh(self, lengths: Sequence[int], keys: CachedKeys | None = None) -> None:
        """Write the tables of another pass in place; arguments and errors as in `of`."""
        host = SequenceTables.empty(self.shape, torch.device("cpu"))
        host._fill(lengths, keys)
        if self.buffer.device.type == "cpu":
            self.buffer.copy_(host.buffer)
        else:
            self.buffer.copy_(to_device(host.buffer, self.buffer.device))

    def _fill(self, lengths: Sequence[int], keys: CachedKeys | None) -> None:
        shape, used = self.shape, sum(lengths)
        if used > shape.num_rows:
            raise ValueError(f"a pass of {shape.num_rows} rows cannot hold {used}")
        key_starts, key_lengths = (keys.starts, keys.lengths) if keys is not None else ([], [])
        if used < shape.num_rows:
            lengths = [*lengths, shape.num_rows - used]
            key_starts, key_lengths = [*key_starts, 0], [*key_lengths, 0]
        count = len(lengths)
        if count > shape.num_sequences:
            raise ValueError(f"a pass of {shape.num_sequences} sequences cannot hold {count}")
        sizes = np.array(lengths, dtype=np.int64)
        starts = np.cumsum(sizes) - sizes
        self.query_starts.numpy()[:count] = starts
        self.query_lengths.numpy()[:count] = sizes
        self.key_starts.numpy()[:count] = starts if keys is None else key_starts
        self.key_lengths.numpy()[:count] = sizes if keys is None else key_lengths
        per_sequence = -(-sizes // TILE_ROWS)
        sequences = np.repeat(np.arange(count), per_sequence)
        first_tiles = np.cumsum(per_sequence) - per_sequence
        offsets = (np.arange(len(sequences)) - first_tiles[sequences]) * TILE_ROWS
        # The longest programs start first, so that the device does not wait for one of them at the end.
        order = np.argsort(-offsets, kind="stable")
        self.tiles.numpy()[: len(order)] = np.stack([sequences, starts[sequences] + offsets], axis=1)[order]


def _aligned(count: int) -> int:
    """Integers of a table that ends where 16 bytes do: Triton compiles again for another alignment."""
    return -(-count // 4) * 4
